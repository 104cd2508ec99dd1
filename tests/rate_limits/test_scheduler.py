"""The scheduler: runs are on time, and accounts do not delay each other."""

import threading
from collections.abc import Sequence

from exporter.clock import SystemClock
from exporter.sync.scheduler import ERROR_DELAY, MAX_IDLE_WORKERS, MAX_UNRELIABLE_RUNS, MAX_WORKERS, Scheduler
from testing.clock import FakeClock
from testing.program import TIMEOUT, eventually


class Account:
    """A job that is due 20 seconds after its last run."""

    def __init__(self, name: str, clock: FakeClock, takes: float = 0.0) -> None:
        self.name = name
        self.runs: list[float] = []
        self._clock = clock
        self._takes = takes
        self._due = 0.0

    def is_reliable(self) -> bool:
        return bool(self.runs)

    def wait(self) -> float:
        return max(0.0, self._due - self._clock.monotonic())

    def run(self) -> None:
        self.runs.append(self._clock.monotonic())
        self._clock.advance(self._takes)
        self._due = self._clock.monotonic() + 20.0


class Failing(Account):
    def run(self) -> None:
        super().run()
        raise ZeroDivisionError


def scheduler_of(accounts: Sequence[Account], clock: FakeClock) -> Scheduler:
    scheduler = Scheduler(clock)
    scheduler.add(accounts, interval=20.0)
    return scheduler


def simulate(scheduler: Scheduler, clock: FakeClock, seconds: float) -> None:
    end = clock.monotonic() + seconds
    while (due := scheduler.next_due()) is not None and due <= end:
        clock.advance(max(0.0, due - clock.monotonic()))
        scheduler.run_due()


def test_each_account_runs_on_time(clock: FakeClock) -> None:
    accounts = [Account(f"account-{number}", clock) for number in range(100)]
    start = clock.monotonic()
    simulate(scheduler_of(accounts, clock), clock, 65.0)
    for account in accounts:
        first = account.runs[0]
        assert account.runs[:3] == [first, first + 20, first + 40]
        assert first < start + 20


def test_accounts_do_not_all_start_at_once(clock: FakeClock) -> None:
    accounts = [Account(f"account-{number}", clock) for number in range(1_000)]
    start = clock.monotonic()
    simulate(scheduler_of(accounts, clock), clock, 19.999)
    first_runs = sorted(account.runs[0] - start for account in accounts)
    assert first_runs[0] == 0.0
    assert max(sum(1 for at in first_runs if second <= at < second + 1) for second in range(20)) <= 51


def test_first_runs_are_a_quarter_second_apart(clock: FakeClock) -> None:
    accounts = [Account("one", clock), Account("two", clock)]
    start = clock.monotonic()
    simulate(scheduler_of(accounts, clock), clock, 1.0)
    assert [account.runs for account in accounts] == [[start], [start + 0.25]]


def test_exception_delays_only_its_account_by_a_minute(clock: FakeClock) -> None:
    failing, good = Failing("failing", clock), Account("good", clock)
    simulate(scheduler_of([failing, good], clock), clock, 61.0)
    assert len(good.runs) == 4
    assert len(failing.runs) == 2
    assert failing.runs[1] - failing.runs[0] == ERROR_DELAY


def test_added_account_runs_and_removed_account_does_not(clock: FakeClock) -> None:
    kept, removed, added = (Account(name, clock) for name in ("kept", "removed", "added"))
    scheduler = scheduler_of([kept, removed], clock)
    simulate(scheduler, clock, 30.0)
    scheduler.remove([removed])
    scheduler.add([added], interval=20.0)
    simulate(scheduler, clock, 30.0)
    assert (len(kept.runs), len(removed.runs), len(added.runs)) == (3, 2, 2)


def test_account_removed_during_its_run_does_not_run_again(clock: FakeClock) -> None:
    scheduler = Scheduler(clock)

    class RemovesItself(Account):
        def run(self) -> None:
            super().run()
            scheduler.remove([self])

    removed, kept = RemovesItself("removed", clock), Account("kept", clock)
    scheduler.add([removed, kept], interval=20.0)
    simulate(scheduler, clock, 50.0)
    assert (len(removed.runs), len(kept.runs)) == (1, 3)


def test_stopped_scheduler_runs_nothing(clock: FakeClock) -> None:
    account = Account("home", clock)
    scheduler = scheduler_of([account], clock)
    scheduler.stop()
    scheduler.run_due()
    assert account.runs == []


class Rendezvous:
    """A job whose run ends when all other jobs of the barrier are running."""

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
    """A job whose run ends only at the end of the test."""

    name = "silent"

    def __init__(self, over: threading.Event | None = None) -> None:
        self.started = threading.Event()
        self.over = over or threading.Event()

    def is_reliable(self) -> bool:
        return False

    def wait(self) -> float:
        return 0.0

    def run(self) -> None:
        self.started.set()
        self.over.wait(timeout=TIMEOUT)


def test_endless_run_does_not_block_other_accounts() -> None:
    silent = Silent()
    barrier = threading.Barrier(3)
    others = [Rendezvous(barrier) for _ in range(3)]
    scheduler = Scheduler(SystemClock())
    scheduler.add([silent, *others], interval=0.0)
    scheduler.start()
    try:
        assert silent.started.wait(timeout=TIMEOUT)
        assert all(other.met.wait(timeout=TIMEOUT) for other in others)
    finally:
        scheduler.stop()
        silent.over.set()


class Reliable(Account):
    """A job that always succeeded."""

    def is_reliable(self) -> bool:
        return True


def test_silent_accounts_do_not_use_all_workers() -> None:
    over = threading.Event()
    silent = [Silent(over) for _ in range(MAX_WORKERS)]
    clock = SystemClock()
    scheduler = Scheduler(clock)
    scheduler.add(silent, interval=0.0)
    scheduler.start()
    try:
        eventually(
            lambda: sum(job.started.is_set() for job in silent) == MAX_UNRELIABLE_RUNS, "the maximum number of runs"
        )
        reliable = Reliable("reliable", FakeClock())
        scheduler.add([reliable], interval=0.0)
        eventually(lambda: reliable.runs, "the run of the reliable job")
        assert sum(job.started.is_set() for job in silent) == MAX_UNRELIABLE_RUNS
    finally:
        scheduler.stop()
        over.set()


def test_silent_account_runs_when_another_ends() -> None:
    over = threading.Event()
    silent = [Silent(over) for _ in range(MAX_UNRELIABLE_RUNS + 1)]
    scheduler = Scheduler(SystemClock())
    scheduler.add(silent, interval=0.0)
    scheduler.start()
    try:
        eventually(
            lambda: sum(job.started.is_set() for job in silent) == MAX_UNRELIABLE_RUNS, "the maximum number of runs"
        )
        over.set()
        eventually(lambda: all(job.started.is_set() for job in silent), "the last run")
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
