"""Tedee's answers as the unit tests give them, through `responses`."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import responses

from exporter.sync.account import AccountSync, Options
from exporter.sync.budget import Budget, Rules
from exporter.sync.directory import Chosen
from exporter.sync.ledger import Ledger, MemoryLedger
from exporter.sync.snapshot import AccountStatus
from exporter.tedee.client import Gate, RequestObserver, TedeeClient
from exporter.tedee.credentials import personal_key
from exporter.tedee.secret import Secret
from exporter.tedee.transport import session
from tests.clock import FakeClock

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
        self.page_size = 100
        self.same_page = False
        self.on_call: Callable[[str], None] = lambda endpoint: None
        self.calls: list[tuple[str, dict[str, list[str]]]] = []
        self.keys: list[str] = []
        """Of each sync."""
        mock.add_callback(responses.GET, SYNC_URL, self._answer_sync)
        mock.add_callback(responses.GET, LOCKS_URL, self._answer_locks)

    def has(self, *locks: dict[str, Any]) -> None:
        self.sync = envelope(list(locks))

    def endpoints(self) -> list[str]:
        return [endpoint for endpoint, _ in self.calls]

    def _answer_sync(self, request: Any) -> tuple[int, dict[str, str], bytes]:
        self.calls.append(("sync", _query(request)))
        self.keys.append(request.headers["Authorization"].removeprefix("PersonalKey "))
        self.on_call("sync")
        body = self.sync if isinstance(self.sync, bytes) else json.dumps(self.sync).encode()
        return self.sync_status, self.sync_headers, body

    def _answer_locks(self, request: Any) -> tuple[int, dict[str, str], bytes]:
        query = _query(request)
        self.calls.append(("locks", query))
        self.on_call("locks")
        end = (1 if self.same_page else int(query["Page"][0])) * self.page_size
        rows = self.details[end - self.page_size : end]
        return self.details_status, {}, json.dumps(envelope(rows)).encode()


def _query(request: Any) -> dict[str, list[str]]:
    return {key: value if isinstance(value, list) else [value] for key, value in request.params.items()}


def account_sync(
    clock: FakeClock,
    publish: Any,
    *,
    name: str = "home",
    chosen: Chosen | None = None,
    stale_after: float = 300.0,
    requests_per_hour: int = 350,
    ledger: Ledger | None = None,
    user: str = "key 1",
) -> AccountSync:
    """An account as the program builds it, but for its clock."""

    def connect(*, gate: Gate, observe: RequestObserver) -> TedeeClient:
        return client(name, gate=gate, observe=observe)

    options = Options(connect, Rules(requests_per_hour=requests_per_hour), stale_after, chosen or Chosen(), user)
    budget = Budget(name, ledger or MemoryLedger(), clock, jitter=lambda: 1.0)
    return AccountSync(name, options, budget, clock, publish)


def client(name: str, *, gate: Gate, observe: RequestObserver) -> TedeeClient:
    return TedeeClient(
        name,
        url=URL,
        version="v37",
        credentials=personal_key(Secret(KEY)),
        timeout=10.0,
        session=session(),
        gate=gate,
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
        account.turn()
    clock.advance(max(0.0, end - clock.monotonic()))
    return moments
