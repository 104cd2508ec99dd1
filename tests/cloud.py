"""A mock of the Tedee API for one account, with the library `responses`."""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import responses

from exporter.secrets import Secret
from exporter.state.rate_limits import RateLimitPolicy
from exporter.state.stores import OpenStore
from exporter.sync.account import AccountSync, Options
from exporter.sync.limiter import RateLimiter
from exporter.sync.lock_filter import LockFilter
from exporter.sync.resource import ResourceOptions
from exporter.sync.snapshot import AccountStatus
from exporter.tedee import client as tedee_client
from exporter.tedee.client import Observer, TedeeClient
from exporter.tedee.credentials import personal_key
from exporter.tedee.secret_source import SecretSource
from exporter.tedee.session import session
from testing.clock import FakeClock
from testing.program import TIMEOUT
from testing.stores import memory_store

URL = "https://tedee.test"
SYNC_URL = f"{URL}/api/v37/my/lock/sync"
DETAILS_URL = f"{URL}/api/v37/my/device/details"
DOOR_SENSORS_URL = f"{URL}/api/v37/my/doorsensor"
ACTIVITIES_URL = f"{URL}/api/v37/my/deviceactivity"
KEY = "the-key-that-opens-doors"


def envelope(result: Any, **changes: Any) -> dict[str, Any]:
    return {"result": result, "success": True, "errorMessages": [], "statusCode": 200, **changes}


def synced(lock_id: int, revision: int | None = 1, connected: bool | None = True, **state: Any) -> dict[str, Any]:
    """Return the row of a lock in a sync response. By default the lock is locked and its door is closed."""
    default = {
        "state": 6,
        "doorState": 3,
        "isCharging": False,
        "batteryLevel": 54,
        "stateChangeResult": 0,
        "lastStateChangedDate": "2021-04-26T06:02:04.197Z",
    }
    row: dict[str, Any] = {"id": lock_id, "isConnected": connected, "deviceState": default | state}
    return row if revision is None else row | {"revision": revision}


def detailed(lock_id: int, name: str, **changes: Any) -> dict[str, Any]:
    """Return the row of a lock in the details of the devices."""
    return {
        "id": lock_id,
        "name": name,
        "serialNumber": f"111111-{lock_id:05}",
        "type": 2,
        "connectedToId": 2,
        "timeZone": "Europe/Warsaw",
        "organizationId": None,
        "softwareVersions": [{"softwareType": 0, "version": "2.4.22125", "updateAvailable": True}],
        **changes,
    }


def bridge(bridge_id: int, name: str = "Bridge", **changes: Any) -> dict[str, Any]:
    """Return the row of a bridge in the details of the devices."""
    return {"id": bridge_id, "name": name, "type": 1, "isConnected": True, "isUpdating": False, **changes}


def accessory(device_id: int, lock_id: int | None, level: int | None = 54, **changes: Any) -> dict[str, Any]:
    """Return the row of a keypad or door sensor with a battery level."""
    state = {"batteryLevel": level, "batteryLevelModifiedTime": "2026-11-19T06:30:12.9"}
    return {
        "id": device_id,
        "name": f"Device {device_id}",
        "connectedToLockId": lock_id,
        "deviceState": state,
        **changes,
    }


class Tedee:
    """The Tedee API of one account. A response is built from the attributes at the time of the call."""

    def __init__(self, mock: responses.RequestsMock) -> None:
        self.sync: Any = envelope([])
        self.sync_status = 200
        self.sync_headers: dict[str, str] = {}
        self.details: list[dict[str, Any]] = []
        """Rows of the locks in the details of the devices."""
        self.devices: dict[str, Any] = {}
        """Rows of the other lists in the details, by the name of the list."""
        self.details_status = 200
        self.details_headers: dict[str, str] = {}
        self.door_sensors: list[dict[str, Any]] = []
        self.door_sensors_status = 200
        self.activities: list[dict[str, Any]] = []
        """Events of each lock, the newest first."""
        self.activities_status = 200
        self.activities_keys: list[str] = []
        """Key of each request for events."""
        self.keys_without_events: set[str] = set()
        """Keys that lack the scope `DeviceActivity.Read`."""
        self.on_call: Callable[[str], None] = lambda endpoint: None
        self.calls: list[tuple[str, dict[str, list[str]]]] = []
        self.keys: list[str] = []
        """Key of each sync."""
        self.wrong_keys: set[str] = set()
        self.clock: FakeClock | None = None
        self.times: list[float] = []
        """Monotonic seconds of each sync, if `clock` is set."""
        mock.add_callback(responses.GET, SYNC_URL, self._sync_response)
        mock.add_callback(responses.GET, DETAILS_URL, self._details_response)
        mock.add_callback(responses.GET, DOOR_SENSORS_URL, self._door_sensors_response)
        mock.add_callback(responses.GET, ACTIVITIES_URL, self._activities_response)

    def has(self, *locks: dict[str, Any]) -> None:
        """Set the locks of the next sync responses."""
        self.sync = envelope(list(locks))

    def gaps(self, key: str) -> list[float]:
        """Return the seconds between the syncs with a key."""
        times = [at for at, used in zip(self.times, self.keys, strict=True) if used == key]
        return [later - earlier for earlier, later in pairwise(times)]

    def endpoints(self) -> list[str]:
        return [endpoint for endpoint, _ in self.calls]

    def _sync_response(self, request: Any) -> tuple[int, dict[str, str], bytes]:
        self.calls.append(("sync", _query(request)))
        self.keys.append(_key(request))
        if self.clock:
            self.times.append(self.clock.monotonic())
        self.on_call("sync")
        if self.keys[-1] in self.wrong_keys:
            return 401, {}, b""
        body = self.sync if isinstance(self.sync, bytes) else json.dumps(self.sync).encode()
        return self.sync_status, self.sync_headers, body

    def _details_response(self, request: Any) -> tuple[int, dict[str, str], bytes]:
        self._record("details", request)
        body = json.dumps(envelope({"locks": self.details, **self.devices})).encode()
        return self.details_status, self.details_headers, body

    def _door_sensors_response(self, request: Any) -> tuple[int, dict[str, str], bytes]:
        self._record("door_sensors", request)
        result = {"page": 1, "itemsPerPage": 2**31 - 1, "doorSensors": self.door_sensors}
        return self.door_sensors_status, {}, json.dumps(envelope(result)).encode()

    def _record(self, endpoint: str, request: Any) -> None:
        # The settings of the user have the position of the home, and all pages are one.
        assert _query(request) == {}
        self.calls.append((endpoint, {}))
        self.on_call(endpoint)

    def _activities_response(self, request: Any) -> tuple[int, dict[str, str], bytes]:
        query = _query(request)
        self.calls.append(("activities", query))
        self.activities_keys.append(_key(request))
        self.on_call("activities")
        if self.activities_keys[-1] in self.keys_without_events:
            return 403, {}, b""
        (lock_id,) = map(int, query["deviceId"])
        before = query.get("lastElemDate", ["9999"])[0]
        rows = [each for each in self.activities if each["deviceId"] == lock_id and each["date"] < before]
        return self.activities_status, {}, json.dumps(envelope(rows[: int(query["elements"][0])])).encode()


def _key(request: Any) -> str:
    key: str = request.headers["Authorization"]
    return key.removeprefix("PersonalKey ")


def _query(request: Any) -> dict[str, list[str]]:
    return {key: value if isinstance(value, list) else [value] for key, value in request.params.items()}


def account_sync(
    clock: FakeClock,
    publish: Any,
    *,
    name: str = "home",
    lock_filter: LockFilter | None = None,
    stale_after: float = 300.0,
    requests_per_hour: int = 350,
    devices_interval: float = 600.0,
    events_interval: float | None = None,
    store: OpenStore | None = None,
    key: SecretSource | None = None,
) -> AccountSync:
    """Create an account like `exporter.accounts`, with a fake clock."""

    def create_client(*, limiter: tedee_client.Limiter, observer: Observer) -> TedeeClient:
        return client(name, key or Secret(KEY), limiter=limiter, observer=observer)

    policy = RateLimitPolicy(requests_per_hour=requests_per_hour)
    resources = ResourceOptions(stale_after, lock_filter or LockFilter(), devices_interval, events_interval)
    options = Options(create_client, policy, resources)
    store = store or memory_store(clock)
    limiter = RateLimiter(name, store.states, clock, policy, jitter=lambda: 1.0, is_first_start=store.states.is_new)
    return AccountSync(name, options, limiter=limiter, store=store.responses, clock=clock, publish=publish)


def client(name: str, key: SecretSource, *, limiter: tedee_client.Limiter, observer: Observer) -> TedeeClient:
    return TedeeClient(
        name,
        url=URL,
        version="v37",
        credentials=personal_key(key),
        timeout=TIMEOUT,
        session=session("tedee-exporter/test"),
        limiter=limiter,
        observer=observer,
    )


class Recorder:
    """Records the statuses that an account publishes."""

    def __init__(self) -> None:
        self.statuses: list[AccountStatus] = []

    def __call__(self, status: AccountStatus) -> None:
        self.statuses.append(status)

    @property
    def last(self) -> AccountStatus:
        return self.statuses[-1]


def run_for(account: AccountSync, clock: FakeClock, seconds: float) -> Sequence[float]:
    """Run the account whenever it is due, for some seconds. Returns the times of the runs."""
    end = clock.monotonic() + seconds
    times = []
    while clock.monotonic() + account.wait() <= end:
        clock.advance(account.wait())
        times.append(clock.monotonic())
        account.run()
    clock.advance(max(0.0, end - clock.monotonic()))
    return times
