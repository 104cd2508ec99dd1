"""aiotedee, the client of Home Assistant, reads the simulated cloud as it reads Tedee's."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import aiohttp
import pytest
from aiotedee import TedeeAuthException, TedeeCloudClient, TedeeLock, TedeeRateLimitException, helpers
from aiotedee.client import cloud as client_module

from exporter.simulator import Account, Cloud, World, serve
from exporter.simulator.wire import Version, sync_entry

from .conftest import NOON, ManualClock

Result = TypeVar("Result")

VERSION = "v1.32"
"""The version that aiotedee calls."""

KEY = "simulated-key-home"


@contextmanager
def served(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve a cloud, and let aiotedee call it instead of Tedee's."""
    with serve(cloud) as address:
        for module, name in (
            (client_module, "API_URL_LOCK"),
            (client_module, "API_URL_SYNC"),
            (client_module, "API_URL_BRIDGE"),
            (helpers, "API_URL_DEVICE"),
        ):
            url = getattr(module, name)
            assert f"/api/{VERSION}/" in url
            monkeypatch.setattr(module, name, url.replace("https://api.tedee.com", address.url))
        yield


@pytest.fixture
def wall() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def cloud(wall: ManualClock, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """The demo, as strict as Tedee."""
    cloud = Cloud(World.demo(clock=wall), strict=True, clock=clock, versions=(VERSION, "v37"))
    with served(cloud, monkeypatch):
        yield cloud


def home(cloud: Cloud) -> Account:
    return cloud.world.account("home")


def with_client(use: Callable[[TedeeCloudClient], Awaitable[Result]], key: str = KEY) -> Result:
    async def run() -> Result:
        async with aiohttp.ClientSession() as session:
            return await use(TedeeCloudClient(personal_token=key, session=session))

    return asyncio.run(run())


def expected(account: Account, now: float) -> dict[int, tuple[object, ...]]:
    """Return the state of each lock that is connected, by its id."""
    states = {}
    for lock in account.locks:
        state = sync_entry(lock, now, Version(VERSION))["lockProperties"]
        assert isinstance(state, dict)
        names = ("state", "doorState", "batteryLevel", "isCharging", "stateChangeResult")
        states[lock.id] = tuple(state[name] for name in names)
    return states


def read(lock: TedeeLock) -> tuple[object, ...]:
    return (lock.state, lock.door_state, lock.battery_level, lock.is_charging, lock.state_change_result)


def test_aiotedee_reads_locks_and_their_changes(cloud: Cloud, wall: ManualClock, clock: ManualClock) -> None:
    async def use(client: TedeeCloudClient) -> None:
        await client.get_locks()
        assert {lock.id: (lock.name, lock.type) for lock in client.locks} == {
            lock.id: (lock.name, lock.device_type) for lock in home(cloud).locks
        }
        first = {lock.id: read(lock) for lock in client.locks}
        assert first == expected(home(cloud), NOON)
        wall.advance(130)
        clock.advance(130)
        await client.sync()
        later = {lock.id: read(lock) for lock in client.locks}
        assert later == expected(home(cloud), NOON + 130) != first
        assert all(lock.is_connected for lock in client.locks)

    with_client(use)
    assert [(call.endpoint, call.version, call.status) for call in cloud.calls] == [
        ("locks", VERSION, 200),
        ("sync", VERSION, 200),
    ]
    assert cloud.violations == []


def test_aiotedee_reads_bridges(cloud: Cloud) -> None:
    bridges = with_client(lambda client: client.get_bridges(), "simulated-key-hotel")
    assert [(bridge.id, bridge.name, bridge.serial) for bridge in bridges] == [
        (21, "Lobby", "100021-00021"),
        (22, "Corridor", "100022-00022"),
        (23, "Annex", "100023-00023"),
    ]


def test_aiotedee_reads_lock_without_bridge(cloud: Cloud) -> None:
    async def use(client: TedeeCloudClient) -> bool:
        await client.get_locks()
        return client.locks_dict[2006].is_connected

    assert with_client(use, "simulated-key-hotel") is False


def test_aiotedee_recognizes_valid_key(cloud: Cloud) -> None:
    async def valid(key: str) -> bool:
        async with aiohttp.ClientSession() as session:
            return await helpers.is_personal_key_valid(key, session)

    assert [asyncio.run(valid(key)) for key in (KEY, "simulated-key-office", "wrong")] == [True, False, False]


def test_aiotedee_recognizes_refusals(cloud: Cloud) -> None:
    with pytest.raises(TedeeAuthException):
        with_client(lambda client: client.get_locks(), "wrong")

    async def sync_twice(client: TedeeCloudClient) -> None:
        await client.sync()
        await client.sync()

    with pytest.raises(TedeeRateLimitException):
        with_client(sync_twice)
    assert [violation.rule for violation in cloud.violations] == ["spacing"]


def test_aiotedee_may_list_locks_ten_times_in_ten_minutes(cloud: Cloud, clock: ManualClock) -> None:
    async def list_locks(client: TedeeCloudClient) -> None:
        await client.get_locks()

    for _ in range(10):
        with_client(list_locks)
        clock.advance(30)
    with pytest.raises(TedeeRateLimitException):
        with_client(list_locks)
    clock.advance(301)
    with_client(list_locks)
