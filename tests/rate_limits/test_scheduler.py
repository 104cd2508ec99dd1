"""Lost if these fail: punctual data, and the isolation of one account from another."""

import threading
from collections.abc import Sequence

from exporter.clock import SystemClock
from exporter.sync.scheduler import ERROR_DELAY, MAX_IDLE_WORKERS, MAX_UNRELIABLE_RUNS, MAX_WORKERS, Scheduler
from tests.clock import FakeClock
from tests.program import TIMEOUT, eventually


class Account:
    """A job that wants a turn every 20 seconds after its last."""

    def __init__(self, name: str, clock: FakeClock, takes: float = 0.0) -> None:
        self.name = name
        self.turns: list[float] = []
        self._clock = clock
        self._takes = takes
        self._due = 0.0

    def is_reliable(self) -> bool:
        return bool(self.turns)

    def wait(self) -> float:
        return max(0.0, self._due - self._clock.monotonic())

    def run(self) -> None:
        self.turns.append(self._clock.monotonic())
        self._clock.advance(self._takes)
        self._due = self._clock.monotonic() + 20.0


class Buggy(Account):
    def run(self) -> None:
        super().run()
        raise ZeroDivisionError


def planned(accounts: Sequence[Account], clock: FakeClock) -> Scheduler:
    scheduler = Scheduler(clock)
    scheduler.add(accounts, interval=20.0)
    return scheduler


def play(scheduler: Scheduler, clock: FakeClock, seconds: float) -> None:
    end = clock.monotonic() + seconds
    while (due := scheduler.next_due()) is not None and due <= end:
        clock.advance(max(0.0, due - clock.monotonic()))
        scheduler.run_due()


def test_every_account_gets_its_turns_on_time(clock: FakeClock) -> None:
    accounts = [Account(f"account-{number}", clock) for number in range(100)]
    start = clock.monotonic()
    play(planned(accounts, clock), clock, 65.0)
    for account in accounts:
        first = account.turns[0]
        assert account.turns[:3] == [first, first + 20, first + 40]
        assert first < start + 20


def test_accounts_do_not_all_start_at_once(clock: FakeClock) -> None:
    accounts = [Account(f"account-{number}", clock) for number in range(1_000)]
    start = clock.monotonic()
    play(planned(accounts, clock), clock, 19.999)
    starts = sorted(account.turns[0] - start for account in accounts)
    assert starts[0] == 0.0
    assert max(sum(1 for at in starts if second <= at < second + 1) for second in range(20)) <= 51


def test_a_single_account_starts_at_once_and_two_a_quarter_of_a_second_apart(clock: FakeClock) -> None:
    accounts = [Account("one", clock), Account("two", clock)]
    start = clock.monotonic()
    play(planned(accounts, clock), clock, 1.0)
    assert [account.turns for account in accounts] == [[start], [start + 0.25]]


def test_a_bug_in_one_account_costs_the_others_nothing_and_itself_a_minute(clock: FakeClock) -> None:
    buggy, good = Buggy("buggy", clock), Account("good", clock)
    play(planned([buggy, good], clock), clock, 61.0)
    assert len(good.turns) == 4
    assert len(buggy.turns) == 2
    assert buggy.turns[1] - buggy.turns[0] == ERROR_DELAY


def test_an_account_that_comes_gets_turns_and_one_that_goes_gets_no_more(clock: FakeClock) -> None:
    stays, goes, comes = Account("stays", clock), Account("goes", clock), Account("comes", clock)
    scheduler = planned([stays, goes], clock)
    play(scheduler, clock, 30.0)
    scheduler.remove([goes])
    scheduler.add([comes], interval=20.0)
    play(scheduler, clock, 30.0)
    assert (len(stays.turns), len(goes.turns), len(comes.turns)) == (3, 2, 2)


def test_an_account_that_goes_during_its_turn_gets_no_more(clock: FakeClock) -> None:
    scheduler = Scheduler(clock)

    class Leaving(Account):
        def run(self) -> None:
            super().run()
            scheduler.remove([self])

    leaving, stays = Leaving("leaving", clock), Account("stays", clock)
    scheduler.add([leaving, stays], interval=20.0)
    play(scheduler, clock, 50.0)
    assert (len(leaving.turns), len(stays.turns)) == (1, 3)


def test_a_stopped_scheduler_begins_no_turn(clock: FakeClock) -> None:
    account = Account("home", clock)
    scheduler = planned([account], clock)
    scheduler.stop()
    scheduler.run_due()
    assert account.turns == []


class Rendezvous:
    """A job whose turn ends only when every other job's turn is under way too."""

    name = "rendezvous"

    def __init__(self, barrier: threading.Barrier) -> None:
        self._barrier = barrier
        self.met = threading.Event()

    def is_reliable(self) -> bool:
        return False

    def wait(self) -> float:
        return 3600.0 if self.met.is_set() else 0.0

    def run(self) -> None:
        self._barrier.wait(timeout=TIMEOUT)
        self.met.set()


class Silent:
    """A job whose turn does not end before the test does."""

    name = "silent"

    def __init__(self, over: threading.Event | None = None) -> None:
        self.begun = threading.Event()
        self.over = over or threading.Event()

    def is_reliable(self) -> bool:
        return False

    def wait(self) -> float:
        return 0.0

    def run(self) -> None:
        self.begun.set()
        self.over.wait(timeout=TIMEOUT)


def test_turns_of_different_accounts_overlap_and_one_that_never_ends_holds_up_nobody() -> None:
    silent = Silent()
    barrier = threading.Barrier(3)
    others = [Rendezvous(barrier) for _ in range(3)]
    scheduler = Scheduler(SystemClock())
    scheduler.add([silent, *others], interval=0.0)
    scheduler.start()
    try:
        assert silent.begun.wait(timeout=TIMEOUT)
        assert all(other.met.wait(timeout=TIMEOUT) for other in others)
    finally:
        scheduler.stop()
        silent.over.set()


class Reliable(Account):
    """A job that has always gone well."""

    def is_reliable(self) -> bool:
        return True


def test_silent_accounts_leave_workers_for_the_others() -> None:
    over = threading.Event()
    silent = [Silent(over) for _ in range(MAX_WORKERS)]
    clock = SystemClock()
    scheduler = Scheduler(clock)
    scheduler.add(silent, interval=0.0)
    scheduler.start()
    try:
        eventually(
            lambda: sum(job.begun.is_set() for job in silent) == MAX_UNRELIABLE_RUNS, "all that may be under way"
        )
        reliable = Reliable("reliable", FakeClock())
        scheduler.add([reliable], interval=0.0)
        eventually(lambda: reliable.turns, "the turn of the reliable job")
        assert sum(job.begun.is_set() for job in silent) == MAX_UNRELIABLE_RUNS
    finally:
        scheduler.stop()
        over.set()


def test_silent_account_gets_its_turn_when_another_ends() -> None:
    over = threading.Event()
    silent = [Silent(over) for _ in range(MAX_UNRELIABLE_RUNS + 1)]
    scheduler = Scheduler(SystemClock())
    scheduler.add(silent, interval=0.0)
    scheduler.start()
    try:
        eventually(
            lambda: sum(job.begun.is_set() for job in silent) == MAX_UNRELIABLE_RUNS, "all that may be under way"
        )
        over.set()
        eventually(lambda: all(job.begun.is_set() for job in silent), "the last one")
    finally:
        scheduler.stop()


def test_idle_workers_end() -> None:
    barrier = threading.Barrier(MAX_IDLE_WORKERS * 2)
    jobs = [Rendezvous(barrier) for _ in range(MAX_IDLE_WORKERS * 2)]
    scheduler = Scheduler(SystemClock())
    scheduler.add(jobs, interval=0.0)
    scheduler.start()
    try:
        assert all(job.met.wait(timeout=60) for job in jobs)
        eventually(lambda: scheduler._workers <= MAX_IDLE_WORKERS, "the idle workers to end")
    finally:
        scheduler.stop()
