"""Tedee's answers as the unit tests give them, through `responses`."""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import responses

from exporter.secrets import Secret
from exporter.sync.account import AccountSync, Options
from exporter.sync.limiter import RateLimiter
from exporter.sync.lock_details import LockFilter
from exporter.sync.rate_limits import RateLimitPolicy
from exporter.sync.snapshot import AccountStatus
from exporter.sync.store import MemoryStateStore, StateStore
from exporter.tedee import client as tedee_client
from exporter.tedee.client import RequestObserver, TedeeClient
from exporter.tedee.credentials import SecretSource, personal_key
from exporter.tedee.transport import session
from tests.clock import FakeClock
from tests.program import PATIENCE

URL = "https://tedee.test"
SYNC_URL = f"{URL}/api/v37/my/lock/sync"
LOCKS_URL = f"{URL}/api/v37/my/lock"
KEY = "the-key-that-opens-doors"


def envelope(result: Any, **changes: Any) -> dict[str, Any]:
    return {"result": result, "success": True, "errorMessages": [], "statusCode": 200, **changes}


def synced(lock_id: int, revision: int | None = 1, connected: bool | None = True, **state: Any) -> dict[str, Any]:
    """A lock in an answer of the sync, in a state that nobody worries about unless told otherwise."""
    usual = {
        "state": 6,
        "doorState": 3,
        "isCharging": False,
        "batteryLevel": 54,
        "stateChangeResult": 0,
        "lastStateChangedDate": "2021-04-26T06:02:04.197Z",
    }
    row: dict[str, Any] = {"id": lock_id, "isConnected": connected, "deviceState": usual | state}
    return row if revision is None else row | {"revision": revision}


def detailed(lock_id: int, name: str, **changes: Any) -> dict[str, Any]:
    """A lock in a page of details."""
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


def written(values: Sequence[Any]) -> list[bytes]:
    """The rows of an answer as they are read: each in JSON."""
    return [json.dumps(value).encode() for value in values]


class Tedee:
    """The cloud as one account meets it. Each answer is what it holds at the moment of the call."""

    def __init__(self, mock: responses.RequestsMock) -> None:
        self.sync: Any = envelope([])
        self.sync_status = 200
        self.sync_headers: dict[str, str] = {}
        self.details: list[dict[str, Any]] = []
        self.details_status = 200
        self.details_headers: dict[str, str] = {}
        self.page_size = 100
        self.same_page = False
        self.on_call: Callable[[str], None] = lambda endpoint: None
        self.calls: list[tuple[str, dict[str, list[str]]]] = []
        self.keys: list[str] = []
        """Of each sync."""
        self.wrong_keys: set[str] = set()
        self.clock: FakeClock | None = None
        self.times: list[float] = []
        """Monotonic seconds of each sync, if there is a clock."""
        mock.add_callback(responses.GET, SYNC_URL, self._answer_sync)
        mock.add_callback(responses.GET, LOCKS_URL, self._answer_locks)

    def has(self, *locks: dict[str, Any]) -> None:
        self.sync = envelope(list(locks))

    def gaps(self, key: str) -> list[float]:
        """Seconds between the syncs with a key."""
        times = [at for at, used in zip(self.times, self.keys, strict=True) if used == key]
        return [later - earlier for earlier, later in pairwise(times)]

    def endpoints(self) -> list[str]:
        return [endpoint for endpoint, _ in self.calls]

    def _answer_sync(self, request: Any) -> tuple[int, dict[str, str], bytes]:
        self.calls.append(("sync", _query(request)))
        self.keys.append(request.headers["Authorization"].removeprefix("PersonalKey "))
        if self.clock:
            self.times.append(self.clock.monotonic())
        self.on_call("sync")
        if self.keys[-1] in self.wrong_keys:
            return 401, {}, b""
        body = self.sync if isinstance(self.sync, bytes) else json.dumps(self.sync).encode()
        return self.sync_status, self.sync_headers, body

    def _answer_locks(self, request: Any) -> tuple[int, dict[str, str], bytes]:
        query = _query(request)
        self.calls.append(("locks", query))
        self.on_call("locks")
        end = (1 if self.same_page else int(query["Page"][0])) * self.page_size
        rows = self.details[end - self.page_size : end]
        return self.details_status, self.details_headers, json.dumps(envelope(rows)).encode()


def _query(request: Any) -> dict[str, list[str]]:
    return {key: value if isinstance(value, list) else [value] for key, value in request.params.items()}


def account_sync(
    clock: FakeClock,
    publish: Any,
    *,
    name: str = "home",
    chosen: LockFilter | None = None,
    stale_after: float = 300.0,
    requests_per_hour: int = 350,
    store: StateStore | None = None,
    key: SecretSource | None = None,
) -> AccountSync:
    """An account as the program builds it, but for its clock."""

    def connect(*, limiter: tedee_client.RateLimiter, observe: RequestObserver) -> TedeeClient:
        return client(name, key or Secret(KEY), limiter=limiter, observe=observe)

    policy = RateLimitPolicy(requests_per_hour=requests_per_hour)
    options = Options(connect, policy, stale_after, chosen or LockFilter())
    store = store or MemoryStateStore(clock)
    limiter = RateLimiter(name, store, clock, policy, jitter=lambda: 1.0, is_first_start=store.is_new)
    return AccountSync(name, options, limiter=limiter, store=store, clock=clock, publish=publish)


def client(name: str, key: SecretSource, *, limiter: tedee_client.RateLimiter, observe: RequestObserver) -> TedeeClient:
    return TedeeClient(
        name,
        url=URL,
        version="v37",
        credentials=personal_key(key),
        timeout=PATIENCE,
        session=session(),
        limiter=limiter,
        observe=observe,
        user_agent="tedee-exporter/test",
    )


class Recorder:
    """Takes what an account publishes."""

    def __init__(self) -> None:
        self.statuses: list[AccountStatus] = []

    def __call__(self, status: AccountStatus) -> None:
        self.statuses.append(status)

    @property
    def last(self) -> AccountStatus:
        return self.statuses[-1]


def turns(account: AccountSync, clock: FakeClock, seconds: float) -> Sequence[float]:
    """Give the account its turns for that long; the moments at which it got them."""
    end = clock.monotonic() + seconds
    moments = []
    while clock.monotonic() + account.wait() <= end:
        clock.advance(account.wait())
        moments.append(clock.monotonic())
        account.run()
    clock.advance(max(0.0, end - clock.monotonic()))
    return moments
