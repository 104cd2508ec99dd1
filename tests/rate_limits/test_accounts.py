"""Accounts that are added, removed and changed by a reload: no early call, and no locks of another user."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import responses

from exporter.accounts import Accounts
from exporter.config.settings import Settings
from exporter.config.source import Source
from exporter.state.stores import OpenStore
from exporter.sync.scheduler import Scheduler
from exporter.sync.snapshot import AccountStatus, StatusRegistry
from testing.clock import FakeClock
from testing.stores import memory_store
from tests.cloud import URL, Tedee, detailed, synced


@pytest.fixture
def tedee(clock: FakeClock) -> Iterator[Tedee]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        tedee = Tedee(mock)
        tedee.has(synced(1))
        tedee.clock = clock
        yield tedee


class Program:
    """The exporter without its web server, with a fake clock."""

    def __init__(self, clock: FakeClock, store: OpenStore | None = None) -> None:
        self.clock = clock
        self.registry = StatusRegistry()
        self.scheduler = Scheduler(clock)
        self.store = store or memory_store(clock)
        self.accounts = Accounts(clock, self.store, self.registry, self.scheduler)

    def configure(self, *accounts: dict[str, Any], **sections: Any) -> None:
        data = {"api": {"url": URL}, "accounts": list(accounts), **sections}
        self.accounts.apply(Source(data).validated(Settings))

    def run(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        while (due := self.scheduler.next_due()) is not None and due <= end:
            self.clock.advance(max(0.0, due - self.clock.monotonic()))
            self.scheduler.run_due()
        self.clock.advance(max(0.0, end - self.clock.monotonic()))

    def status(self, account: str) -> AccountStatus:
        return {status.account: status for status in self.registry.statuses()}[account]


@pytest.fixture
def program(clock: FakeClock) -> Program:
    return Program(clock)


def account(name: str, key: str | Path = "", **options: Any) -> dict[str, Any]:
    credential = {"personal_key_file": str(key)} if isinstance(key, Path) else {"personal_key": key or f"key-of-{name}"}
    return {"name": name, **credential, **options}


def key_file(folder: Path, name: str, key: str) -> Path:
    file = folder / name
    file.write_text(key)
    return file


def test_unchanged_account_keeps_its_state(tedee: Tedee, program: Program) -> None:
    program.configure(account("home"))
    program.run(45)
    before = program.status("home")
    program.configure(account("home"), account("office"))
    assert program.status("home") == before
    program.run(14)
    assert tedee.keys.count("key-of-home") == 3
    program.run(2)
    assert tedee.keys.count("key-of-home") == 4
    assert program.status("home").requests["my/lock/sync", "200"] == 4


def test_reload_without_changes_has_no_effect(tedee: Tedee, program: Program) -> None:
    program.configure(account("home"))
    program.run(45)
    client = program.accounts.syncs["home"]._client
    for _ in range(100):
        program.configure(account("home"))
        program.run(0.5)
    assert program.accounts.syncs["home"]._client is client
    assert tedee.keys.count("key-of-home") == 5


def test_removed_account_has_no_status_and_no_calls(tedee: Tedee, program: Program) -> None:
    program.configure(account("home"), account("office"))
    program.run(30)
    program.configure(account("home"))
    assert [status.account for status in program.registry.statuses()] == ["home"]
    before = tedee.keys.count("key-of-office")
    program.run(60)
    assert tedee.keys.count("key-of-office") == before


def test_added_account_waits_for_a_call_and_the_spacing(tedee: Tedee, program: Program) -> None:
    program.configure(account("home"))
    program.run(30)
    program.configure(account("home"), account("office"))
    program.run(30.9)
    assert tedee.keys.count("key-of-office") == 0
    program.run(0.2)
    assert tedee.keys.count("key-of-office") == 1


def test_renamed_account_is_not_called_early(tedee: Tedee, program: Program) -> None:
    program.configure(account("home", "one-key"))
    program.run(21)
    program.configure(account("house", "one-key"))
    program.run(15)
    assert tedee.keys.count("one-key") == 2
    program.run(20)
    assert tedee.keys.count("one-key") == 3


def test_accounts_with_swapped_keys_are_not_called_early(tedee: Tedee, program: Program) -> None:
    program.configure(account("a", "key-1"), account("b", "key-2"))
    program.run(20.1)  # a was called just now, b is due soon
    assert (tedee.keys.count("key-1"), tedee.keys.count("key-2")) == (2, 1)
    program.configure(account("a", "key-2"), account("b", "key-1"))
    program.run(15)
    assert (tedee.keys.count("key-1"), tedee.keys.count("key-2")) == (2, 1)


@pytest.mark.parametrize("names", ["ab", "abc"])
@pytest.mark.parametrize("in_files", [False, True])
def test_accounts_with_swapped_keys_continue(
    tedee: Tedee, program: Program, tmp_path: Path, names: str, in_files: bool
) -> None:
    keys: list[Any] = [f"key-of-{name}" for name in names]
    if in_files:
        keys = [key_file(tmp_path, key, key) for key in keys]
    for _ in range(2):
        program.configure(*map(account, names, keys))
        program.run(50)
        assert [status.up for status in program.registry.statuses()] == [True] * len(names)
        assert sum(status.failures["auth"] for status in program.registry.statuses()) == 0
        keys = [*keys[1:], keys[0]]
    assert min(gap for key in set(tedee.keys) for gap in tedee.gaps(key)) >= 20


def test_accounts_continue_if_keys_are_swapped_during_call(tedee: Tedee, program: Program) -> None:
    def swap(_endpoint: str) -> None:
        if len(tedee.keys) == 3:
            tedee.sync_status = 401  # after which the client reads its key again
            program.configure(account("a", "key-2"), account("b", "key-1"))

    tedee.on_call = swap
    program.configure(account("a", "key-1"), account("b", "key-2"))
    program.run(30)
    tedee.sync_status = 200
    program.run(100)
    assert [status.up for status in program.registry.statuses()] == [True, True]
    assert min(gap for key in ("key-1", "key-2") for gap in tedee.gaps(key)) >= 20


@pytest.mark.parametrize("endpoint", ["sync", "details"])
def test_removed_account_publishes_and_stores_nothing(
    tedee: Tedee, program: Program, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    """A new account may have the same name and the key of another user."""
    stored: list[str] = []
    monkeypatch.setattr(
        program.store.responses, "store_response", lambda _account, endpoint, *_: stored.append(endpoint)
    )

    def replace(called: str) -> None:
        if called == endpoint and tedee.keys[-1] == "key-1":
            program.configure(account("other"))
            program.configure(account("home", "key-2"), account("other"))
            program.clock.advance(8)
            stored.clear()

    tedee.on_call = replace
    tedee.details = [detailed(1, "Front door")]
    program.configure(account("home", "key-1"))
    program.run(1)
    assert program.status("home").snapshot is None
    assert stored == []


@pytest.mark.parametrize("during_call", [False, True])
def test_reload_with_another_key_removes_locks_at_once(tedee: Tedee, program: Program, during_call: bool) -> None:
    served: list[object] = []

    def reload(_endpoint: str = "") -> None:
        if len(tedee.keys) == 2:
            program.configure(account("home", "key-2"), sync={"interval": "2m"})
            served.append(program.status("home").snapshot)

    program.configure(account("home", "key-1"), sync={"interval": "2m"})
    program.run(130 if not during_call else 100)
    if during_call:
        tedee.on_call = reload
    else:
        reload()
    program.run(30)
    assert served == [None]
    assert program.status("home").snapshot is None or tedee.keys[-1] == "key-2"


def test_reload_with_another_key_ends_a_backoff(tedee: Tedee, program: Program, tmp_path: Path) -> None:
    tedee.wrong_keys.add("wrong")
    program.configure(account("home", "wrong"), account("hotel", tmp_path / "missing"))
    program.run(700)
    program.configure(account("home", "key-1"), account("hotel", "key-2"))
    program.run(32)
    assert [status.up for status in program.registry.statuses()] == [True, True]


def test_failed_call_with_another_key_removes_locks(tedee: Tedee, program: Program, tmp_path: Path) -> None:
    file = key_file(tmp_path, "home", "key-1")
    program.configure(account("home", file))
    program.run(1)
    tedee.sync_status = 500
    program.run(20)
    assert program.status("home").snapshot
    file.write_text("key-2")
    program.run(120)
    assert tedee.keys[-1] == "key-2"
    assert program.status("home").snapshot is None


@pytest.mark.parametrize("change", [("b", "key-1"), ("a", "key-2", "b", "key-1")])
def test_account_changed_during_a_call_is_not_called_early(
    tedee: Tedee, program: Program, change: tuple[str, ...]
) -> None:
    ended: dict[str, float] = {}
    gaps: list[float] = []

    def on_call(endpoint: str) -> None:
        if endpoint != "sync":
            return
        key = tedee.keys[-1]
        gaps.append(program.clock.monotonic() - ended.get(key, 0.0))
        if len(tedee.keys) == 3:
            # The configuration is reloaded during this call, which takes 10 seconds.
            program.configure(*(account(*pair) for pair in zip(change[::2], change[1::2], strict=True)))
        program.clock.advance(10.0)
        ended[key] = program.clock.monotonic()

    tedee.on_call = on_call
    program.configure(account("a", "key-1"), account("b2", "key-2"))
    program.run(120)
    assert len(gaps) > 4
    assert min(gaps) >= 20


def test_account_removed_and_added_is_not_called_early(tedee: Tedee, program: Program) -> None:
    program.configure(account("home"), account("other"))
    program.run(1)
    for _ in range(5):
        program.configure(account("other"))
        program.configure(account("home"), account("other"))
        program.run(1)
    assert tedee.keys.count("key-of-home") == 1


def test_account_of_another_user_serves_nothing_before_sync(tedee: Tedee, program: Program) -> None:
    program.configure(account("home", "key-1"))
    program.run(21)
    assert program.status("home").snapshot
    program.configure(account("home", "key-2"))
    program.run(20)
    assert program.status("home").snapshot is None
    assert program.status("home").requests["my/lock/sync", "200"] == 2
    program.run(35)
    assert program.status("home").snapshot
    assert tedee.keys[-1] == "key-2"


def test_second_account_with_a_key_is_not_called(tedee: Tedee, program: Program, tmp_path: Path) -> None:
    home, hotel = key_file(tmp_path, "home", "key-1"), key_file(tmp_path, "hotel", "key-2")
    program.configure(account("home", home), account("hotel", hotel))
    program.run(20.1)
    hotel.write_text("key-1")
    program.run(600)
    assert min(tedee.gaps("key-1")) >= 20
    assert tedee.keys.count("key-1") == 32
    failure = program.status("hotel").failure
    assert failure
    assert failure.reason == "auth"
    assert f"key file {hotel} contains the key of account home" in failure.message
    assert program.status("home").up
    # As soon as the first account has another key, the second one may use its key, without a reload.
    home.write_text("key-3")
    program.run(60)
    assert program.status("hotel").up
    assert program.status("home").up
    assert tedee.keys[-2:].count("key-1") == 1


def test_identical_keys_added_after_start_are_called_once(tedee: Tedee, program: Program, tmp_path: Path) -> None:
    home, hotel = tmp_path / "home", tmp_path / "hotel"
    program.configure(account("home", home), account("hotel", hotel))
    program.run(30)
    assert tedee.keys == []
    for file in (home, hotel):
        file.write_text("key-1")
    program.run(300)
    assert min(tedee.gaps("key-1")) >= 20
    assert sorted(filter(None, (program.status(name).up for name in ("home", "hotel")))) == [True]


def test_keys_swapped_in_files_are_not_called_early(tedee: Tedee, program: Program, tmp_path: Path) -> None:
    home, hotel = key_file(tmp_path, "home", "key-1"), key_file(tmp_path, "hotel", "key-2")
    program.configure(account("home", home), account("hotel", hotel))
    for round_ in range(10):
        program.run(17.3 * (1 + round_ % 3))
        first, second = home.read_text(), hotel.read_text()
        home.write_text(second)
        program.run(1.7 * (round_ % 4))
        hotel.write_text(first)
    program.run(60)
    for key in ("key-1", "key-2"):
        assert min(tedee.gaps(key)) >= 20
        assert tedee.keys[-2:].count(key) == 1


def test_corrected_key_is_tried_when_limits_allow(tedee: Tedee, program: Program, tmp_path: Path) -> None:
    file = key_file(tmp_path, "home", "wrong")
    tedee.wrong_keys.add("wrong")
    program.configure(account("home", file))
    program.run(700)
    assert program.status("home").next_sync or program.clock.wall() + 100 < 0.0
    file.write_text("right")
    program.run(3)
    status = program.status("home")
    assert status.credential_changed
    assert status.next_sync == pytest.approx(program.clock.wall() + 29, abs=2)
    program.run(30)
    assert program.status("home").up
    assert not program.status("home").credential_changed


def test_key_that_becomes_readable_is_tried_at_once(tedee: Tedee, program: Program, tmp_path: Path) -> None:
    program.configure(account("home", tmp_path / "key"))
    program.run(700)
    key_file(tmp_path, "key", "right")
    program.run(3)
    assert program.status("home").up


def test_reload_tries_a_refused_key_again(tedee: Tedee, program: Program) -> None:
    tedee.wrong_keys.add("key-of-home")
    program.configure(account("home"))
    program.run(700)
    calls = len(tedee.keys)
    program.run(30)
    program.configure(account("home"))
    program.run(3)
    assert len(tedee.keys) == calls + 1
    # A second reload does not lead to an early call.
    program.configure(account("home"))
    program.run(15)
    assert len(tedee.keys) == calls + 1


def test_reload_does_not_shorten_other_waits(tedee: Tedee, program: Program) -> None:
    tedee.sync_status = 503
    program.configure(account("home"))
    program.run(700)
    calls = len(tedee.keys)
    for _ in range(5):
        program.configure(account("home"))
        program.run(3)
    assert len(tedee.keys) == calls


def test_changed_options_apply_to_the_next_sync(tedee: Tedee, program: Program) -> None:
    tedee.details = [detailed(1, "Front door")]
    program.configure(account("home"))
    program.run(1)
    program.configure(account("home", locks={"ids": [1]}), sync={"interval": "60s"})
    program.run(20)
    assert tedee.calls[-1] == ("sync", {"id": ["1"]})
    before = len(tedee.calls)
    program.run(58)
    assert len(tedee.calls) == before


def test_configured_intervals_and_expiry_apply_to_the_account(tedee: Tedee, program: Program) -> None:
    program.configure(
        account("home", expires="2027-11-30"), account("hotel"), devices={"interval": "5m"}, events={"enabled": True}
    )
    program.run(601)
    assert tedee.endpoints().count("details") == tedee.endpoints().count("door_sensors") == 2 * 3
    assert tedee.endpoints().count("activities") > 2
    expiries = [program.status(name).credentials_expire_at for name in ("home", "hotel")]
    assert expiries == [1_827_532_800.0, None]
    program.configure(account("home", expires="2027-12-01"), account("hotel"))
    program.run(20)
    before = tedee.endpoints()
    assert program.status("home").credentials_expire_at == 1_827_532_800.0 + 86_400
    program.run(300)
    assert tedee.endpoints().count("details") == before.count("details")
    assert tedee.endpoints().count("activities") == before.count("activities")


def test_accounts_are_in_the_order_of_the_configuration(tedee: Tedee, program: Program) -> None:
    program.configure(account("b"), account("d"))
    program.configure(account("a"), account("b"), account("c"), account("d"))
    assert [status.account for status in program.registry.statuses()] == ["a", "b", "c", "d"]


def test_all_accounts_can_be_replaced(tedee: Tedee, program: Program) -> None:
    program.configure(account("a"))
    program.run(1)
    program.configure(account("b"))
    program.run(35)
    assert [status.account for status in program.registry.statuses()] == ["b"]
    assert program.status("b").up
