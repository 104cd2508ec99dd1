"""The accounts of the demo. Together they show every state of a lock and of an account at any time."""

from dataclasses import replace
from datetime import timezone
from functools import partial
from typing import Final

from .accessories import DoorSensor, DryContact, Gate, Keypad
from .account import Account, PersonalKey, RefreshToken, Token
from .battery import Battery
from .bridge import Bridge
from .device import LOCK_GO, WIFI_SOFTWARE, Firmware
from .lock import DAY, Lock
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
# Batteries of accessories that always have the same low level. Its last change is at most 20 days ago, so Tedee reports
# it.
KEYPAD_BATTERY_LOW: Final = Battery(drain=20 * DAY, charge=0, low=12, full=12)
SENSOR_BATTERY_LOW: Final = Battery(drain=20 * DAY, charge=0, low=14, full=14)
# Changes so slowly that its last change is mostly more than 30 days ago, so that Tedee does not report it.
HARDLY_DRAINING: Final = Battery(drain=40_000 * DAY, charge=0, low=0)


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
    """Return the account of a family's house, key `simulated-key-home`.

    Six locks are on one bridge, some with keypads and door sensors. There are two gates and a dry contact.
    """
    lock = partial(Lock, seed=seed, usage_zone=usage_zone, bridge=Bridge(11, "Hallway", "100011-00011"))
    return Account(
        "home",
        [
            lock(
                1001,
                "Front door",
                profile=replace(FAMILY, pulls_spring=True),
                accessories=[Keypad(1101, "Front door keypad", pro=True), DoorSensor(1201, "Front door sensor")],
            ),
            lock(
                1002,
                "Garage",
                profile=OPEN_BY_DAY,
                device_type=LOCK_GO,
                accessories=[DoorSensor(1202, "Garage sensor")],
            ),
            lock(1003, "Cellar", profile=SELDOM, has_door_sensor=False),
            lock(1004, 'Kids\' "castle" 🏰', accessories=[DoorSensor(1204, "Castle sensor", battery=HARDLY_DRAINING)]),
            lock(
                1005,
                "Garden door",
                profile=BUSY,
                battery=HEAVY_USE_BATTERY,
                accessories=[
                    Keypad(1105, "Garden keypad", battery=KEYPAD_BATTERY_LOW),
                    DoorSensor(1205, "Garden sensor"),
                ],
            ),
            lock(
                1006,
                "Shed",
                profile=SELDOM,
                device_type=LOCK_GO,
                created="2023-06-12T12:36:53.4496653",
                accessories=[DoorSensor(1206, "Shed sensor")],
            ),
        ],
        others=[
            Gate(1301, "Driveway"),
            Gate(1302, "Garage gate", outages=_outages(DAY, first_minute=15 * 60, minutes=60, zone=usage_zone)),
            DryContact(1401, "Doorbell"),
            Keypad(1109, "Spare keypad"),
        ],
        keys=[PersonalKey("simulated-key-home")],
        tokens=[Token("simulated-token-home")],
        refresh_tokens=[RefreshToken("simulated-refresh-home")],
        highlights=[
            "The garage is unlocked by day, the garden door is used all the time.",
            "The battery of the garden keypad is at 12 %.",
        ],
    )


def hotel(seed: int, usage_zone: timezone | None) -> Account:
    """Return the account of a small hotel: twelve locks, three bridges, keypads, key `simulated-key-hotel`.

    The main entrance has rush hours, the pool gate jams every day, the bridge of the annex is away a third of each
    hour, and the linen room has no bridge.
    """
    lock = partial(Lock, seed=seed, usage_zone=usage_zone, time_zone="Europe/Berlin", organization_id=883)
    lobby = Bridge(21, "Lobby", "100021-00021")
    corridor = Bridge(
        22,
        "Corridor",
        "100022-00022",
        firmware=[Firmware("2.2.37625", update_available=True), Firmware("1.1.18", True, WIFI_SOFTWARE)],
        updates=_outages(HOUR, first_minute=4, minutes=3, zone=usage_zone),
    )
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
                accessories=[Keypad(2901, "Main entrance keypad", pro=True), DoorSensor(2801, "Main entrance sensor")],
            ),
            lock(
                2002,
                "Staff door",
                bridge=lobby,
                profile=STAFF,
                accessories=[Keypad(2902, "Staff keypad", wrong_pins=24), DoorSensor(2802, "Staff door sensor")],
            ),
            lock(
                2003,
                "Luggage store",
                bridge=lobby,
                profile=OPEN_BY_DAY,
                device_type=LOCK_GO,
                accessories=[DoorSensor(2803, "Luggage store sensor")],
            ),
            lock(
                2004,
                "Pool gate",
                bridge=lobby,
                profile=replace(FREQUENT, jam_probability=0.2),
                accessories=[DoorSensor(2804, "Pool gate sensor", battery=SENSOR_BATTERY_LOW)],
            ),
            *(
                lock(
                    2000 + room,
                    f"Room {room}",
                    bridge=corridor,
                    profile=GUEST,
                    accessories=[Keypad(2400 + room, f"Keypad {room}"), DoorSensor(2600 + room, f"Door sensor {room}")],
                )
                for room in range(101, 107)
            ),
            lock(
                2005,
                "Annex",
                bridge=annex,
                profile=STAFF,
                accessories=[Keypad(2905, "Annex keypad"), DoorSensor(2805, "Annex sensor")],
            ),
            lock(
                2006,
                "Linen room",
                profile=SELDOM,
                access_level=0,
                software="",
                accessories=[DoorSensor(2806, "Linen room sensor")],
            ),
        ],
        keys=[PersonalKey("simulated-key-hotel")],
        tokens=[Token("simulated-token-hotel")],
        refresh_tokens=[RefreshToken("simulated-refresh-hotel")],
        highlights=[
            "The main entrance has rush hours, the pool gate jams now and then.",
            "The battery of the pool gate's door sensor is at 14 %, wrong PINs are typed at the staff door every hour.",
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
            lock(
                3001, "Bicycle cellar", profile=STANDING_OPEN, accessories=[DoorSensor(3201, "Bicycle cellar sensor")]
            ),
            lock(3002, "Courtyard gate", profile=JAMMING, accessories=[DoorSensor(3202, "Courtyard sensor")]),
            lock(
                3003,
                "Flat 1",
                profile=GUEST,
                battery=ALWAYS_CHARGING,
                accessories=[Keypad(3103, "Flat 1 keypad"), DoorSensor(3203, "Flat 1 sensor")],
            ),
            lock(
                3004,
                "Flat 2",
                profile=GUEST,
                battery=NEARLY_EMPTY,
                device_type=LOCK_GO,
                accessories=[DoorSensor(3204, "Flat 2 sensor")],
            ),
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
    """Return the account of a mountain cabin, key `simulated-key-cabin`, which may not read the activity log.

    Its data is stale for some minutes twice an hour, because the exporter's default of `stale_after` is 5 minutes.
    """
    lock = partial(Lock, seed=seed, usage_zone=usage_zone, bridge=Bridge(41, "Cabin", "100041-00041"))
    return Account(
        "cabin",
        [
            lock(4001, "Cabin door", accessories=[DoorSensor(4201, "Cabin sensor")]),
            lock(4002, "Sauna", profile=FREQUENT, accessories=[DoorSensor(4202, "Sauna sensor")]),
        ],
        keys=[PersonalKey("simulated-key-cabin", scopes=("Device.Read",))],
        outages=_outages(HOUR / 2, first_minute=5, minutes=10, zone=usage_zone),
        highlights=[
            "Tedee does not respond for 10 minutes of each half hour, for the first time 5 minutes after the start.",
            "After 5 of these 10 minutes the data is stale, and the locks disappear.",
            "The key lacks the scope DeviceActivity.Read, so that there are no events (HTTP 403).",
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
