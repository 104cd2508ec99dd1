"""A simulated Tedee cloud for tests, development and the demo.

It imports nothing of the exporter, which connects to it over HTTP as it does to Tedee.
"""

from .account import Account, PersonalKey, RefreshToken, Token
from .battery import Battery
from .bridge import Bridge
from .cloud import Call, Cloud
from .limits import Violation
from .lock import MISSING, Lock
from .oauth import TOKEN_PATH
from .outages import Outages
from .server import Address, serve
from .world import START_HOUR, World

__all__ = [
    "MISSING",
    "START_HOUR",
    "TOKEN_PATH",
    "Account",
    "Address",
    "Battery",
    "Bridge",
    "Call",
    "Cloud",
    "Lock",
    "Outages",
    "PersonalKey",
    "RefreshToken",
    "Token",
    "Violation",
    "World",
    "serve",
]
