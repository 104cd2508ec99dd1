"""Tests that every alert about locks and accounts is sent and resolved, with a simulated cloud.

`test_devices_end_to_end` has the other alerts. One test covers all alerts, because an account syncs at most every 20
seconds. At first there is no problem. Then all problems begin at once, and each one is solved as soon as its alert was
sent. No part is mocked except Tedee: the simulated cloud has the problems, the exporter exports them, Prometheus
evaluates the rules, and Alertmanager uses the example. Delays are shortened (see `accelerated`). The forecast of a
battery, outdated firmware, a vanished lock and credentials that are not renewed need a history, which is written into
Prometheus before it starts.
"""

import base64
import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from exporter.clock import SystemClock
from exporter.simulator import TOKEN_PATH, Account, Bridge, Lock, PersonalKey, RefreshToken, Token, World, serve
from exporter.simulator.response import Response
from exporter.state.rate_limits import RateLimitState
from exporter.state.store import States
from exporter.tedee.endpoint import SYNC
from testing.faults import Fault, FaultyCloud
from testing.program import LONG_TEST, TIMEOUT, TOOL_SECONDS, Exporter, configuration, eventually, free_port, running
from testing.stores import open_store
from tests.alerts.rules import ALL_ALERTS, NIGHT, RULES
from tests.alerts.stack import Labels, Webhook, accelerated, alertmanager, prometheus
from tests.alerts.test_devices_end_to_end import DEVICE_ALERTS

HOUR = 3600
DAY = 24 * HOUR
NOW = int(time.time())

NORMAL: dict[str, Any] = {
    "isConnected": True,
    "state": 6,
    "doorState": 3,
    "isCharging": False,
    "batteryLevel": 80,
    "stateChangeResult": 0,
    "lastStateChangedDate": "2020-01-01T12:00:00.000Z",
}
IN_USE = "2100-01-01T00:00:00.000Z"
"""A last state change in the future, so that the lock was never left unlocked."""

PROBLEMS: dict[str, dict[str, Any]] = {
    "Jammed": {"state": 3, "stateChangeResult": 1, "lastStateChangedDate": IN_USE},
    "Left unlocked": {"state": 2},
    "Left open": {"doorState": 2},
    "Wide open": {"state": 2, "doorState": 2, "lastStateChangedDate": IN_USE},
    "Offline": {"isConnected": False, "deviceState": None},
    "Low": {"batteryLevel": 18},
    "Critical": {"batteryLevel": 8},
    "Emptying": {"batteryLevel": 30},
    "Uncalibrated": {"state": 0},
    "Unknown": {"state": 9},
}
"""The problem of the lock with each name."""

PERSONAL = ("refused", "hurried", "silent", "spent", "outdated")
"""Accounts with problems that do not concern a lock, in addition to those with tokens."""


def token(expires_at: int) -> str:
    """Return an access token with an expiry time."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expires_at}).encode()).decode().rstrip("=")
    return f"e30.{claims}.signature"


EXPIRING = {"expiring": NOW + 3 * DAY, "expiring today": NOW + 12 * HOUR}
"""Expiry times of the tokens that these accounts get instead of lasting ones."""
UNSTORED = "unstored"
"""An account with OAuth whose access tokens are refreshed every 30 seconds."""
LASTING = {account: NOW + 30 * DAY + number for number, account in enumerate(EXPIRING)}


def world() -> World:
    """Return a world without problems."""
    bridge = Bridge(1, "Hallway", "100000-00001")
    # The simulated cloud reports an update for every fifth lock.
    ids = (number for number in range(1001, 2000) if number % 5)

    def account(name: str, *locks: str, **credentials: Any) -> Account:
        return Account(name, [Lock(next(ids), lock, bridge=bridge) for lock in locks or (name,)], **credentials)

    accounts = [account("home", *PROBLEMS, "Outdated", "Vanished", keys=[PersonalKey("key-of-home")])]
    accounts += [account(name, keys=[PersonalKey(f"key-of-{name}")]) for name in (*PERSONAL, "elsewhere")]
    accounts += [account(name, tokens=[Token(token(EXPIRING[name])), Token(token(LASTING[name]))]) for name in EXPIRING]
    accounts.append(account(UNSTORED, refresh_tokens=[RefreshToken("first-refresh-token")]))
    for lock in (lock for each in accounts for lock in each.locks):
        lock.override(**NORMAL)
    accounts[0].lock("Outdated").override(softwareVersions=[])
    return World(accounts)


def history(home: Account) -> str:
    """Return the history in the OpenMetrics format: a sample at every full hour."""
    this_hour = NOW // HOUR * HOUR

    def samples(name: str, labels: str, hours: int, value: Callable[[int], float]) -> list[str]:
        return [f"{name}{{{labels}}} {value(ago)} {this_hour - ago * HOUR}" for ago in range(hours, 0, -1)]

    def lock(name: str) -> str:
        return f'account="home",lock_id="{home.lock(name).id}",lock_name="{name}"'

    lines = samples("lock_battery_level", lock("Emptying"), 75, lambda ago: 32 + ago / 2.5)
    outdated = f'account="home",lock_id="{home.lock("Outdated").id}"'
    since = NOW - 15 * DAY
    lines += samples("lock:lock_firmware_update_available:since", outdated, 3, lambda ago: since)
    lines += samples("lock:lock_seen:timestamp", lock("Vanished"), 3, lambda ago: NOW - ago * HOUR)
    for account, expiry in EXPIRING.items():
        expires = f'account="{account}"'
        lines += samples("tedee_credentials_expiry_timestamp_seconds", expires, 40, lambda ago: expiry)  # noqa: B023
    return "\n".join([*lines, "# EOF", ""])


class Scenario:
    """Three exporters and their accounts, with problems that can be caused and solved.

    The third exporter is a replica of the first one: it shares an account and the state file.
    """

    def __init__(self, folder: Path, cloud: FaultyCloud, url: str, stack: contextlib.ExitStack) -> None:
        self._cloud = cloud
        self._home = cloud.world.account("home")
        self._stack = stack
        self._is_outdated = False
        (folder / "main").mkdir()
        (folder / "spare").mkdir()
        self._folder = folder
        for account in EXPIRING:
            self._renew(account)
        accounts: list[dict[str, Any]] = [
            {"name": name, "personal_key": f"key-of-{name}"} for name in ("home", *PERSONAL)
        ]
        accounts += [{"name": name, "access_token_file": str(self._token_file(name))} for name in EXPIRING]
        self._refresh_token = folder / "oauth" / "refresh-token"
        self._store_again()
        self._refresh_token.write_text("first-refresh-token")
        self._is_stored = True
        cloud.faults.script(Fault(edit=self._refreshed), account=UNSTORED, endpoint="token", forever=True)
        oauth = {"client_id": "c", "refresh_token_file": str(self._refresh_token), "token_url": url + TOKEN_PATH}
        accounts.append({"name": UNSTORED, "oauth": oauth})
        self._state = folder / "main" / "state.db"
        # Stale after 55 seconds: long enough for one failed sync and the wait after it.
        sync = {"stale_after": "55s"}
        self._config = configuration(folder / "main", url, accounts, state_file=str(self._state), sync=sync)
        self._good = self._config.read_text()
        self._spare_state = folder / "spare" / "state.db"
        elsewhere = [{"name": "elsewhere", "personal_key": "key-of-elsewhere"}]
        self._spare_config = configuration(folder / "spare", url, elsewhere, state_file=str(self._spare_state))
        (folder / "replica").mkdir()
        shared = [each for each in accounts if each["name"] == "outdated"]
        self._replica_config = configuration(folder / "replica", url, shared, state_file=str(self._state), sync=sync)
        self._spare_port, self._replica_port = free_port(), free_port()
        self.main = stack.enter_context(running(f"--config.file={self._config}")).wait_until_ready()
        self._spare = self._start_spare().wait_until_ready()
        self._replica = self._start_replica().wait_until_ready()

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(f"127.0.0.1:{port}" for port in (self.main.port, self._spare_port, self._replica_port))

    def _start_spare(self) -> Exporter:
        return self._start(self._spare_config, self._spare_port)

    def _start_replica(self) -> Exporter:
        return self._start(self._replica_config, self._replica_port)

    def _start(self, config: Path, port: int) -> Exporter:
        arguments = (f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}")
        return self._stack.enter_context(running(*arguments))

    def cause_problems(self) -> None:
        for name, problem in PROBLEMS.items():
            self._home.lock(name).override(**problem)
        self._update("Outdated", available=True)
        self._vanished = self._home.remove(self._home.lock("Vanished").id)
        self._cloud.world.account("refused").keys[0].revoked = True
        self._cloud.faults.script(Fault.too_many_requests(), account="hurried", endpoint="sync")
        # Long enough to become stale.
        self._cloud.faults.script(Fault.error(503, headers={"Retry-After": "60"}), account="silent", endpoint="sync")
        self._is_outdated = True
        self._cloud.faults.script(Fault(edit=self._list_versions), account="outdated", endpoint="sync", forever=True)
        self._spend()
        for account, expiry in EXPIRING.items():
            self._token_file(account).write_text(token(expiry))
        self._is_stored = False
        self._config.write_text("accounts: none\n")
        self._reload(expected=500)
        self._spare.kill()
        self._replica.kill()

    def remedies(self) -> dict[Labels, Callable[[], object]]:
        """Return a function that solves the problem of each alert, by the alert's labels."""
        main, spare, replica = ({"job": "tedee", "instance": target} for target in self.targets)
        alerts: list[tuple[str, dict[str, str], Callable[[], object]]] = [
            ("TedeeLockJammed", self._lock("Jammed"), self._reset("Jammed")),
            ("TedeeLockLeftUnlocked", self._lock("Left unlocked"), self._reset("Left unlocked")),
            ("TedeeDoorLeftOpen", self._lock("Left open"), self._reset("Left open")),
            ("TedeeLockUnlockedDoorOpen", self._lock("Wide open"), self._reset("Wide open")),
            ("TedeeLockOffline", {**self._lock("Offline"), "bridge_id": "1"}, self._reset("Offline")),
            ("TedeeBatteryLow", self._lock("Low"), self._reset("Low")),
            ("TedeeBatteryCritical", self._lock("Critical"), self._reset("Critical")),
            ("TedeeBatteryEmptyingSoon", self._lock("Emptying"), self._reset("Emptying")),
            ("TedeeLockUncalibrated", self._lock("Uncalibrated"), self._reset("Uncalibrated")),
            ("TedeeLockStateUnknown", self._lock("Unknown"), self._reset("Unknown")),
            ("TedeeFirmwareOutdated", self._lock("Outdated"), lambda: self._update("Outdated", available=False)),
            ("TedeeLockVanished", self._lock("Vanished"), lambda: self._home.add(self._vanished)),
            ("TedeeSyncRefused", {"account": "refused", "reason": "auth"}, self._accept_key),
            # These end after a while.
            ("TedeeSyncRateLimited", {"account": "hurried"}, lambda: None),
            ("TedeeSyncFailing", {"account": "silent"}, lambda: None),
            ("TedeeDataStale", {"account": "silent"}, lambda: None),
            ("TedeeRequestsNearlyUsed", {"account": "spent"}, lambda: None),
            ("TedeeApiVersionRetiring", {"account": "outdated", "version": "v37"}, self._support_version),
            ("TedeeCredentialsExpiring", {"account": "expiring"}, lambda: self._renew("expiring")),
            ("TedeeCredentialsExpiringToday", {"account": "expiring today"}, lambda: self._renew("expiring today")),
            ("TedeeRefreshTokenNotStored", {"account": UNSTORED}, self._store_again),
            ("TedeeConfigReloadFailed", main, self._correct_configuration),
            # The second problem of the spare exporter begins when the first one is solved.
            ("TedeeExporterDown", spare, self._start_spare_without_state),
            ("TedeeStateUnusable", {"job": "tedee"}, self._spare_state.unlink),
            ("TedeeReplicaDown", replica, self._start_replica),
            ("TedeeLockUnlockedAtNight", self._lock("Left unlocked"), lambda: None),
        ]
        return {labelled(name, labels): remedy for name, labels, remedy in alerts}

    def side_effects(self) -> set[Labels]:
        """Return alerts that are caused by other problems and not inhibited by the example."""
        unlocked = {labelled("TedeeLockUnlockedAtNight", self._lock(name)) for name in ("Jammed", "Wide open")}
        return {*unlocked, labelled("TedeeDoorLeftOpen", self._lock("Wide open"))}

    def _lock(self, name: str) -> dict[str, str]:
        lock = self._vanished if name == "Vanished" else self._home.lock(name)
        return {"account": "home", "lock_id": str(lock.id), "lock_name": name}

    def _reset(self, name: str) -> Callable[[], None]:
        def remedy() -> None:
            lock = self._home.lock(name)
            lock.clear_overrides()
            lock.override(**NORMAL)

        return remedy

    def _update(self, name: str, *, available: bool) -> None:
        lock = self._home.lock(name)
        lock.override(softwareVersions=[{"softwareType": 0, "version": "2.4", "updateAvailable": available}])
        # The exporter fetches the details of a lock again when its revision changes.
        lock.revision += 1

    def _accept_key(self) -> None:
        self._cloud.world.account("refused").keys[0].revoked = False

    def _list_versions(self, response: Response) -> Response:
        return response.with_headers({"API-Supported-Versions": "38, 39"}) if self._is_outdated else response

    def _support_version(self) -> None:
        self._is_outdated = False

    def _spend(self) -> None:
        """Record all but one request of the hourly share, as another process would. They expire in 40 seconds."""
        clock = SystemClock()
        then = clock.monotonic() - HOUR + 40

        def spend(_now: float, states: States) -> tuple[RateLimitState, ...]:
            (state,) = states
            assert state
            recent = state.recent_requests.get(SYNC.path, ())
            return (replace(state, recent_requests={SYNC.path: (*[then] * (349 - len(recent)), *recent)}),)

        store = open_store(self._state, clock)
        store.states.update(["account spent"], spend)
        store.close()

    def _token_file(self, account: str) -> Path:
        return self._folder / f"token of {account}"

    def _renew(self, account: str) -> None:
        self._token_file(account).write_text(token(LASTING[account]))

    def _refreshed(self, response: Response) -> Response:
        """Remove the folder in which the token is to be stored."""
        if not self._is_stored:
            shutil.rmtree(self._refresh_token.parent, ignore_errors=True)
        return replace(response, raw=json.dumps({**json.loads(response.body()), "expires_in": 60}).encode())

    def _store_again(self) -> None:
        self._is_stored = True
        self._refresh_token.parent.mkdir()

    def _correct_configuration(self) -> None:
        self._config.write_text(self._good)
        self._reload(expected=200)

    def _reload(self, expected: int) -> None:
        assert requests.post(f"{self.main.url}/-/reload", timeout=TIMEOUT).status_code == expected

    def _start_spare_without_state(self) -> None:
        for path in self._spare_state.parent.glob("state.db*"):
            path.unlink()
        with contextlib.closing(sqlite3.connect(self._spare_state)) as database:
            database.execute("CREATE TABLE of_another_program (id)")
        self._start_spare()


def labelled(alert: str, labels: dict[str, str]) -> Labels:
    """Return the labels of an alert as its receiver gets them."""
    return frozenset({"alertname": alert, "severity": ALL_ALERTS[alert]["labels"]["severity"], **labels}.items())


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.mark.timeout(LONG_TEST)
def test_every_alert_is_sent_and_resolved(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    cloud = FaultyCloud(world(), strict=True)
    scenario = Scenario(tmp_path, cloud, stack.enter_context(serve(cloud)).url, stack)
    night = accelerated(NIGHT)
    for rule in night["groups"][0]["rules"]:
        if rule.get("record") == "tedee:night:hours":
            # Always night.
            rule["expr"] = "vector(1)"
    webhook = stack.enter_context(Webhook())
    manager = stack.enter_context(alertmanager(tmp_path / "alertmanager", webhook))
    samples = history(cloud.world.account("home"))
    server = stack.enter_context(
        prometheus(
            tmp_path / "prometheus",
            rules=[accelerated(RULES), night],
            targets=scenario.targets,
            alertmanagers=[manager],
            history=samples,
        )
    )
    locks = sum(len(account.locks) for account in cloud.world.accounts)
    eventually(lambda: len(server.query("lock:lock_state:held")) == locks, "all locks in Prometheus")
    assert server.query("ALERTS") == []

    scenario.cause_problems()
    remedies = scenario.remedies()
    assert {dict(labels)["alertname"] for labels in remedies} | DEVICE_ALERTS == set(ALL_ALERTS)
    unsent = dict(remedies)

    def all_sent_and_solved() -> bool:
        for labels in unsent.keys() & webhook.receivers("firing").keys():
            unsent.pop(labels)()
        return not unsent

    try:
        eventually(all_sent_and_solved, "all alerts", TOOL_SECONDS)
        eventually(lambda: remedies.keys() <= webhook.receivers("resolved").keys(), "all resolved", TOOL_SECONDS)
    except AssertionError as error:
        unresolved = remedies.keys() - webhook.receivers("resolved").keys()
        raise AssertionError(f"{error}; not sent: {[*unsent]}; not resolved: {[*unresolved]}") from error
    # No other alert was sent, and each went to the receiver of its severity.
    assert webhook.receivers("firing").keys() - scenario.side_effects() == remedies.keys()
    receivers = {"critical": "night-porter", "warning": "office", "info": "caretaker"}
    expected = {labels: receivers[dict(labels)["severity"]] for labels in webhook.receivers("firing")}
    assert webhook.receivers("firing") == expected
