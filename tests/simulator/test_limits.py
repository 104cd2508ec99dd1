"""Tedee's rate limits in the simulated cloud: recorded violations and, in strict mode, rejected calls."""

import threading
import time

import requests

from exporter.simulator.limits import Limits
from testing.faults import Fault
from testing.program import TIMEOUT

from .conftest import Served


def rules(limits: Limits, account: str, endpoint: str, now: float) -> list[str]:
    return [refusal.violation.rule for refusal in limits.start_call(account, endpoint, now)]


def test_spacing_starts_at_end_of_previous_sync() -> None:
    limits = Limits(sync_spacing=20, hourly_limit=700, strict=False)
    assert rules(limits, "home", "sync", 0) == []
    limits.end_call("home", "sync", 5)
    assert rules(limits, "home", "sync", 24.9) == ["spacing"]
    limits.end_call("home", "sync", 25)
    assert rules(limits, "home", "sync", 45) == []


def test_concurrent_sync_is_a_violation_with_zero_gap() -> None:
    limits = Limits(sync_spacing=20, hourly_limit=700, strict=False)
    limits.start_call("home", "sync", 0)
    (refusal,) = limits.start_call("home", "sync", 100)
    assert (refusal.violation.rule, refusal.violation.gap, refusal.violation.at) == ("spacing", 0.0, 100)


def test_spacing_is_per_account_and_endpoint() -> None:
    limits = Limits(sync_spacing=20, hourly_limit=700, strict=False)
    limits.start_call("home", "sync", 0)
    limits.end_call("home", "sync", 0)
    assert rules(limits, "hotel", "sync", 1) == []
    assert rules(limits, "home", "locks", 1) == []


def test_hourly_limit_is_a_sliding_window() -> None:
    limits = Limits(sync_spacing=20, hourly_limit=3, strict=True)
    assert [rules(limits, "home", "locks", t) for t in (0, 1000, 2000)] == [[], [], []]
    (refusal,) = limits.start_call("home", "details", 3000)
    assert (refusal.violation.rule, refusal.violation.gap, refusal.retry_after) == ("hour", 3000, 600)
    assert rules(limits, "home", "locks", 3600) == []
    assert rules(limits, "home", "locks", 3601) == ["hour"]


def test_calls_over_limit_count_unless_strict() -> None:
    limits = Limits(sync_spacing=20, hourly_limit=2, strict=False)
    assert [len(limits.start_call("home", "locks", t)) for t in (0, 10, 20, 30)] == [0, 0, 1, 1]
    assert rules(limits, "home", "locks", 3615) == ["hour"]


def test_second_sync_within_20_seconds_is_a_violation(served: Served) -> None:
    served.get()
    served.clock.advance(19.5)
    assert served.get().status_code == 200
    (violation,) = served.cloud.violations
    assert (violation.account, violation.endpoint, violation.rule) == ("home", "sync", "spacing")
    assert (violation.gap, violation.at) == (19.5, 1019.5)


def test_sync_after_20_seconds_is_no_violation(served: Served) -> None:
    served.get()
    served.clock.advance(20)
    served.get()
    assert served.cloud.violations == []


def test_credentials_of_one_account_share_limits(served: Served) -> None:
    served.get()
    served.get(authorization="Bearer jwt")
    served.get(authorization="PersonalKey theirs")
    assert [violation.account for violation in served.cloud.violations] == ["home"]


def test_strict_cloud_returns_429_with_retry_after(strict: Served) -> None:
    strict.get()
    strict.clock.advance(7.5)
    refused = strict.get()
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "13"
    assert refused.json() == {
        "result": None,
        "success": False,
        "errorMessages": ["Rate limit exceeded"],
        "statusCode": 429,
    }
    strict.clock.advance(13)
    assert strict.get().status_code == 200
    assert len(strict.cloud.violations) == 1


def test_strict_cloud_enforces_hourly_limit(strict: Served) -> None:
    for _ in range(5):
        assert strict.get("my/lock").status_code == 200
        strict.clock.advance(600)
    refused = strict.get("my/device/details")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "600")
    strict.clock.advance(600)
    assert strict.get("my/lock").status_code == 200


def test_sync_that_was_reset_counts(served: Served) -> None:
    served.cloud.faults.script(Fault.reset())
    try:
        served.get()
    except OSError:
        served.clock.advance(5)
    served.get()
    assert [violation.rule for violation in served.cloud.violations] == ["spacing"]


def test_sync_during_another_is_recorded(served: Served) -> None:
    served.cloud.faults.script(Fault.delayed(0.2))
    first = threading.Thread(target=served.get)
    first.start()
    while not served.cloud.calls:
        time.sleep(0.005)
    served.clock.advance(100)
    requests.get(f"{served.url}/api/v37/my/lock/sync", headers={"Authorization": "PersonalKey right"}, timeout=TIMEOUT)
    first.join()
    assert [(violation.rule, violation.gap) for violation in served.cloud.violations] == [("spacing", 0.0)]
