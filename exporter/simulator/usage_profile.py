"""When a lock is used: a day of a lock as a deterministic list of moments."""

import math
import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from operator import attrgetter
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

UNLOCKED: Final = 2
SEMI_LOCKED: Final = 3
UNLOCKING: Final = 4
LOCKING: Final = 5
LOCKED: Final = 6
PULLED: Final = 7
PULLING: Final = 8

DOOR_NOT_PAIRED: Final = 0
DOOR_OPENED: Final = 2
DOOR_CLOSED: Final = 3

DONE: Final = 0
JAMMED: Final = 1

HOUR: Final = 3600.0

# Uses an hour of a lock that is never long at rest.
MANY: Final = 10

# The hour of the local night at which one day of a lock ends and the next begins.
DAWN: Final = 4


class Moment(NamedTuple):
    """A lock's condition from `at` until the next moment; times in Unix seconds.

    `changed` is when `state` last changed: it stands still while only the door moves.
    """

    at: float
    state: int
    door: int
    result: int
    changed: float


@dataclass(frozen=True)
class UsageProfile:
    """How a lock is used in the course of a local day.

    `rates` holds, for each of the 24 local hours, how often the lock is unlocked in it. It then stays unlocked
    for `stay` (shortest, longest) seconds; the door opens once, and `passages` times an hour while it lasts.
    `jams` is the chance that locking ends semi-locked; `pulls` says whether unlocking pulls the spring too.
    """

    rates: tuple[float, ...]
    stay: tuple[float, float]
    passages: float = 0.0
    jams: float = 0.0
    pulls: bool = False


def by_hour(usual: float, **rates: float) -> tuple[float, ...]:
    """The 24 rates of a day: `usual`, but for the hours named, as in `by_hour(0.1, h07=2, h08=1.5)`."""
    return tuple(rates.get(f"h{hour:02}", usual) for hour in range(24))


FAMILY: Final = UsageProfile(
    by_hour(0.4, h00=0, h01=0, h02=0, h03=0, h04=0, h05=0.2, h06=1.5, h07=2, h08=1.5, h15=1.5, h16=2, h17=1.5, h23=0.1),
    stay=(60, 900),
)
OPEN_BY_DAY: Final = UsageProfile(by_hour(0, h06=1), stay=(13 * HOUR, 16 * HOUR), passages=1.5)
GUEST: Final = UsageProfile(
    by_hour(0.6, h01=0.1, h02=0.05, h03=0, h04=0, h05=0.1, h06=0.3, h08=1.5, h09=1.5, h15=2, h18=1.5, h22=1),
    stay=(20, 180),
)
STAFF: Final = UsageProfile(
    by_hour(1, h00=0.2, h01=0, h02=0, h03=0, h04=0.2, h05=3, h06=4, h13=4, h14=4), stay=(20, 120)
)
SELDOM: Final = UsageProfile(by_hour(0.12, h00=0, h01=0, h02=0, h03=0, h04=0, h05=0), stay=(120, 1800))
FREQUENT: Final = UsageProfile(by_hour(6, h00=1, h01=1, h02=1, h03=1, h04=1, h05=1), stay=(30, 120))
# Day and night, so that whoever watches sees something happen within a minute or two.
BUSY: Final = UsageProfile(by_hour(40), stay=(15, 40))


def zone(name: str | None) -> tzinfo:
    """The time zone of that name; UTC for a lock that has none or where the system knows no zones."""
    try:
        return ZoneInfo(name) if name else UTC
    except ZoneInfoNotFoundError:
        return UTC


class Stay(NamedTuple):
    """One use of a lock: unlocked at `begin`, locked again about `finish` (Unix seconds).

    `seed` settles the details; `after_jam` says that the stay before this one ended semi-locked.
    """

    begin: float
    finish: float
    seed: int
    jams: bool
    after_jam: bool


class Day(NamedTuple):
    """One local day of a lock, dawn to dawn: when its stays begin and finish, in order. It has at least one."""

    number: int
    start: float
    end: float
    times: list[tuple[float, float]]


class LockTimeline:
    """The whole past and future of one lock's bolt and door, as a pure function of (key, rhythm, time).

    The day and the stay looked at last are remembered, which makes one poll after another cheap. Threads may race
    for that memory: the loser computes once more, to the same end.
    """

    def __init__(self, key: int, rhythm: UsageProfile, time_zone: str | None, *, has_door_sensor: bool) -> None:
        self._key = key
        self._rhythm = rhythm
        self._zone = zone(time_zone)
        self._has_door_sensor = has_door_sensor
        self._day: Day | None = None
        self._stay: tuple[float, list[Moment]] | None = None

    def at(self, t: float) -> Moment:
        """The lock's condition at `t` Unix seconds."""
        day = self._day
        if day is None or not day.start <= t < day.end:
            self._day = day = self.day(self._date(t))
        index = bisect_right(day.times, (t, math.inf)) - 1
        if index < 0:
            day = self.day(self._date(day.start - HOUR))
            index = len(day.times) - 1
        remembered = self._stay
        if remembered is None or remembered[0] != day.times[index][0]:
            self._stay = remembered = (day.times[index][0], self.moments(self.stay(day, index)))
        moments = remembered[1]
        return moments[bisect_right(moments, t, key=attrgetter("at")) - 1]

    def day(self, morning: date) -> Day:
        """The day that begins at dawn of that local date."""
        start, end = self._dawn(morning), self._dawn(morning + timedelta(days=1))
        number = self._key * 1_000_003 + morning.toordinal()
        times = list(self._times(random.Random(number), start, end))  # noqa: S311 - a world, not a secret
        return Day(number, start, end, times or [(start + 8 * HOUR, start + 8 * HOUR + self._rhythm.stay[0])])

    def stay(self, day: Day, index: int) -> Stay:
        """A stay of that day, by its place in it."""
        begin, finish = day.times[index]
        seed = day.number * 1_009 + index
        return Stay(begin, finish, seed, self._jams(day, index), self._jams(day, index - 1))

    def _jams(self, day: Day, index: int) -> bool:
        # The day's last locking always succeeds: a new day need not know how the one before ended.
        if not (self._rhythm.jams and 0 <= index < len(day.times) - 1):
            return False
        return random.Random(day.number * 1_013 + index).random() < self._rhythm.jams  # noqa: S311

    def moments(self, stay: Stay) -> list[Moment]:
        """All that happens in a stay, in order. The last moment holds until the next stay begins."""
        rng = random.Random(stay.seed)  # noqa: S311 - a world, not a secret
        door = DOOR_CLOSED if self._has_door_sensor else DOOR_NOT_PAIRED
        moments: list[Moment] = []

        def turn(at: float, state: int, result: int = DONE) -> float:
            # Milliseconds, as precise as the API writes them.
            at = round(at, 3)
            moments.append(Moment(at, state, door, result, at))
            return at

        def pass_through(at: float, shortest: float, longest: float) -> float:
            closes = at + shortest + (longest - shortest) * rng.random()
            _, state, _, result, changed = moments[-1]
            moments.append(Moment(at, state, DOOR_OPENED, result, changed))
            moments.append(Moment(closes, state, DOOR_CLOSED, result, changed))
            return closes

        at = turn(stay.begin, UNLOCKING, JAMMED if stay.after_jam else DONE)
        at = turn(at + 0.8 + rng.random(), UNLOCKED)
        if self._rhythm.pulls:
            at = turn(at + 0.3, PULLING)
            at = turn(at + 0.7, PULLED)
            at = turn(at + 2, UNLOCKED)
        if self._has_door_sensor:
            at = pass_through(at + 1 + 3 * rng.random(), 3, 12)
            while self._rhythm.passages:
                opens = at + rng.expovariate(self._rhythm.passages / HOUR)
                if opens > stay.finish - 60:
                    break
                at = pass_through(opens, 5, 25)
        at = turn(max(stay.finish, at + 2), LOCKING)
        at += 0.8 + rng.random()
        if stay.jams:
            turn(at, SEMI_LOCKED, JAMMED)
        else:
            turn(at, LOCKED)
        return moments

    def _times(self, rng: random.Random, start: float, end: float) -> Iterator[tuple[float, float]]:
        free = start
        shortest, longest = self._rhythm.stay
        for hours in range(int((end - start) / HOUR)):
            count = int(self._rhythm.rates[(DAWN + hours) % 24] + rng.random())
            for index in range(count):
                # Many in an hour keep some distance; a few may begin at any minute.
                spread = 0.5 if count > MANY else 1.0
                begin = start + (hours + (index + spread * rng.random()) / count) * HOUR
                finish = begin + shortest + (longest - shortest) * rng.random()
                if begin > free and finish < end - 60:
                    # A stay may last up to half a minute more than it is asked to: the door wants to shut first.
                    free = finish + 30
                    yield round(begin, 3), finish

    def _date(self, t: float) -> date:
        local = datetime.fromtimestamp(t, self._zone)
        return local.date() if local.hour >= DAWN else local.date() - timedelta(days=1)

    def _dawn(self, day: date) -> float:
        return datetime(day.year, day.month, day.day, DAWN, tzinfo=self._zone).timestamp()
