"""The states of a lock over time, as a deterministic function of its usage profile."""

import math
import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from operator import attrgetter
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

UNCALIBRATED: Final = 0
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

# More uses than this in an hour are spread evenly over it.
EVENLY_SPREAD_ABOVE: Final = 10

# The local hour at which a day of a lock begins. At night, locks are rarely used.
DAY_START_HOUR: Final = 4


class LockState(NamedTuple):
    """The state of bolt and door from `since` until the next state; times in Unix seconds.

    `changed_at` is the time of the last change of `state`. A change of the door alone does not affect it.
    """

    since: float
    state: int
    door: int
    result: int
    changed_at: float


@dataclass(frozen=True)
class UsageProfile:
    """How a lock is used during a local day.

    `hourly_rates` is the number of uses in each of the 24 local hours. Each use unlocks the lock for `unlocked_for`
    (shortest, longest) seconds. During a use, the door opens once at the start and then `door_openings` times an hour.
    `jam_probability` is the probability that locking ends in the state semi-locked. If `pulls_spring` is true,
    unlocking also pulls the spring.

    If `stands_open` is true, a use is the reverse: it locks the lock for that time, then unlocks it and leaves the door
    open until the next use.
    """

    hourly_rates: tuple[float, ...]
    unlocked_for: tuple[float, float]
    door_openings: float = 0.0
    jam_probability: float = 0.0
    pulls_spring: bool = False
    stands_open: bool = False


def by_hour(default: float, **hourly_rates: float) -> tuple[float, ...]:
    """Return 24 rates: `default`, except for the named hours, as in `by_hour(0.1, h07=2, h08=1.5)`."""
    return tuple(hourly_rates.get(f"h{hour:02}", default) for hour in range(24))


FAMILY: Final = UsageProfile(
    by_hour(0.4, h00=0, h01=0, h02=0, h03=0, h04=0, h05=0.2, h06=1.5, h07=2, h08=1.5, h15=1.5, h16=2, h17=1.5, h23=0.1),
    unlocked_for=(60, 900),
)
OPEN_BY_DAY: Final = UsageProfile(by_hour(0, h06=1), unlocked_for=(13 * HOUR, 16 * HOUR), door_openings=1.5)
GUEST: Final = UsageProfile(
    by_hour(0.6, h01=0.1, h02=0.05, h03=0, h04=0, h05=0.1, h06=0.3, h08=1.5, h09=1.5, h15=2, h18=1.5, h22=1),
    unlocked_for=(20, 180),
)
STAFF: Final = UsageProfile(
    by_hour(1, h00=0.2, h01=0, h02=0, h03=0, h04=0.2, h05=3, h06=4, h13=4, h14=4), unlocked_for=(20, 120)
)
SELDOM: Final = UsageProfile(by_hour(0.12, h00=0, h01=0, h02=0, h03=0, h04=0, h05=0), unlocked_for=(120, 1800))
FREQUENT: Final = UsageProfile(by_hour(6, h00=1, h01=1, h02=1, h03=1, h04=1, h05=1), unlocked_for=(30, 120))
# The main entrance of a hotel: rush hours at check-out, check-in and dinner, and few uses at night.
ENTRANCE: Final = UsageProfile(
    (2, 1, 0.5, 0.3, 0.5, 2, 8, 20, 36, 40, 30, 14, 10, 12, 24, 36, 36, 24, 36, 30, 16, 12, 8, 4),
    unlocked_for=(10, 40),
)
JAMMING: Final = UsageProfile(by_hour(2), unlocked_for=(20, 60), jam_probability=1.0)
STANDING_OPEN: Final = UsageProfile(by_hour(0, h06=1, h14=1), unlocked_for=(20, 60), stands_open=True)
# Used day and night, so that a change is visible within a minute or two.
BUSY: Final = UsageProfile(by_hour(40), unlocked_for=(15, 40))


def zone(name: str | None) -> tzinfo:
    """Return the time zone with that name; UTC if it is None or the system has no such zone."""
    try:
        return ZoneInfo(name) if name else UTC
    except ZoneInfoNotFoundError:
        return UTC


class Use(NamedTuple):
    """One use of a lock: unlocked at `begin`, locked again at about `end` (Unix seconds).

    `seed` determines the details. `jams` is true if the use ends semi-locked, `after_jam` if the previous one did.
    """

    begin: float
    end: float
    seed: int
    jams: bool
    after_jam: bool


class Day(NamedTuple):
    """One local day of a lock, from `DAY_START_HOUR` on: when its uses begin and end, in order. It has at least one."""

    number: int
    start: float
    end: float
    times: list[tuple[float, float]]


class LockTimeline:
    """The states of a lock's bolt and door at all times, as a pure function of (key, profile, time).

    The last day and use are cached, because consecutive polls mostly need the same ones. Threads may overwrite the
    caches of each other: they only compute the same result again.
    """

    def __init__(self, key: int, profile: UsageProfile, time_zone: tzinfo, *, has_door_sensor: bool) -> None:
        self._key = key
        self._profile = profile
        self._zone = time_zone
        self._has_door_sensor = has_door_sensor
        self._day: Day | None = None
        self._use: tuple[float, list[LockState]] | None = None

    def at(self, t: float) -> LockState:
        """Return the state of the lock at `t` Unix seconds."""
        self._day = day = self._day_of(t)
        index = bisect_right(day.times, (t, math.inf)) - 1
        if index < 0:
            day = self.day(self._date(day.start - HOUR))
            index = len(day.times) - 1
        cached = self._use
        if cached is None or cached[0] != day.times[index][0]:
            self._use = cached = (day.times[index][0], self.states(self.use(day, index)))
        states = cached[1]
        return states[bisect_right(states, t, key=attrgetter("since")) - 1]

    def uses(self, start: float, end: float) -> Iterator[Use]:
        """Yield the uses in progress at some time in [start, end), the newest first.

        The last use before `start` counts as being in progress until the next one begins.
        """
        day = self._day_of(end)
        while True:
            for index in range(bisect_right(day.times, (end,)) - 1, -1, -1):
                yield self.use(day, index)
                if day.times[index][0] <= start:
                    return
            day = self._day_of(day.start - HOUR)

    def next_begin(self, use: Use) -> float:
        """Return the time at which the use after this one begins, in Unix seconds."""
        day = self._day_of(use.begin)
        index = bisect_right(day.times, (use.begin, math.inf))
        return day.times[index][0] if index < len(day.times) else self._day_of(day.end).times[0][0]

    def before(self, use: Use) -> LockState:
        """Return the state just before a use, as far as it depends on the profile alone."""
        profile = self._profile
        door = DOOR_CLOSED if self._has_door_sensor else DOOR_NOT_PAIRED
        if profile.stands_open:
            return LockState(-math.inf, UNLOCKED, DOOR_OPENED, DONE, -math.inf)
        return LockState(-math.inf, SEMI_LOCKED if use.after_jam else LOCKED, door, DONE, -math.inf)

    def _day_of(self, t: float) -> Day:
        day = self._day
        return day if day is not None and day.start <= t < day.end else self.day(self._date(t))

    def day(self, local_date: date) -> Day:
        """Return the day that begins on that local date."""
        start, end = self._day_start(local_date), self._day_start(local_date + timedelta(days=1))
        number = self._key * 1_000_003 + local_date.toordinal()
        times = list(self._times(random.Random(number), start, end))  # noqa: S311 - not used for security
        return Day(number, start, end, times or [(start + 8 * HOUR, start + 8 * HOUR + self._profile.unlocked_for[0])])

    def use(self, day: Day, index: int) -> Use:
        """Return a use of that day by its index."""
        begin, end = day.times[index]
        seed = day.number * 1_009 + index
        return Use(begin, end, seed, self._jams(day, index), self._jams(day, index - 1))

    def _jams(self, day: Day, index: int) -> bool:
        probability = self._profile.jam_probability
        # The last use of a day never jams unless all uses do, so that a day does not depend on the previous one.
        if not probability or (probability < 1 and not 0 <= index < len(day.times) - 1):
            return False
        return random.Random(day.number * 1_013 + index).random() < probability  # noqa: S311

    def states(self, use: Use) -> list[LockState]:
        """Return the states of a use in order. The last one continues until the next use begins."""
        rng = random.Random(use.seed)  # noqa: S311 - not used for security
        door = DOOR_CLOSED if self._has_door_sensor else DOOR_NOT_PAIRED
        states: list[LockState] = []

        def turn_bolt(at: float, state: int, result: int = DONE) -> float:
            # The API reports milliseconds.
            at = round(at, 3)
            states.append(LockState(at, state, door, result, at))
            return at

        def open_door(at: float, shortest: float, longest: float) -> float:
            closes = at + shortest + (longest - shortest) * rng.random()
            _, state, _, result, changed_at = states[-1]
            states.append(LockState(at, state, DOOR_OPENED, result, changed_at))
            states.append(LockState(closes, state, DOOR_CLOSED, result, changed_at))
            return closes

        if self._profile.stands_open:
            at = turn_bolt(use.begin, LOCKING)
            at = turn_bolt(at + 0.8 + rng.random(), LOCKED)
            at = turn_bolt(max(use.end, at + 2), UNLOCKING)
            at = turn_bolt(at + 0.8 + rng.random(), UNLOCKED)
            states.append(LockState(at + 1, UNLOCKED, DOOR_OPENED, DONE, at))
            return states
        at = turn_bolt(use.begin, UNLOCKING, JAMMED if use.after_jam else DONE)
        at = turn_bolt(at + 0.8 + rng.random(), UNLOCKED)
        if self._profile.pulls_spring:
            at = turn_bolt(at + 0.3, PULLING)
            at = turn_bolt(at + 0.7, PULLED)
            at = turn_bolt(at + 2, UNLOCKED)
        if self._has_door_sensor:
            at = open_door(at + 1 + 3 * rng.random(), 3, 12)
            while self._profile.door_openings:
                opens = at + rng.expovariate(self._profile.door_openings / HOUR)
                if opens > use.end - 60:
                    break
                at = open_door(opens, 5, 25)
        at = turn_bolt(max(use.end, at + 2), LOCKING)
        at += 0.8 + rng.random()
        if use.jams:
            turn_bolt(at, SEMI_LOCKED, JAMMED)
        else:
            turn_bolt(at, LOCKED)
        return states

    def _times(self, rng: random.Random, start: float, end: float) -> Iterator[tuple[float, float]]:
        free = start
        shortest, longest = self._profile.unlocked_for
        for hour in range(int((end - start) / HOUR)):
            count = int(self._profile.hourly_rates[(DAY_START_HOUR + hour) % 24] + rng.random())
            for index in range(count):
                # Many uses have a minimum distance. A few may begin at any time within the hour.
                spread = 0.5 if count > EVENLY_SPREAD_ABOVE else 1.0
                begin = start + (hour + (index + spread * rng.random()) / count) * HOUR
                locks = begin + shortest + (longest - shortest) * rng.random()
                if begin > free and locks < end - 60:
                    # A use may end 30 seconds later than planned, because the door has to close first.
                    free = locks + 30
                    yield round(begin, 3), locks

    def _date(self, t: float) -> date:
        local = datetime.fromtimestamp(t, self._zone)
        return local.date() if local.hour >= DAY_START_HOUR else local.date() - timedelta(days=1)

    def _day_start(self, day: date) -> float:
        return datetime(day.year, day.month, day.day, DAY_START_HOUR, tzinfo=self._zone).timestamp()
