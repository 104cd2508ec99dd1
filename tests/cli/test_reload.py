"""Reloads of the configuration, on a thread that survives exceptions."""

import threading
from collections.abc import Callable

import pytest

from exporter import reload as module
from exporter.config import Account, ConfigurationError, Settings
from exporter.config.source import Source
from exporter.reload import STUCK_SECONDS, UNHANDLED, Reload
from testing.clock import FakeClock
from testing.program import TIMEOUT

SETTINGS = Source({"accounts": [{"name": "home", "personal_key": "a-key-of-home"}]}).validated(Settings)


class Log:
    def __init__(self) -> None:
        self.messages: list[str] = []

    def info(self, message: str, **_values: object) -> None:
        self.messages.append(message)

    error = exception = info


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(module, "log", log)
    return log


class Loads:
    """Reload whose loads are controlled by the test. Records the applied settings."""

    def __init__(self, clock: FakeClock, refresh_web: Callable[[], list[str]] = list) -> None:
        self.applied: list[tuple[Account, ...]] = []
        self.results: list[Settings | Exception] = []
        self.started, self.may_end = threading.Semaphore(0), threading.Semaphore(0)
        self.reload = Reload(SETTINGS, self._load, self._apply, refresh_web, clock)

    def _load(self) -> Settings:
        self.started.release()
        assert self.may_end.acquire(timeout=TIMEOUT)
        result = self.results.pop(0) if self.results else SETTINGS
        if isinstance(result, Exception):
            raise result
        return result

    def _apply(self, settings: Settings) -> None:
        self.applied.append(settings.accounts)


def test_waiting_requests_share_one_reload(clock: FakeClock, log: Log) -> None:
    loads = Loads(clock)
    loads.reload.start()
    first = loads.reload.request()
    assert loads.started.acquire(timeout=TIMEOUT)
    # The first reload may have read the file already, so these requests need another one.
    others = [loads.reload.request() for _ in range(50)]
    for _ in range(2):
        loads.may_end.release()
    assert [each.result(TIMEOUT) for each in (first, *others)] == [[]] * 51
    assert len(loads.applied) == 2


def test_exception_does_not_end_reloads(clock: FakeClock, log: Log) -> None:
    loads = Loads(clock)
    loads.results = [RuntimeError("a bug"), ConfigurationError(["tedee.yml:1: is empty"]), SETTINGS]
    loads.reload.start()
    for problems, successful in (([UNHANDLED], False), (["tedee.yml:1: is empty"], False), ([], True)):
        loads.may_end.release()
        assert loads.reload.request().result(TIMEOUT) == problems
        assert loads.reload.result()[0] is successful
    assert log.messages == [
        "unhandled exception while reloading; please report this",
        "configuration not reloaded; the previous one stays in use",
        "configuration reloaded",
    ]


def test_exception_in_the_web_configuration_is_logged_once(
    clock: FakeClock, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = threading.Semaphore(0)

    def refresh_web() -> list[str]:
        checks.release()
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "WATCH_INTERVAL", 0.001)
    loads = Loads(clock, refresh_web)
    loads.reload.start()
    for _ in range(5):
        assert checks.acquire(timeout=TIMEOUT)
    assert not loads.reload.result()[0]
    assert log.messages == ["unhandled exception while reloading; please report this"]
    loads.may_end.release()
    assert loads.reload.request().result(TIMEOUT) == [UNHANDLED]


def test_stuck_reload_is_logged_once(clock: FakeClock, log: Log) -> None:
    loads = Loads(clock)
    loads.reload.start()
    request = loads.reload.request()
    assert loads.started.acquire(timeout=TIMEOUT)
    loads.reload.check()
    assert log.messages == []
    clock.advance(STUCK_SECONDS + 1)
    for _ in range(3):
        loads.reload.check()
    assert not loads.reload.result()[0]
    assert len(log.messages) == 1
    assert "reload is stuck" in log.messages[0]
    loads.may_end.release()
    assert request.result(TIMEOUT) == []
    loads.reload.check()
    assert loads.reload.result()[0]
