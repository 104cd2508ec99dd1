"""The activity log: its events (docs: enums/event-type), as values of the labels `event` and `source`."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from .rows import DeviceId, Number, ParseResult, RejectionCollector, RowParser, Timestamp, name_type

PAGE_SIZE = 200
"""Maximum number of events in a response (docs: endpoints/deviceactivity/get-all)."""


class Activity(Struct, frozen=True, gc=False, rename="camel"):
    """An event in the activity log of a lock. Names of users, PINs and links are not read."""

    id: DeviceId
    """Identifies the event. Ids are not in the order of the dates."""
    event: Number | None = None
    date: Timestamp | None = None


_PARSER = RowParser(Activity, describe=name_type)
"""A value that is not what it should be may be the name of a person."""


def read_activities(raw_rows: Sequence[bytes]) -> ParseResult[int, Activity]:
    """Parse the events in a response, at most PAGE_SIZE."""
    rejections = RejectionCollector()
    raw_rows = raw_rows[:PAGE_SIZE]
    rows = {row.id: row for each in raw_rows if (row := _PARSER.parse(each, rejections))}
    return ParseResult(rows, rejections.counts, tuple(rejections.recorded), raw_rows)


class EventKind(NamedTuple):
    """What happened at a lock or gate, and how it was operated."""

    event: str
    """What happened, such as `unlocked` or `wrong_pin`."""
    source: str
    """How the device was operated, such as `app` or `manual`; `device` if it was not operated."""

    @classmethod
    def of(cls, number: int) -> "EventKind":
        """Return the kind of an event number. A number that Tedee has not documented is shown as `code_95`."""
        return EVENT_KINDS.get(number) or cls(f"code_{number}", "unknown")


EVENT_KINDS: Mapping[int, EventKind] = {
    number: EventKind(event, source)
    for event, numbers in {
        "locked": {
            32: "app", 34: "button", 36: "auto", 38: "manual", 59: "homekit", 65: "pin", 66: "keypad", 90: "matter",
            226: "access_link", 227: "local_api",
        },
        "lock_postponed": {56: "button"},
        "unlocked": {
            33: "app", 35: "button", 37: "auto", 39: "manual", 57: "homekit", 61: "pin", 67: "force", 68: "pin",
            77: "fingerprint", 78: "fingerprint", 88: "matter", 93: "matter", 228: "access_link", 229: "local_api",
            10000: "app", 10001: "access_link",
        },
        "pulled": {
            51: "app", 52: "auto", 53: "manual", 55: "app", 60: "homekit", 63: "pin", 76: "pin", 80: "fingerprint",
            81: "fingerprint", 87: "auto", 91: "matter", 92: "matter", 230: "access_link", 231: "local_api",
            234: "access_link", 235: "local_api",
        },
        "semi_locked": {
            47: "manual", 48: "button", 49: "auto", 54: "app", 58: "homekit", 64: "pin", 79: "fingerprint",
            89: "matter", 232: "access_link", 233: "local_api",
        },
        "jammed": {40: "device"},
        "wrong_pin": {62: "pin"},
        "unauthorized_pin": {75: "pin"},
        "door_opened": {83: "device"},
        "door_closed": {84: "device"},
        "door_open_too_long": {86: "device"},
        "door_sensor_uncalibrated": {85: "device"},
        "calibrated": {43: "device"},
        "uncalibrated": {74: "device"},
        "charging_started": {46: "device"},
        "charging_stopped": {50: "device"},
        "powered_on": {42: "device"},
        "powered_off": {41: "button"},
        "firmware_updated": {224: "bridge", 225: "app"},
    }.items()
    for number, source in numbers.items()
}  # fmt: skip
"""Kinds by the number of the event. 10000 and 10001 are events of gates."""
