"""A simulated Tedee cloud for tests, development and the demo.

It imports nothing of the exporter, which connects to it over HTTP as it does to Tedee.
"""

from .account import Account, PersonalKey, RefreshToken, Token
from .battery import Battery
from .bridge import Bridge, Outages
from .cloud import Call, Cloud
from .limits import Violation
from .lock import MISSING, Lock
from .oauth import TOKEN_PATH
from .server import Address, serve
from .world import World

__all__ = [
    "MISSING",
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
