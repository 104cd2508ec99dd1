"""A simulated Tedee cloud for tests, development and the demo.

It imports nothing of the exporter, which connects to it over HTTP as it does to Tedee.
"""

from .accessories import DoorSensor, DryContact, Gate, Keypad
from .account import Account, PersonalKey, RefreshToken, Token
from .activity import PERSONAL_TEXTS, Event, User
from .battery import Battery
from .bridge import Bridge
from .cloud import Call, Cloud
from .device import MISSING, Device, Firmware
from .limits import Violation
from .lock import Lock
from .oauth import TOKEN_PATH
from .outages import Outages
from .server import Address, serve
from .wire import Variants
from .world import START_HOUR, World

__all__ = [
    "MISSING",
    "PERSONAL_TEXTS",
    "START_HOUR",
    "TOKEN_PATH",
    "Account",
    "Address",
    "Battery",
    "Bridge",
    "Call",
    "Cloud",
    "Device",
    "DoorSensor",
    "DryContact",
    "Event",
    "Firmware",
    "Gate",
    "Keypad",
    "Lock",
    "Outages",
    "PersonalKey",
    "RefreshToken",
    "Token",
    "User",
    "Variants",
    "Violation",
    "World",
    "serve",
]
