"""What every state store must do. A new store is added to STORES."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from exporter.clock import Instant
from exporter.state.rate_limits import RateLimitState
from exporter.state.responses import CachedResponse, Failure, ResponseStore
from exporter.state.sqlite import SQLiteStateStore
from exporter.state.store import StateStore
from testing.clock import FakeClock
from testing.stores import LONGEST_CALL


class Store(StateStore, ResponseStore, Protocol):
    """A store of both kinds of data."""


Open = Callable[[], Store]

STORES: dict[str, Callable[[Path, FakeClock], Store]] = {
    "SQLite": lambda folder, clock: SQLiteStateStore(folder / "state.db", clock, longest_call=LONGEST_CALL)
}
STATE = RateLimitState(blocked_until=1_234.5, recent_requests={"my/lock/sync": (990.0, 995.5)})


@pytest.fixture(params=STORES)
def open_again(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Open:
    """Open the same store again, as another process does."""
    return lambda: STORES[request.param](tmp_path, clock)


def write(store: StateStore, **states: RateLimitState) -> None:
    with store.transaction([*states]) as transaction:
        transaction.states = tuple(states.values())


def read(store: StateStore, *keys: str) -> tuple[RateLimitState | None, ...]:
    with store.transaction(keys) as transaction:
        return transaction.states


def test_unknown_key_has_no_state(open_again: Open) -> None:
    assert read(open_again(), "home", "hotel") == (None, None)


def test_written_states_are_read_by_other_processes(open_again: Open) -> None:
    one, two = open_again(), open_again()
    write(one, home=STATE, hotel=RateLimitState())
    assert read(two, "hotel", "home") == (RateLimitState(), STATE)
    write(two, home=replace(STATE, blocked_until=2_000.0))
    assert read(one, "home") == (replace(STATE, blocked_until=2_000.0),)


def test_exception_in_a_transaction_changes_nothing(open_again: Open) -> None:
    store = open_again()
    write(store, home=STATE)
    with suppress(ZeroDivisionError), store.transaction(["home"]) as transaction:
        transaction.states = (RateLimitState(),)
        raise ZeroDivisionError
    assert read(store, "home") == (STATE,)
    assert read(open_again(), "home") == (STATE,)


def test_states_outlive_the_process(open_again: Open) -> None:
    store = open_again()
    assert store.is_new
    write(store, home=STATE)
    store.close()
    again = open_again()
    assert not again.is_new
    assert read(again, "home") == (STATE,)


def test_marked_store_delays_the_next_call(open_again: Open, clock: FakeClock) -> None:
    store = open_again()
    write(store, home=STATE)
    assert store.mark_incomplete()
    with open_again().transaction(["home"]) as transaction:
        assert transaction.blocked_until == clock.monotonic() + LONGEST_CALL + 20.0


def test_responses_are_returned_to_the_same_credential(open_again: Open, clock: FakeClock) -> None:
    one, two = open_again(), open_again()
    response = CachedResponse([b'{"id": 1}'], Instant.now(clock), Failure("server", "it broke", 5.0), {1: 2}, (1,))
    one.store_response("home", "my/lock/sync", "key 1", response)
    assert two.cached_response("home", "my/lock/sync", "key 1") == response
    assert two.cached_response("home", "my/lock/sync", "key 2") is None
    assert two.cached_response("home", "my/device/details", "key 1") is None
    two.delete_other_accounts(["hotel"])
    assert one.cached_response("home", "my/lock/sync", "key 1") is None
