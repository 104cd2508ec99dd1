"""An account without the database, which is required for each call."""

import responses
from structlog.testing import capture_logs

from exporter.state.stores import open_store
from testing.clock import FakeClock
from testing.stores import LONGEST_CALL
from tests.cloud import Recorder, Tedee, account_sync, run_for

UNUSED_PORT = 1


@responses.activate
def test_account_tries_about_once_a_second(clock: FakeClock) -> None:
    tedee = Tedee(responses.mock)
    url = f"postgresql://tedee@127.0.0.1:{UNUSED_PORT}/tedee"
    with capture_logs() as logs:
        store = open_store(lambda: url, clock, longest_call=LONGEST_CALL, shard="0/1")
        account = account_sync(clock, Recorder(), store=store)
        times = run_for(account, clock, 100)
    assert 50 < len(times) <= 101
    assert tedee.calls == []
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == [
        "the state database cannot be used; nothing is requested until it can"
    ]
    reasons = {line["reason"] for line in logs if line["event"] == "request not allowed yet"}
    assert all(each.startswith("the state database cannot be used: ") for each in reasons)
    assert reasons
