"""The two accounts of the demonstration: a family's house and a small hotel."""

from dataclasses import replace
from functools import partial
from typing import Final

from .account import Account, PersonalKey, RefreshToken, Token
from .battery import Battery
from .bridge import Bridge, Outages
from .lock import DAY, LOCK_GO, Lock
from .usage_profile import BUSY, FAMILY, FREQUENT, GUEST, HOUR, OPEN_BY_DAY, SELDOM, STAFF

# In use day and night, it needs a charger every few days: often enough to be seen.
HARD_WORKING: Final = Battery(drain=3 * DAY, charge=4 * HOUR, low=10)


def house(seed: int) -> Account:
    """A family's house: six locks on one bridge, key `simulated-key-home`."""
    lock = partial(Lock, seed=seed, bridge=Bridge(11, "Hallway", "100011-00011"))
    return Account(
        "home",
        [
            lock(1001, "Front door", rhythm=replace(FAMILY, pulls=True)),
            lock(1002, "Garage", rhythm=OPEN_BY_DAY, device_type=LOCK_GO),
            lock(1003, "Cellar", rhythm=SELDOM, has_door_sensor=False),
            lock(1004, 'Kids\' "castle" 🏰'),
            lock(1005, "Garden door", rhythm=BUSY, battery=HARD_WORKING),
            lock(1006, "Shed", rhythm=SELDOM, device_type=LOCK_GO, created="2023-06-12T12:36:53.4496653"),
        ],
        keys=[PersonalKey("simulated-key-home")],
        tokens=[Token("simulated-token-home")],
        refresh_tokens=[RefreshToken("simulated-refresh-home")],
    )


def hotel(seed: int) -> Account:
    """A small hotel: twelve locks, three bridges, key `simulated-key-hotel`.

    The pool gate jams every now and then, the annex loses its bridge, the linen room never had one.
    """
    lock = partial(Lock, seed=seed, time_zone="Europe/Berlin", organization_id=883)
    lobby = Bridge(21, "Lobby", "100021-00021")
    corridor = Bridge(22, "Corridor", "100022-00022")
    annex = Bridge(23, "Annex", "100023-00023", Outages(seed * 31 + 23, chance=0.6))
    return Account(
        "hotel",
        [
            lock(2001, "Main entrance", bridge=lobby, rhythm=BUSY, battery=replace(HARD_WORKING, phase=40 * HOUR)),
            lock(2002, "Staff door", bridge=lobby, rhythm=STAFF),
            lock(2003, "Luggage store", bridge=lobby, rhythm=OPEN_BY_DAY, device_type=LOCK_GO),
            lock(2004, "Pool gate", bridge=lobby, rhythm=replace(FREQUENT, jams=0.2)),
            *(lock(2000 + room, f"Room {room}", bridge=corridor, rhythm=GUEST) for room in range(101, 107)),
            lock(2005, "Annex", bridge=annex, rhythm=STAFF),
            lock(2006, "Linen room", rhythm=SELDOM, access_level=0, software=""),
        ],
        keys=[PersonalKey("simulated-key-hotel")],
        tokens=[Token("simulated-token-hotel")],
        refresh_tokens=[RefreshToken("simulated-refresh-hotel")],
    )
