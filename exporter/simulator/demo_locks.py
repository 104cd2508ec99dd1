"""The two accounts of the demo: a family's house and a small hotel."""

from dataclasses import replace
from functools import partial
from typing import Final

from .account import Account, PersonalKey, RefreshToken, Token
from .battery import Battery
from .bridge import Bridge, Outages
from .lock import DAY, LOCK_GO, Lock
from .usage_profile import BUSY, FAMILY, FREQUENT, GUEST, HOUR, OPEN_BY_DAY, SELDOM, STAFF

# Drains within days, so that charging is visible in a demo.
HEAVY_USE_BATTERY: Final = Battery(drain=3 * DAY, charge=4 * HOUR, low=10)


def house(seed: int) -> Account:
    """Return the account of a family's house: six locks on one bridge, key `simulated-key-home`."""
    lock = partial(Lock, seed=seed, bridge=Bridge(11, "Hallway", "100011-00011"))
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
    )


def hotel(seed: int) -> Account:
    """Return the account of a small hotel: twelve locks, three bridges, key `simulated-key-hotel`.

    The pool gate jams every day, the bridge of the annex has outages, and the linen room has no bridge.
    """
    lock = partial(Lock, seed=seed, time_zone="Europe/Berlin", organization_id=883)
    lobby = Bridge(21, "Lobby", "100021-00021")
    corridor = Bridge(22, "Corridor", "100022-00022")
    annex = Bridge(23, "Annex", "100023-00023", Outages(seed * 31 + 23, probability=0.6))
    return Account(
        "hotel",
        [
            lock(
                2001, "Main entrance", bridge=lobby, profile=BUSY, battery=replace(HEAVY_USE_BATTERY, phase=40 * HOUR)
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
    )
