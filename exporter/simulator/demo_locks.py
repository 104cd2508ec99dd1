"""The accounts of the demo. Together they show every state of a lock and of an account at any time."""

from dataclasses import replace
from datetime import timezone
from functools import partial
from typing import Final

from .account import Account, PersonalKey, RefreshToken, Token
from .battery import Battery
from .bridge import Bridge
from .lock import DAY, LOCK_GO, Lock
from .outages import Outages
from .usage_profile import (
    BUSY,
    ENTRANCE,
    FAMILY,
    FREQUENT,
    GUEST,
    HOUR,
    JAMMING,
    OPEN_BY_DAY,
    SELDOM,
    STAFF,
    STANDING_OPEN,
)

MINUTE: Final = 60.0

# Drains within days, so that charging is visible in a demo.
HEAVY_USE_BATTERY: Final = Battery(drain=3 * DAY, charge=4 * HOUR, low=10)
ALWAYS_CHARGING: Final = Battery(drain=0, charge=DAY, low=100)
# Batteries that are replaced with others that are nearly empty.
NEARLY_EMPTY: Final = Battery(drain=20 * DAY, charge=0, low=6, full=19)


def demo_accounts(seed: int, usage_zone: timezone | None = None) -> list[Account]:
    """Return the accounts of the demo. Locks are used by the time of `usage_zone`, by default of their own zone."""
    return [
        house(seed, usage_zone),
        hotel(seed, usage_zone),
        holiday_flats(seed, usage_zone),
        cabin(seed, usage_zone),
        office(),
    ]


def house(seed: int, usage_zone: timezone | None) -> Account:
    """Return the account of a family's house: six locks on one bridge, key `simulated-key-home`."""
    lock = partial(Lock, seed=seed, usage_zone=usage_zone, bridge=Bridge(11, "Hallway", "100011-00011"))
    return Account(
        "home",
        [
            lock(1001, "Front door", profile=replace(FAMILY, pulls_spring=True)),
            lock(1002, "Garage", profile=OPEN_BY_DAY, device_type=LOCK_GO),
            lock(1003, "Cellar", profile=SELDOM, has_door_sensor=False),
            lock(1004, 'Kids\' "castle" 🏰'),
            lock(1005, "Garden door", profile=BUSY, battery=HEAVY_USE_BATTERY),
            lock(1006, "Shed", profile=SELDOM, device_type=LOCK_GO, created="2023-06-12T12:36:53.4496653"),
        ],
        keys=[PersonalKey("simulated-key-home")],
        tokens=[Token("simulated-token-home")],
        refresh_tokens=[RefreshToken("simulated-refresh-home")],
        highlights=["The garage is unlocked by day, the garden door is used all the time."],
    )


def hotel(seed: int, usage_zone: timezone | None) -> Account:
    """Return the account of a small hotel: twelve locks, three bridges, key `simulated-key-hotel`.

    The main entrance has rush hours, the pool gate jams every day, the bridge of the annex is away a third of each
    hour, and the linen room has no bridge.
    """
    lock = partial(Lock, seed=seed, usage_zone=usage_zone, time_zone="Europe/Berlin", organization_id=883)
    lobby = Bridge(21, "Lobby", "100021-00021")
    corridor = Bridge(22, "Corridor", "100022-00022")
    annex = Bridge(23, "Annex", "100023-00023", _outages(HOUR, first_minute=10, minutes=20, zone=usage_zone))
    return Account(
        "hotel",
        [
            lock(
                2001,
                "Main entrance",
                bridge=lobby,
                profile=ENTRANCE,
                battery=replace(HEAVY_USE_BATTERY, phase=40 * HOUR),
            ),
            lock(2002, "Staff door", bridge=lobby, profile=STAFF),
            lock(2003, "Luggage store", bridge=lobby, profile=OPEN_BY_DAY, device_type=LOCK_GO),
            lock(2004, "Pool gate", bridge=lobby, profile=replace(FREQUENT, jam_probability=0.2)),
            *(lock(2000 + room, f"Room {room}", bridge=corridor, profile=GUEST) for room in range(101, 107)),
            lock(2005, "Annex", bridge=annex, profile=STAFF),
            lock(2006, "Linen room", profile=SELDOM, access_level=0, software=""),
        ],
        keys=[PersonalKey("simulated-key-hotel")],
        tokens=[Token("simulated-token-hotel")],
        refresh_tokens=[RefreshToken("simulated-refresh-hotel")],
        highlights=[
            "The main entrance has rush hours, the pool gate jams now and then.",
            "The annex is offline for 20 minutes of each hour, for the first time 10 minutes after the start.",
            "The linen room has no bridge.",
        ],
    )


def holiday_flats(seed: int, usage_zone: timezone | None) -> Account:
    """Return the account of a house with holiday flats, key `simulated-key-flats`.

    Each lock is always in a state that is rare elsewhere.
    """
    lock = partial(Lock, seed=seed, usage_zone=usage_zone, bridge=Bridge(31, "Stairwell", "100031-00031"))
    return Account(
        "flats",
        [
            lock(3001, "Bicycle cellar", profile=STANDING_OPEN),
            lock(3002, "Courtyard gate", profile=JAMMING),
            lock(3003, "Flat 1", profile=GUEST, battery=ALWAYS_CHARGING),
            lock(3004, "Flat 2", profile=GUEST, battery=NEARLY_EMPTY, device_type=LOCK_GO),
            lock(3005, "Flat 3", profile=None, created="2026-02-03T10:20:30"),
            lock(3006, "Attic", profile=SELDOM, in_range=False),
        ],
        keys=[PersonalKey("simulated-key-flats")],
        highlights=[
            "The bicycle cellar stands open, the courtyard gate is jammed.",
            "Flat 1 is on its charger, flat 2 has a low battery, flat 3 is not calibrated, the attic is offline.",
        ],
    )


def cabin(seed: int, usage_zone: timezone | None) -> Account:
    """Return the account of a mountain cabin, key `simulated-key-cabin`.

    Its data is stale for some minutes twice an hour, because the exporter's default of `stale_after` is 5 minutes.
    """
    lock = partial(Lock, seed=seed, usage_zone=usage_zone, bridge=Bridge(41, "Cabin", "100041-00041"))
    return Account(
        "cabin",
        [lock(4001, "Cabin door"), lock(4002, "Sauna", profile=FREQUENT)],
        keys=[PersonalKey("simulated-key-cabin")],
        outages=_outages(HOUR / 2, first_minute=5, minutes=10, zone=usage_zone),
        highlights=[
            "Tedee does not respond for 10 minutes of each half hour, for the first time 5 minutes after the start.",
            "After 5 of these 10 minutes the data is stale, and the locks disappear.",
        ],
    )


def office() -> Account:
    """Return an account whose key `simulated-key-office` is revoked."""
    return Account(
        "office",
        keys=[PersonalKey("simulated-key-office", revoked=True)],
        highlights=["The key was revoked, so that no sync succeeds (HTTP 401)."],
    )


def _outages(period: float, *, first_minute: int, minutes: int, zone: timezone | None) -> Outages:
    """Return outages that begin at that minute of each period, by the time of the zone (UTC if None)."""
    midnight = -zone.utcoffset(None).total_seconds() if zone else 0.0
    return Outages(period, minutes * MINUTE, midnight + first_minute * MINUTE)
