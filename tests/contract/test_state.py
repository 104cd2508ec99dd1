"""Lost if these fail: Tedee's limits over restarts, crashes, full disks, jumping clocks and second processes."""

import json
import sqlite3
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.sync import state as module
from exporter.sync.budget import Budget, Rules
from exporter.sync.ledger import CalledTooEarly, Failure, Kept, Stamp
from exporter.sync.state import FORMAT, StateFile
from exporter.tedee.client import LOCKS, SYNC
from exporter.tedee.errors import CallError, RateLimited, ServerFailed
from tests.clock import FakeClock

RULES = Rules(longest_call=11.0)


def gate(ledger: StateFile, clock: FakeClock, account: str = "home", rules: Rules = RULES) -> Budget:
    return Budget(account, ledger, clock, rules, jitter=lambda: 1.0)


def call(budget: Budget, clock: FakeClock, endpoint: str = SYNC, takes: float = 0.5) -> None:
    with budget.passage(endpoint):
        clock.advance(takes)


def fail(budget: Budget, error: CallError) -> None:
    with suppress(CallError), budget.passage(SYNC):
        raise error


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


# A restart


def test_the_first_start_of_all_may_call_at_once(path: Path, clock: FakeClock) -> None:
    assert gate(StateFile(path, clock), clock).wait(SYNC) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_restart_waits_out_the_rest_of_the_spacing_and_no_more(path: Path, clock: FakeClock, end: str) -> None:
    ledger = StateFile(path, clock)
    call(gate(ledger, clock), clock)
    if end == "close":
        ledger.close()
    clock.advance(7)
    budget = gate(StateFile(path, clock), clock)
    assert budget.wait(SYNC) == 13.0
    with pytest.raises(CalledTooEarly):
        call(budget, clock)
    clock.advance(13)
    call(budget, clock)


def test_a_clean_restart_after_the_spacing_calls_at_once(path: Path, clock: FakeClock) -> None:
    ledger = StateFile(path, clock)
    call(gate(ledger, clock), clock)
    ledger.close()
    clock.advance(60)
    assert gate(StateFile(path, clock), clock).wait(SYNC) == 0


def test_after_a_crash_of_unknown_age_one_spacing_is_waited_out(path: Path, clock: FakeClock) -> None:
    call(gate(StateFile(path, clock), clock), clock)
    clock.advance(60)
    assert gate(StateFile(path, clock), clock).wait(SYNC) == 20.0


def test_a_process_killed_during_a_call_leaves_word_of_it(path: Path, clock: FakeClock) -> None:
    with gate(StateFile(path, clock), clock).passage(SYNC):
        # Killed here, it leaves the file as it is while the call is under way.
        assert gate(StateFile(path, clock), clock).wait(SYNC) == 11.0 + 20.0


def test_a_restart_loop_gets_through_in_the_end(path: Path, clock: FakeClock) -> None:
    call(gate(StateFile(path, clock), clock), clock)
    waits = []
    for _ in range(8):
        clock.advance(5)
        waits.append(gate(StateFile(path, clock), clock).wait(SYNC))
    assert waits[:4] == [15, 10, 5, 20]
    assert max(waits) == 20


def test_backoff_retry_after_and_the_hour_survive(path: Path, clock: FakeClock) -> None:
    ledger = StateFile(path, clock)
    budget = gate(ledger, clock)
    for _ in range(3):
        fail(budget, ServerFailed("x", account="home", endpoint=SYNC))
        clock.advance(budget.wait(SYNC))
    fail(budget, RateLimited("x", account="home", endpoint=SYNC, retry_after=1800.0))
    ledger.close()
    clock.advance(100)
    again = gate(StateFile(path, clock), clock)
    assert again.wait(SYNC) == 1700.0
    assert again.wait(LOCKS) == 1700.0
    assert again.remaining() == 346
    clock.advance(1700)
    fail(again, ServerFailed("x", account="home", endpoint=SYNC))
    assert again.wait(SYNC) == 300.0


def test_an_account_that_the_file_does_not_know_waits_one_spacing(path: Path, clock: FakeClock) -> None:
    ledger = StateFile(path, clock)
    call(gate(ledger, clock), clock)
    ledger.close()
    assert gate(StateFile(path, clock), clock, account="renamed").wait(SYNC) == 20.0


def test_an_account_that_became_another_users_waits_out_a_call_of_that_user_and_one_spacing(
    path: Path, clock: FakeClock
) -> None:
    ledger = StateFile(path, clock)
    gate(ledger, clock).recognise("key one", 11.0)
    ledger.close()
    clock.advance(100)
    budget = gate(StateFile(path, clock), clock)
    budget.recognise("key one", 11.0)
    assert budget.wait(SYNC) == 0
    budget.recognise("key two", 11.0)
    assert budget.wait(SYNC) == 31.0


# Clocks


@pytest.mark.parametrize("jump", [-3600.0, 0.0, 365 * 86_400.0])
def test_a_restart_does_not_care_for_wall_time_within_a_boot(path: Path, clock: FakeClock, jump: float) -> None:
    ledger = StateFile(path, clock)
    call(gate(ledger, clock), clock)
    ledger.close()
    clock.advance(2)
    clock.set_wall(clock.wall() + jump)
    assert gate(StateFile(path, clock), clock).wait(SYNC) == 18.0


@pytest.mark.parametrize("jump", [-3600.0, 0.0, 365 * 86_400.0])
@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_reboot_waits_out_exactly_one_spacing_whatever_wall_time_says(
    path: Path, clock: FakeClock, jump: float, end: str
) -> None:
    ledger = StateFile(path, clock)
    call(gate(ledger, clock), clock)
    if end == "close":
        ledger.close()
    clock.reboot(seconds=2.0)
    clock.set_wall(clock.wall() + jump)
    budget = gate(StateFile(path, clock), clock)
    assert budget.wait(SYNC) == 20.0
    clock.advance(20.0)
    call(budget, clock)
    assert budget.wait(SYNC) == 20.0


@pytest.mark.parametrize(("jump", "left"), [(-86_400.0, 1800.0), (0.0, 1770.0), (365 * 86_400.0, 20.0)])
def test_a_retry_after_survives_a_reboot_as_far_as_wall_time_can_tell(
    path: Path, clock: FakeClock, jump: float, left: float
) -> None:
    ledger = StateFile(path, clock)
    fail(gate(ledger, clock), RateLimited("x", account="home", endpoint=SYNC, retry_after=1800.0))
    ledger.close()
    clock.reboot(seconds=30.0)
    clock.set_wall(clock.wall() + jump)
    assert gate(StateFile(path, clock), clock).wait(SYNC) == pytest.approx(left)


def test_a_machine_whose_monotonic_time_went_back_within_a_boot_is_treated_as_rebooted(
    path: Path, clock: FakeClock
) -> None:
    ledger = StateFile(path, clock)
    call(gate(ledger, clock), clock)
    ledger.close()
    assert gate(StateFile(path, FakeClock(monotonic=50.0)), FakeClock(monotonic=50.0)).wait(SYNC) == 20.0


# A file that cannot be used


def write_garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, although it is long enough to be taken for one at first sight" * 100)


def write_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


def break_the_pages(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE page SET page = '{\"paces\": 5}'")
    database.close()


@pytest.mark.parametrize("damage", [write_garbage, write_half, write_zeros, write_nothing, break_the_pages])
def test_a_broken_file_costs_one_spacing_and_is_whole_again_after_it(
    path: Path, clock: FakeClock, damage: Callable[[Path], None]
) -> None:
    ledger = StateFile(path, clock)
    call(gate(ledger, clock), clock)
    ledger.close()
    clock.advance(500)
    damage(path)
    again = StateFile(path, clock)
    budget = gate(again, clock)
    assert budget.wait(SYNC) == 20.0
    clock.advance(20)
    call(budget, clock)
    again.close()
    clock.advance(5)
    assert gate(StateFile(path, clock), clock).wait(SYNC) == 15.0


@settings(max_examples=100, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), count=st.integers(1, 64))
def test_any_damage_never_leads_to_an_early_call_or_a_crash(
    tmp_path_factory: pytest.TempPathFactory, at: float, byte: int, count: int
) -> None:
    clock = FakeClock()
    path = tmp_path_factory.mktemp("damaged") / "state.db"
    ledger = StateFile(path, clock)
    call(gate(ledger, clock), clock)
    ledger.close()
    content = bytearray(path.read_bytes())
    where = int(at * len(content))
    content[where : where + count] = bytes([byte]) * len(content[where : where + count])
    path.write_bytes(content)
    clock.advance(5)
    wait = gate(StateFile(path, clock), clock).wait(SYNC)
    # Exactly as written where the damage hit nothing of it; a page that still reads well was not to be known.
    assert wait >= 15.0 or b"opens_at" in content


def test_a_broken_file_is_kept_aside(path: Path, clock: FakeClock) -> None:
    path.parent.mkdir()
    write_garbage(path)
    ledger = StateFile(path, clock)
    gate(ledger, clock).wait(SYNC)
    assert path.with_name("state.db.broken").read_bytes().startswith(b"this is no database")
    assert ledger.usable()


def test_a_file_of_another_version_is_not_touched_and_costs_one_spacing(path: Path, clock: FakeClock) -> None:
    StateFile(path, clock).close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {FORMAT + 1}")
    database.close()
    before = path.read_bytes()
    ledger = StateFile(path, clock)
    budget = gate(ledger, clock)
    assert budget.wait(SYNC) == 20.0
    clock.advance(20)
    call(budget, clock)
    assert budget.wait(SYNC) == 20.0
    assert not ledger.usable()
    assert path.read_bytes() == before


def test_another_programs_database_is_not_touched(path: Path, clock: FakeClock) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE photos (name)")
    database.close()
    ledger = StateFile(path, clock)
    assert gate(ledger, clock).wait(SYNC) == 20.0
    assert not ledger.usable()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT name FROM sqlite_schema").fetchall() == [("photos",)]
    database.close()


@pytest.mark.parametrize("where", ["/proc/state.db", "/dev/null/state.db", "a-folder"])
def test_a_place_where_no_file_can_be_costs_one_spacing_and_the_contract_holds_in_memory(
    tmp_path: Path, clock: FakeClock, where: str
) -> None:
    (tmp_path / "a-folder").mkdir()
    ledger = StateFile(tmp_path / where, clock)
    budget = gate(ledger, clock)
    assert budget.wait(SYNC) == 20.0
    clock.advance(20)
    call(budget, clock)
    with pytest.raises(CalledTooEarly):
        call(budget, clock)
    assert not ledger.usable()


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SQLite itself refuses to let the file grow, as it does when the disk is full."""
    connect = sqlite3.connect

    class Full(sqlite3.Connection):
        def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
            if statement.startswith(("REPLACE", "UPDATE", "CREATE")):
                super().execute("PRAGMA max_page_count = 1")
                super().execute("CREATE TABLE big AS SELECT zeroblob(1000000)")
            return super().execute(statement, *values)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, factory=Full, **kwargs))
        yield


def test_a_full_disk_is_told_and_the_contract_holds_in_memory(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    StateFile(path, clock).close()
    with full_disk(monkeypatch):
        ledger = StateFile(path, clock)
        budget = gate(ledger, clock)
        assert budget.wait(SYNC) == 20.0
        clock.advance(20)
        call(budget, clock)
        assert budget.wait(SYNC) == 20.0
        assert not ledger.usable()
    assert "database or disk is full" in capsys.readouterr().out


def test_when_the_disk_has_room_again_everything_is_written(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    StateFile(path, clock).close()
    with full_disk(monkeypatch):
        ledger = StateFile(path, clock)
        budget = gate(ledger, clock)
        clock.advance(budget.wait(SYNC))
        call(budget, clock)
    clock.advance(20)
    with pytest.raises(CalledTooEarly):
        # The file is back, but a neighbour may have called meanwhile.
        call(budget, clock)
    clock.advance(20)
    call(budget, clock)
    assert ledger.usable()
    clock.advance(3)
    budget = gate(StateFile(path, clock), clock)
    assert budget.wait(SYNC) == 17.0
    assert budget.remaining() == 348


def test_a_call_that_a_full_disk_could_not_hold_is_not_repeated_by_the_next_start(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = StateFile(path, clock)
    budget = gate(ledger, clock)
    call(budget, clock)
    clock.advance(20)
    with full_disk(monkeypatch):
        ledger._let_go()
        call(budget, clock)
    clock.advance(1)
    # Killed, and the disk has room again: the file says that the last call was 21 seconds ago.
    assert gate(StateFile(path, clock), clock).wait(SYNC) == 20.0


def test_a_file_that_is_removed_under_a_running_process_is_written_anew(path: Path, clock: FakeClock) -> None:
    ledger = StateFile(path, clock)
    budget = gate(ledger, clock)
    call(budget, clock)
    path.unlink()
    clock.advance(20)
    with pytest.raises(CalledTooEarly):
        call(budget, clock)
    assert budget.wait(SYNC) == 20.0
    clock.advance(20)
    call(budget, clock)
    ledger.close()
    assert gate(StateFile(path, clock), clock).wait(SYNC) == 20.0
    assert gate(StateFile(path, clock), clock).remaining() == 348


# Several processes on one file


def test_two_processes_share_one_gate(path: Path, clock: FakeClock) -> None:
    one, two = (gate(StateFile(path, clock), clock) for _ in range(2))
    clock.advance(20)
    with one.passage(SYNC):
        with pytest.raises(CalledTooEarly):
            call(two, clock)
        assert two.wait(SYNC) == 31.0
        clock.advance(1)
    with pytest.raises(CalledTooEarly):
        call(two, clock)
    assert two.wait(SYNC) == 20.0
    clock.advance(20)
    call(two, clock)
    with pytest.raises(CalledTooEarly):
        call(one, clock)
    assert two.remaining() == 348


@pytest.mark.parametrize("replaced", [False, True])
def test_two_processes_whose_file_is_removed_call_no_earlier(path: Path, clock: FakeClock, replaced: bool) -> None:
    StateFile(path, clock).close()
    old = path.read_bytes()
    ledgers = [StateFile(path, clock) for _ in range(2)]
    one, two = (gate(ledger, clock) for ledger in ledgers)
    clock.advance(max(one.wait(SYNC), two.wait(SYNC)))
    with one.passage(SYNC):
        # The second sees a call under way, which is the last it hears of the first.
        with pytest.raises(CalledTooEarly):
            call(two, clock)
        clock.advance(1)
    clock.advance(20)
    call(one, clock)
    ended = clock.monotonic()
    path.unlink()
    if replaced:
        path.write_bytes(old)
    while clock.monotonic() < ended + 19.5:
        for budget in (two, one):
            with pytest.raises(CalledTooEarly):
                call(budget, clock)
        clock.advance(0.5)


def test_two_processes_share_the_hour(path: Path, clock: FakeClock) -> None:
    rules = Rules(requests_per_hour=30)
    one, two = (gate(StateFile(path, clock), clock, rules=rules) for _ in range(2))
    for budget in [one, two] * 5:
        call(budget, clock, LOCKS)
    for budget in (one, two):
        with pytest.raises(CalledTooEarly):
            call(budget, clock, LOCKS)


def test_a_process_that_does_not_let_go_of_the_file_holds_calls_back_and_nothing_is_forgotten(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    ledger = StateFile(path, clock)
    budget = gate(ledger, clock)
    with budget.passage(SYNC):
        stuck = sqlite3.connect(path, isolation_level=None)
        stuck.execute("BEGIN IMMEDIATE")
    clock.advance(60)
    with pytest.raises(CalledTooEarly, match="does not let go"):
        call(budget, clock)
    stuck.execute("ROLLBACK")
    stuck.close()
    call(budget, clock)
    assert budget.remaining() == 348


def test_a_second_process_sees_what_the_first_has_kept(path: Path, clock: FakeClock) -> None:
    one, two = (gate(StateFile(path, clock), clock) for _ in range(2))
    failure = Failure("server", "it broke \ud83d", 5.0)
    kept = Kept("user", [b'{"id": 1, "odd": NaN}', b"\xff\r\0"], Stamp.now(clock), failure, {1: None}, (1, 2**52))
    one.keep(SYNC, kept)
    assert two.kept(SYNC) == kept
    assert two.kept(LOCKS) is None


def test_what_was_kept_before_it_was_noted_which_locks_were_asked_for_can_be_read(path: Path, clock: FakeClock) -> None:
    budget = gate(StateFile(path, clock), clock)
    budget.keep(SYNC, Kept("user", [b'{"id": 1}'], asked=(1,)))
    with sqlite3.connect(path) as database:
        first, row = zlib.decompress(database.execute("SELECT kept FROM kept").fetchone()[0]).split(b"\n")
        facts = json.loads(first)
        del facts["asked"]
        database.execute("UPDATE kept SET kept = ?", (zlib.compress(json.dumps(facts).encode() + b"\n" + row),))
    database.close()
    assert budget.kept(SYNC) == Kept("user", [b'{"id": 1}'])


@pytest.mark.parametrize("rows", [None, [], [b""], [b'{"id": %d}' % number for number in range(2_500)]])
def test_answers_of_any_length_are_kept_as_they_were(path: Path, clock: FakeClock, rows: list[bytes] | None) -> None:
    kept = Kept("user", rows, Stamp.now(clock))
    gate(StateFile(path, clock), clock).keep(SYNC, kept)
    assert gate(StateFile(path, clock), clock).kept(SYNC) == kept


def test_rows_of_several_lines_are_kept_as_what_they_say(path: Path, clock: FakeClock) -> None:
    budget = gate(StateFile(path, clock), clock)
    budget.keep(SYNC, Kept("user", [b'{\n  "id": 1\n}', b"[\n]"], Stamp.now(clock)))
    kept = budget.kept(SYNC)
    assert kept
    assert [json.loads(row) for row in kept.rows or ()] == [{"id": 1}, []]


@pytest.mark.parametrize(
    "written",
    [b"", b"{}", b"{}\n7", b"null", b"{]", b'{"rows": 2}\n7', b'{"rows": []}\n[{"id": 1}]\n', b'{"rows": []}', b"\xff"],
)
def test_what_was_kept_and_cannot_be_read_is_as_if_it_had_never_been(
    path: Path, clock: FakeClock, written: bytes
) -> None:
    budget = gate(StateFile(path, clock), clock)
    budget.keep(SYNC, Kept("user", [b'{"id": 1}'], Stamp.now(clock)))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE kept SET kept = ?", (zlib.compress(written),))
    assert not (budget.kept(SYNC) or Kept()).rows


# All of it together


EVENTS = ["call", "call", "call", "fail", "limited", "advance", "kill", "close", "reboot", "spring", "fall"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.floats(0, 40)), min_size=20, max_size=60))
def test_whatever_happens_to_the_process_no_two_syncs_are_closer_than_20_seconds(
    tmp_path_factory: pytest.TempPathFactory, story: list[tuple[str, float]]
) -> None:
    clock = FakeClock()
    path = tmp_path_factory.mktemp("story") / "state.db"
    ledger = StateFile(path, clock)
    budget = gate(ledger, clock)
    true_time, ended = 0.0, -100.0

    def passes(seconds: float) -> None:
        nonlocal true_time
        clock.advance(seconds)
        true_time += seconds

    for event, amount in story:
        match event:
            case "call" | "fail" | "limited":
                with suppress(CalledTooEarly, CallError), budget.passage(SYNC):
                    assert true_time - ended >= 20.0
                    passes(min(amount, 10.0))
                    ended = true_time
                    if event == "fail":
                        raise ServerFailed("x", account="home", endpoint=SYNC)
                    if event == "limited":
                        raise RateLimited("x", account="home", endpoint=SYNC, retry_after=amount)
            case "advance":
                passes(amount)
            case "reboot":
                clock.reboot(amount)
                true_time += amount
            case "spring":
                clock.set_wall(clock.wall() + 365 * 86_400)
            case "fall":
                clock.set_wall(clock.wall() - 3600)
            case "close":
                ledger.close()
        if event in {"kill", "close", "reboot"}:
            ledger = StateFile(path, clock)
            budget = gate(ledger, clock)


def test_the_file_is_nothing_but_the_databases_own(path: Path, clock: FakeClock) -> None:
    ledger = StateFile(path, clock)
    call(gate(ledger, clock), clock)
    assert {each.name for each in path.parent.iterdir()} <= {"state.db", "state.db-wal", "state.db-shm"}
    assert all(stat.S_IMODE(each.stat().st_mode) & 0o077 == 0 for each in path.parent.iterdir())
    ledger.close()
    assert [each.name for each in path.parent.iterdir()] == ["state.db"]
