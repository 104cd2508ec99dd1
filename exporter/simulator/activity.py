"""The events of a lock, as a deterministic function of time: what its states and its keypads make of them.

Nothing is stored. The events of any period are computed from the uses, batteries and keypads in that period.
"""

import random
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from .accessories import DAY, Keypad
from .battery import Battery
from .usage_profile import (
    DOOR_CLOSED,
    DOOR_OPENED,
    LOCKED,
    PULLED,
    SEMI_LOCKED,
    UNLOCKED,
    UNLOCKING,
    LockState,
    LockTimeline,
    Use,
)

JAMMED_EVENT: Final = 40
CHARGING_STARTED: Final = 46
CHARGING_STOPPED: Final = 50
WRONG_PIN: Final = 62
UNAUTHORIZED_PIN: Final = 75
DOOR_OPENED_EVENT: Final = 83
DOOR_CLOSED_EVENT: Final = 84
DOOR_OPEN_TOO_LONG: Final = 86

OPEN_DOOR_THRESHOLD: Final = 300
"""Seconds after which an open door causes an event."""

FIRST_SCRIPTED_ID: Final = 2**52
"""Smaller ids are computed from the event. All ids are exact in JavaScript, as numbers below 2^53."""

SLOW: Final = 20
"""One of that many events arrives with a delay of minutes."""


class User(NamedTuple):
    """A person who may use the locks. The name is invented."""

    user_id: int
    name: str


USERS: Final = (
    User(550_101, "Zenobia Quillfeather"),
    User(550_102, "Barnabas Oxenfree"),
    User(550_103, "Philippa Thistlewood"),
    User(550_104, "Ignatius Brambleby"),
)
PIN_ALIASES: Final = ("Cleaner Wilhelmina", "Dog walker Ottoline", "Neighbour Mortimer")
LINK_NAMES: Final = ("Guests of Cordelia", "Parcel for Leopold")

PERSONAL_TEXTS: Final = (*(user.name for user in USERS), *PIN_ALIASES, *LINK_NAMES)
"""All texts of activities that identify people. Tests check that no client passes them on."""


class Operation(NamedTuple):
    """The numbers of the events of one way to operate a lock (docs: enums/event-type). None if it is not possible."""

    unlocked: int | None
    pulled: int | None
    locked: int | None
    half_way: int


OPERATIONS: Final[Mapping[str, Operation]] = {
    "app": Operation(33, 52, 32, 54),
    "button": Operation(35, 52, 34, 48),
    "auto": Operation(37, 87, 36, 49),
    "manual": Operation(39, 53, 38, 47),
    "homekit": Operation(57, 60, 59, 58),
    "matter": Operation(88, 91, 90, 89),
    "access_link": Operation(228, 230, 226, 232),
    "local_api": Operation(229, 231, 227, 233),
    "pin": Operation(61, 76, 65, 64),
    "keypad": Operation(None, None, 66, 64),
    "fingerprint": Operation(77, 81, None, 79),
}

UNLOCKING_WEIGHTS: Final = {
    "app": 35, "manual": 28, "button": 15, "auto": 10, "homekit": 5, "matter": 3, "access_link": 2, "local_api": 2,
}  # fmt: skip
LOCKING_WEIGHTS: Final = {
    "auto": 50, "button": 18, "manual": 14, "app": 12, "homekit": 3, "matter": 1, "access_link": 1, "local_api": 1,
}  # fmt: skip

KEYPAD_NUMBERS: Final = frozenset(
    {WRONG_PIN, UNAUTHORIZED_PIN}
    | {number for way in ("pin", "keypad", "fingerprint") for number in OPERATIONS[way] if number is not None}
)
"""Events for which a keypad was used."""

APP_NUMBERS: Final = frozenset(number for number in OPERATIONS["app"] if number is not None)
LINK_NUMBERS: Final = frozenset(number for number in OPERATIONS["access_link"] if number is not None)
PIN_NUMBERS: Final = frozenset({61, 65, 76})


class Event(NamedTuple):
    """One item of the activity log. Times are Unix seconds, rounded to milliseconds.

    `date` is the time at which it happened. `delivered_at` is the time at which it reaches the cloud; None if that
    depends on the connection of the lock. Ids are unique, but not in the order of dates.
    """

    id: int
    date: float
    number: int
    delivered_at: float | None = None
    user: User | None = None
    pin_alias: str | None = None
    access_link_name: str | None = None

    @property
    def delay(self) -> float:
        """The seconds until the event reaches the cloud if the lock is connected: mostly some, rarely minutes."""
        seconds = 1 + (self.id >> 8) % 7000 / 1000
        return seconds * 30 if (self.id >> 24) % SLOW == 0 else seconds


class Activity:
    """The events of a lock with that key, usage and battery, from its creation on."""

    def __init__(self, key: int, timeline: LockTimeline | None, battery: Battery, created_at: float) -> None:
        self._key = key
        self._timeline = timeline
        self._battery = battery
        self.created_at = created_at

    def between(
        self, start: float, end: float, keypads: Sequence[Keypad] = (), numbers: Container[int] | None = None
    ) -> list[Event]:
        """Return the events with dates in [start, end), in the order of dates. With `numbers`, only those events."""
        start = max(start, self.created_at)
        found = [
            *self._operations(start, end, keypads),
            *(moment for keypad in keypads for moment in self._incidents(start, end, keypad)),
            *self._charging(start, end),
        ]
        dated = sorted((round(at, 3), number) for at, number in found if numbers is None or number in numbers)
        return [self._event(date, number) for date, number in dated if start <= date < end]

    def _operations(self, start: float, end: float, keypads: Sequence[Keypad]) -> Iterator[tuple[float, int]]:
        if self._timeline is None or start >= end:
            return
        unlocking, locking = _weights(keypads)
        for use in self._timeline.uses(start, end):
            yield from self._of_use(use, self._timeline, unlocking, locking)

    def _of_use(
        self, use: Use, timeline: LockTimeline, unlocking: Mapping[str, int], locking: Mapping[str, int]
    ) -> Iterator[tuple[float, int]]:
        rng = random.Random(use.seed * 31 + 7)  # noqa: S311 - not used for security
        unlock = OPERATIONS[rng.choices([*unlocking], [*unlocking.values()])[0]]
        lock = OPERATIONS[rng.choices([*locking], [*locking.values()])[0]]
        states = timeline.states(use)
        before = timeline.before(use)
        opened_at: float | None = None
        for last, state in pairwise([before, *states]):
            number = _number(last, state, unlock, lock)
            if number is not None:
                yield state.since, number
                if state.state == SEMI_LOCKED:
                    # An event of its own that follows at once.
                    yield state.since + 0.02, JAMMED_EVENT
            if state.door == last.door:
                continue
            if state.door == DOOR_OPENED:
                opened_at = state.since
                yield state.since, DOOR_OPENED_EVENT
            elif state.door == DOOR_CLOSED:
                yield state.since, DOOR_CLOSED_EVENT
                yield from _open_too_long(opened_at, state.since)
                opened_at = None
        if opened_at is not None:
            yield from _open_too_long(opened_at, timeline.next_begin(use))

    def _incidents(self, start: float, end: float, keypad: Keypad) -> Iterator[tuple[float, int]]:
        """Yield bursts of wrong PINs and PINs outside their times."""
        for day in range(int(start // DAY), int(end // DAY) + 1):
            rng = random.Random((self._key * 1_000_033 + keypad.id) * 100_003 + day)  # noqa: S311
            for _ in range(int(keypad.wrong_pins + rng.random())):
                at = (day + 0.99 * rng.random()) * DAY
                for _ in range(rng.randint(1, 6)):
                    yield at, WRONG_PIN
                    at += 4 + 8 * rng.random()
            for _ in range(int(keypad.unauthorized_pins + rng.random())):
                yield (day + rng.random()) * DAY, UNAUTHORIZED_PIN

    def _charging(self, start: float, end: float) -> Iterator[tuple[float, int]]:
        for at, on in self._battery.charges(start, end):
            yield at, CHARGING_STARTED if on else CHARGING_STOPPED

    def _event(self, date: float, number: int) -> Event:
        # The multiplier is odd, so different events of a lock have different ids; locks differ by their key.
        event_id = (
            (round(date * 1000) * 1000 + number) * 0x1D_8AF0_66FA_4D1B + self._key * 0x9E_3779_B97F
        ) % FIRST_SCRIPTED_ID
        # The lowest bits hardly differ.
        choice = event_id >> 20
        person = USERS[choice % len(USERS)]
        return Event(
            event_id,
            date,
            number,
            user=person if number in APP_NUMBERS | PIN_NUMBERS else None,
            pin_alias=PIN_ALIASES[choice % len(PIN_ALIASES)] if number in PIN_NUMBERS else None,
            access_link_name=LINK_NAMES[choice % len(LINK_NAMES)] if number in LINK_NUMBERS else None,
        )


def _weights(keypads: Sequence[Keypad]) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Return the weights of the ways to unlock and to lock. With keypads, most people use them."""
    if not keypads:
        return UNLOCKING_WEIGHTS, LOCKING_WEIGHTS
    by_finger = {"pin": 50, "fingerprint": 70} if any(keypad.pro for keypad in keypads) else {"pin": 100}
    return {**UNLOCKING_WEIGHTS, **by_finger}, {**LOCKING_WEIGHTS, "keypad": 15, "pin": 5}


def _number(last: LockState, state: LockState, unlock: Operation, lock: Operation) -> int | None:
    """Return the event of a change of the bolt. Returns None if it has none."""
    if state.state == last.state:
        return None
    if state.state == UNLOCKED and last.state == UNLOCKING:
        return unlock.unlocked
    return {PULLED: unlock.pulled, LOCKED: lock.locked, SEMI_LOCKED: lock.half_way}.get(state.state)


def _open_too_long(opened_at: float | None, closed_at: float) -> Iterator[tuple[float, int]]:
    if opened_at is not None and closed_at - opened_at > OPEN_DOOR_THRESHOLD:
        yield opened_at + OPEN_DOOR_THRESHOLD, DOOR_OPEN_TOO_LONG
