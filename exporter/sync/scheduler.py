"""One clock, a bounded pool of workers, any number of accounts."""

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
"""Turns under way at once. Workers are started when they are needed: 1,000 accounts with responses in 0.5 s take 26."""
MAX_UNRELIABLE = 192
"""Of these, turns of jobs of which it is not known whether they end soon: silent accounts must not delay the others."""
MAX_IDLE = 32
"""Workers that wait for the next turn; more of them end."""
MAX_STAGGER = 0.25
"""Seconds between the first turns of two accounts: few accounts start at once or nearly so."""
ERROR_DELAY = 60.0
"""Seconds until the next turn of an account whose turn ended in an error that it should not have let out."""
MAX_SLEEP = 1.0
"""Seconds a worker sleeps at most, since sleep does not notice that the machine was suspended."""


class Job(Protocol):
    """Something to be done turn by turn, never two turns of it at once."""

    @property
    def name(self) -> str:
        """What log lines call it."""
        ...

    def wait(self) -> float:
        """Seconds until the next turn is due."""
        ...

    def run(self) -> None:
        """Do what is due."""
        ...

    def is_reliable(self) -> bool:
        """Return True if the last turn went well, so that the next one may be expected to end soon."""
        ...


Planned = tuple[float, int, bool, Job]
"""When a turn is due (monotonic seconds), a number that orders turns due at once, is the job reliable, and the job."""


class Scheduler:
    """Runs the turns of each job on time, whatever the other jobs do.

    A job is either planned or run by a worker, never both. Each worker runs the earliest turn that is due.
    """

    def __init__(self, clock: Clock) -> None:
        """Create a scheduler without jobs.

        Args:
            clock: For its monotonic seconds.
        """
        self._clock = clock
        self._reliable: list[Planned] = []
        self._unreliable: list[Planned] = []
        """Heaps."""
        self._jobs: set[Job] = set()
        self._numbers = count()
        self._workers = self._idle = self._unreliable_turns = 0
        self._running = False
        self._changed = threading.Condition()

    def add(self, jobs: Sequence[Job], *, interval: float) -> None:
        """Plan the first turns of jobs.

        Args:
            jobs: One per account.
            interval: Seconds between the turns of a job, over which the first turns are spread; a job that has to
                wait longer for its first turn does.
        """
        step = min(MAX_STAGGER, interval / max(1, len(jobs)))
        now = self._clock.monotonic()
        with self._changed:
            for index, job in enumerate(jobs):
                self._jobs.add(job)
                self._plan(job, now + max(step * index, job.wait()), next(self._numbers))
            self._changed.notify_all()
            self._start_worker_if_none_is_idle()

    def replan(self, jobs: Collection[Job]) -> None:
        """Ask jobs again how long they wait. One whose turn is under way is asked after it."""
        with self._changed:
            for _, number, _, job in self._withdraw(jobs):
                self._plan(job, self._clock.monotonic() + job.wait(), number)
            self._changed.notify_all()

    def remove(self, jobs: Collection[Job]) -> None:
        """Plan no more turns of jobs. A turn that is under way is not interrupted."""
        with self._changed:
            self._jobs -= set(jobs)
            self._withdraw(jobs)

    def start(self) -> None:
        """Start working. Workers are daemons: a call to Tedee under way does not delay the end of the process."""
        with self._changed:
            self._running = True
            self._start_worker_if_none_is_idle()

    def stop(self) -> None:
        """Begin no more turns."""
        with self._changed:
            self._running = False
            self._jobs.clear()
            self._reliable.clear()
            self._unreliable.clear()
            self._changed.notify_all()

    def next_due(self) -> float | None:
        """Return the monotonic seconds of the earliest turn that may be run, None if there is none."""
        with self._changed:
            return min((planned[0][0] for planned in self._eligible()), default=None)

    def run_due(self) -> None:
        """Run the turn of every job that is due, here and now, in the order in which they are due."""
        while planned := self._take():
            self._run(planned)

    def _plan(self, job: Job, due: float, number: int) -> None:
        is_reliable = job.is_reliable()
        heappush(self._reliable if is_reliable else self._unreliable, (due, number, is_reliable, job))

    def _withdraw(self, jobs: Collection[Job]) -> list[Planned]:
        """Remove the planned turns of jobs, and return them."""
        wanted = set(jobs)
        withdrawn: list[Planned] = []
        for planned in (self._reliable, self._unreliable):
            withdrawn += [entry for entry in planned if entry[-1] in wanted]
            planned[:] = [entry for entry in planned if entry[-1] not in wanted]
            heapify(planned)
        return withdrawn

    def _eligible(self) -> list[list[Planned]]:
        """Return the heaps whose first turn may be run when it is due."""
        may_run_unreliable = self._unreliable_turns < MAX_UNRELIABLE
        return [planned for planned in (self._reliable, self._unreliable if may_run_unreliable else []) if planned]

    def _start_worker_if_none_is_idle(self) -> None:
        """Start a worker, so that there is one for the next turn however long those under way last."""
        if self._running and not self._idle and self._workers < min(MAX_WORKERS, len(self._jobs)):
            self._workers += 1
            self._idle += 1
            background.start(self._work, name="sync")

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (planned := self._take()):
                    if not self._running or self._idle > MAX_IDLE:
                        self._idle -= 1
                        self._workers -= 1
                        return
                    due = self.next_due()
                    wait = MAX_SLEEP if due is None else due - self._clock.monotonic()
                    self._changed.wait(min(wait, MAX_SLEEP))
                self._idle -= 1
                self._start_worker_if_none_is_idle()
            self._run(planned)
            with self._changed:
                self._idle += 1

    def _take(self) -> Planned | None:
        with self._changed:
            first = min(self._eligible(), key=lambda planned: planned[0], default=None)
            if not first or first[0][0] > self._clock.monotonic():
                return None
            planned = heappop(first)
            self._unreliable_turns += not planned[2]
            return planned

    def _run(self, planned: Planned) -> None:
        _, number, was_reliable, job = planned
        try:
            job.run()
            wait = job.wait()
        except Exception:
            log.exception("unhandled exception while syncing; please report this", account=job.name)
            wait = ERROR_DELAY
        with self._changed:
            self._unreliable_turns -= not was_reliable
            if job in self._jobs:
                self._plan(job, self._clock.monotonic() + wait, number)
                self._changed.notify()
