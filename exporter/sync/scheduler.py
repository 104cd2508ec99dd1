"""The scheduler: runs any number of accounts on a bounded pool of threads."""

import threading
from collections.abc import Collection, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

import structlog

from exporter import background
from exporter.clock import Clock

log = structlog.get_logger(__name__)

MAX_WORKERS = 256
"""Maximum number of worker threads, which are started on demand. 1,000 accounts with responses in 0.5 s need 26."""
MAX_UNRELIABLE_RUNS = 192
"""Maximum number of simultaneous runs of unreliable jobs: accounts without responses must not delay the others."""
MAX_IDLE_WORKERS = 32
"""Maximum number of idle workers. Further ones end."""
MAX_STAGGER = 0.25
"""Maximum seconds between the first runs of two jobs."""
ERROR_DELAY = 60.0
"""Seconds until the next run of a job that raised an exception."""
MAX_SLEEP = 1.0
"""Maximum seconds for which a worker sleeps, because sleeping ignores the time for which the machine is suspended."""


class Job(Protocol):
    """Work that is run repeatedly, never twice at the same time."""

    @property
    def name(self) -> str:
        """Name in log lines."""
        ...

    def wait(self) -> float:
        """Return the seconds until the next run is due."""
        ...

    def run(self) -> None:
        """Do the work that is due."""
        ...

    def is_reliable(self) -> bool:
        """Return True if the last run succeeded, so that the next one is expected to end soon."""
        ...


ScheduledRun = tuple[float, int, bool, Job]
"""Due time in monotonic seconds, a number that orders runs with the same due time, `is_reliable()`, and the job."""


class Scheduler:
    """Runs each job when it is due, independently of the other jobs.

    A job is either scheduled or run by a worker, never both. Each worker takes the earliest run that is due.
    """

    def __init__(self, clock: Clock) -> None:
        """Create a scheduler without jobs.

        Args:
            clock: Clock for monotonic time.
        """
        self._clock = clock
        self._reliable: list[ScheduledRun] = []
        """Heap of the runs of reliable jobs."""
        self._unreliable: list[ScheduledRun] = []
        """Heap of the other runs."""
        self._jobs: set[Job] = set()
        self._numbers = count()
        self._workers = self._idle = self._unreliable_runs = 0
        self._running = False
        self._changed = threading.Condition()

    def add(self, jobs: Sequence[Job], *, interval: float) -> None:
        """Add jobs, and schedule their first runs.

        Args:
            jobs: One for each account.
            interval: Seconds between two runs of a job, over which the first runs are spread. A job whose `wait()` is
                longer runs later.
        """
        step = min(MAX_STAGGER, interval / max(1, len(jobs)))
        now = self._clock.monotonic()
        with self._changed:
            for index, job in enumerate(jobs):
                self._jobs.add(job)
                self._schedule(job, now + max(step * index, job.wait()), next(self._numbers))
            self._changed.notify_all()
            self._start_worker_if_none_is_idle()

    def reschedule(self, jobs: Collection[Job]) -> None:
        """Schedule jobs again, because their `wait()` has changed. A job that is running is scheduled after its run."""
        with self._changed:
            for _, number, _, job in self._unschedule(jobs):
                self._schedule(job, self._clock.monotonic() + job.wait(), number)
            self._changed.notify_all()

    def remove(self, jobs: Collection[Job]) -> None:
        """Remove jobs. Runs in progress are not interrupted."""
        with self._changed:
            self._jobs -= set(jobs)
            self._unschedule(jobs)

    def start(self) -> None:
        """Start running jobs. Workers are daemon threads: a call to Tedee does not delay the end of the process."""
        with self._changed:
            self._running = True
            self._start_worker_if_none_is_idle()

    def stop(self) -> None:
        """Stop starting runs."""
        with self._changed:
            self._running = False
            self._jobs.clear()
            self._reliable.clear()
            self._unreliable.clear()
            self._changed.notify_all()

    def next_due(self) -> float | None:
        """Return the due time in monotonic seconds of the earliest run; None if there is none."""
        with self._changed:
            return min((heap[0][0] for heap in self._eligible()), default=None)

    def run_due(self) -> None:
        """Run all jobs that are due on this thread, in the order in which they are due."""
        while run := self._pop_due():
            self._run(run)

    def _schedule(self, job: Job, due: float, number: int) -> None:
        is_reliable = job.is_reliable()
        heappush(self._reliable if is_reliable else self._unreliable, (due, number, is_reliable, job))

    def _unschedule(self, jobs: Collection[Job]) -> list[ScheduledRun]:
        """Remove the scheduled runs of jobs, and return them."""
        wanted = set(jobs)
        removed: list[ScheduledRun] = []
        for heap in (self._reliable, self._unreliable):
            removed += [run for run in heap if run[-1] in wanted]
            heap[:] = [run for run in heap if run[-1] not in wanted]
            heapify(heap)
        return removed

    def _eligible(self) -> list[list[ScheduledRun]]:
        """Return the heaps whose first run may start when it is due."""
        may_run_unreliable = self._unreliable_runs < MAX_UNRELIABLE_RUNS
        return [heap for heap in (self._reliable, self._unreliable if may_run_unreliable else []) if heap]

    def _start_worker_if_none_is_idle(self) -> None:
        """Start a worker, so that one is free for the next run however long the present ones take."""
        if self._running and not self._idle and self._workers < min(MAX_WORKERS, len(self._jobs)):
            self._workers += 1
            self._idle += 1
            background.start(self._work, name="sync")

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (run := self._pop_due()):
                    if not self._running or self._idle > MAX_IDLE_WORKERS:
                        self._idle -= 1
                        self._workers -= 1
                        return
                    due = self.next_due()
                    wait = MAX_SLEEP if due is None else due - self._clock.monotonic()
                    self._changed.wait(min(wait, MAX_SLEEP))
                self._idle -= 1
                self._start_worker_if_none_is_idle()
            self._run(run)
            with self._changed:
                self._idle += 1

    def _pop_due(self) -> ScheduledRun | None:
        with self._changed:
            heap = min(self._eligible(), key=lambda heap: heap[0], default=None)
            if not heap or heap[0][0] > self._clock.monotonic():
                return None
            run = heappop(heap)
            self._unreliable_runs += not run[2]
            return run

    def _run(self, run: ScheduledRun) -> None:
        _, number, was_reliable, job = run
        try:
            job.run()
            wait = job.wait()
        except Exception:
            log.exception("unhandled exception while syncing; please report this", account=job.name)
            wait = ERROR_DELAY
        with self._changed:
            self._unreliable_runs -= not was_reliable
            if job in self._jobs:
                self._schedule(job, self._clock.monotonic() + wait, number)
                self._changed.notify()
