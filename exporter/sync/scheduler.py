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

MOST_WORKERS = 32
"""Syncs under way at once. A worker mostly waits for the network; 32 carry 1,000 accounts that answer in 0.5 s."""
LONGEST_SPREAD = 0.25
"""Seconds between the first turns of two accounts: few accounts start at once or nearly so."""
AFTER_A_BUG = 60.0
"""Seconds until the next turn of an account whose turn ended in an error that it should not have let out."""
LONGEST_SLEEP = 1.0
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

    def turn(self) -> None:
        """Do what is due."""
        ...


class Scheduler:
    """Gives each job its turns, on time, whatever the other jobs do.

    The workers take the earliest due job from one heap; a job is in the heap or in a worker's hands, never both.
    """

    def __init__(self, clock: Clock) -> None:
        """Plan nothing yet.

        Args:
            clock: for its monotonic seconds.
        """
        self._clock = clock
        self._due: list[tuple[float, int, Job]] = []
        self._jobs: set[Job] = set()
        self._numbers = count()
        self._workers = 0
        self._running = False
        self._changed = threading.Condition()

    def add(self, jobs: Sequence[Job], *, interval: float) -> None:
        """Plan the first turns of jobs.

        Args:
            jobs: one an account.
            interval: seconds between the turns of a job, over which the first turns are spread; a job that has to
                wait longer for its first turn does.
        """
        step = min(LONGEST_SPREAD, interval / max(1, len(jobs)))
        now = self._clock.monotonic()
        with self._changed:
            for index, job in enumerate(jobs):
                self._jobs.add(job)
                heappush(self._due, (now + max(step * index, job.wait()), next(self._numbers), job))
            self._changed.notify_all()
            self._hire()

    def remove(self, jobs: Collection[Job]) -> None:
        """Give jobs no more turns. One that has a turn just now ends it."""
        with self._changed:
            self._jobs -= set(jobs)
            self._due = [entry for entry in self._due if entry[2] in self._jobs]
            heapify(self._due)

    def start(self) -> None:
        """Start the workers. They are daemons: a call to Tedee under way does not hold up the end of the process."""
        with self._changed:
            self._running = True
            self._hire()

    def stop(self) -> None:
        """Begin no more turns."""
        with self._changed:
            self._running = False
            self._jobs.clear()
            self._due.clear()
            self._changed.notify_all()

    def next_due(self) -> float | None:
        """Monotonic seconds of the earliest turn planned; None where there is none."""
        with self._changed:
            return self._due[0][0] if self._due else None

    def run_due(self) -> None:
        """Give every job that is due its turn, here and now, in the order in which they are due."""
        while entry := self._take():
            self._give_turn(entry)

    def _hire(self) -> None:
        while self._running and self._workers < min(MOST_WORKERS, len(self._jobs)):
            background.start(self._work, name=f"sync-{self._workers}")
            self._workers += 1

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (entry := self._take()):
                    if not self._running:
                        return
                    wait = self._due[0][0] - self._clock.monotonic() if self._due else LONGEST_SLEEP
                    self._changed.wait(min(wait, LONGEST_SLEEP))
            self._give_turn(entry)

    def _take(self) -> tuple[float, int, Job] | None:
        with self._changed:
            if not self._due or self._due[0][0] > self._clock.monotonic():
                return None
            return heappop(self._due)

    def _give_turn(self, entry: tuple[float, int, Job]) -> None:
        _, number, job = entry
        try:
            job.turn()
            wait = job.wait()
        except Exception:
            log.exception("a turn ended in a bug; please report it", account=job.name)
            wait = AFTER_A_BUG
        with self._changed:
            if job in self._jobs:
                heappush(self._due, (self._clock.monotonic() + wait, number, job))
                self._changed.notify()
