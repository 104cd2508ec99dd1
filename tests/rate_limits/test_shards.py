"""Shards: each account belongs to one, and no account is called early after a change of their number."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from exporter.accounts import Accounts
from exporter.config.settings import Settings
from exporter.config.shard import BadShard, Shard
from exporter.config.source import Source
from exporter.sync.scheduler import Scheduler
from exporter.sync.snapshot import StatusRegistry
from testing.clock import FakeClock
from testing.stores import memory_store, open_store

NAMES = [f"hotel {number}" for number in range(3000)]


def shards(count: int) -> list[Shard]:
    return [Shard(index, count) for index in range(count)]


def owner(account: str, count: int) -> int:
    (index,) = [shard.index for shard in shards(count) if shard.contains(account)]
    return index


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_every_account_is_in_exactly_one_shard(account: str, count: int) -> None:
    assert owner(account, count) in range(count)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_shards_have_similar_sizes(count: int) -> None:
    sizes = [sum(shard.contains(name) for name in NAMES) for shard in shards(count)]
    assert max(sizes) < 1.2 * len(NAMES) / count
    assert min(sizes) > 0.8 * len(NAMES) / count


@pytest.mark.parametrize("count", [1, 2, 9])
def test_added_shard_takes_few_accounts_from_others(count: int) -> None:
    moves = [(owner(name, count), owner(name, count + 1)) for name in NAMES]
    moved = [after for before, after in moves if before != after]
    assert set(moved) == {count}
    assert len(moved) < 1.2 * len(NAMES) / (count + 1)


def test_shard_of_an_account_is_stable_across_releases() -> None:
    assert [owner(name, 3) for name in ("home", "hotel", "office", "Müller")] == [0, 2, 2, 1]


@pytest.mark.parametrize("text", ["3/3", "0/0", "-1/3", "1", "1/3/5", "a/b", "1/", "", "1 /3", "²/3", "0/10000"])
def test_invalid_shard_is_rejected(text: str) -> None:
    with pytest.raises(BadShard):
        Shard.parse(text)


def settings(*names: str) -> Settings:
    accounts = [{"name": name, "personal_key": f"key-of-{name}"} for name in names]
    return Source({"accounts": accounts}).validated(Settings)


def test_settings_of_a_shard_preserve_the_order_of_accounts() -> None:
    names = ["home", "hotel", "office", "attic", "cellar"]
    parts = [[account.name for account in shard.select(settings(*names)).accounts] for shard in shards(2)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert all(part == [name for name in names if name in part] for part in parts)


def wait(clock: FakeClock, folder: Path, shards: int) -> float:
    """Start the first shard, and return the seconds until the account's first sync."""
    registry, store = StatusRegistry(), open_store(folder / "state.db", clock, shard=f"0/{shards}")
    Accounts(clock, store, registry, Scheduler(clock), shards=shards).apply(settings("home"))
    (status,) = registry.statuses()
    assert status.next_sync
    return status.next_sync - clock.wall()


CALL_AND_SPACING = 31.0


def test_account_new_to_a_shard_is_not_called_early(clock: FakeClock, tmp_path: Path) -> None:
    assert wait(clock, tmp_path / "1", shards=1) == 0
    assert wait(clock, tmp_path / "2", shards=2) == CALL_AND_SPACING


def test_restarted_shard_does_not_wait(clock: FakeClock, tmp_path: Path) -> None:
    wait(clock, tmp_path, shards=2)
    clock.advance(40)
    assert wait(clock, tmp_path, shards=2) == 0


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (1, 2), (2, 1)])
def test_changed_number_of_shards_leads_to_no_early_call(
    clock: FakeClock, tmp_path: Path, before: int, after: int
) -> None:
    wait(clock, tmp_path, before)
    clock.advance(40)
    assert wait(clock, tmp_path, after) == CALL_AND_SPACING


def test_first_account_of_a_shard_is_not_called_early(clock: FakeClock) -> None:
    registry = StatusRegistry()
    accounts = Accounts(clock, memory_store(clock), registry, Scheduler(clock))
    accounts.apply(Shard(1, 2).select(settings("home")))
    assert registry.statuses() == ()
    accounts.apply(settings("home"))
    assert registry.statuses()[0].next_sync == clock.wall() + CALL_AND_SPACING


@pytest.mark.parametrize(
    ("applied", "warnings"),
    [
        ([["home"]], 0),
        ([[]], 1),
        ([["home"], []], 1),
        ([[], []], 1),
        ([[], ["home"]], 1),
        ([[], ["home"], []], 2),
    ],
)
def test_shard_without_accounts_is_logged_once(clock: FakeClock, applied: list[list[str]], warnings: int) -> None:
    accounts = Accounts(clock, memory_store(clock), StatusRegistry(), Scheduler(clock), shards=2)
    with capture_logs() as logs:
        for names in applied:
            accounts.apply(Shard(0, 2).select(settings("hotel", *names)))
    lines = [line for line in logs if "no accounts are assigned to this shard" in line["event"]]
    assert [(line["log_level"], line["shards"]) for line in lines] == [("warning", 2)] * warnings
