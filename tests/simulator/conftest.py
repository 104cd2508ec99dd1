"""Clocks that advance only by hand, and a cloud that is served over HTTP on a loopback address."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import requests

from exporter.simulator import Account, Bridge, Lock, PersonalKey, Token, World, serve
from testing.faults import FaultyCloud
from testing.program import TIMEOUT

# Monday 2026-11-23, 12:00 in Warsaw.
NOON = 1795431600.0


@dataclass
class ManualClock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Served:
    """A cloud with one account of three locks that is being served, and a client of it."""

    cloud: FaultyCloud
    wall: ManualClock
    clock: ManualClock
    url: str = ""
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def account(self) -> Account:
        return self.cloud.world.account("home")

    def get(
        self, path: str = "my/lock/sync", *, version: str = "v37", authorization: str | None = "PersonalKey right"
    ) -> requests.Response:
        headers = {} if authorization is None else {"Authorization": authorization}
        return self.session.get(
            f"{self.url}/api/{version}/{path}", headers=headers, timeout=TIMEOUT, allow_redirects=False
        )


def small_world(wall: ManualClock) -> World:
    bridge = Bridge(7, "Hallway", "100011-00011")
    locks = [Lock(1, "Front door", bridge=bridge), Lock(2, "Garage", bridge=bridge), Lock(3, "Cellar")]
    account = Account(
        "home",
        locks,
        keys=[
            PersonalKey("right"),
            PersonalKey("cannot-read", scopes=["Account.Read"]),
            PersonalKey("only-devices", scopes=["Device.Read"]),
            PersonalKey("only-events", scopes=["DeviceActivity.Read"]),
        ],
        tokens=[
            Token(
                "jwt",
                scopes=[
                    "https://tedee.onmicrosoft.com/api/Device.ReadWrite",
                    "https://tedee.onmicrosoft.com/api/DeviceActivity.Read",
                ],
            )
        ],
    )
    return World([account, Account("neighbours", keys=[PersonalKey("theirs")])], wall)


@pytest.fixture
def wall() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def served(wall: ManualClock, clock: ManualClock) -> Iterator[Served]:
    here = Served(FaultyCloud(small_world(wall), clock=clock), wall, clock)
    with serve(here.cloud) as address, here.session:
        here.url = address.url
        yield here


@pytest.fixture
def strict(wall: ManualClock, clock: ManualClock) -> Iterator[Served]:
    here = Served(FaultyCloud(small_world(wall), strict=True, clock=clock, hourly_limit=5), wall, clock)
    with serve(here.cloud) as address, here.session:
        here.url = address.url
        yield here
