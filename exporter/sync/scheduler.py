"""One clock, a bounded pool of workers, any number of accounts."""

import threading
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol

import structlog

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

    def __init__(self, jobs: Sequence[Job], clock: Clock, *, interval: float) -> None:
        """Plan the first turns.

        Args:
            jobs: one an account.
            clock: for its monotonic seconds.
            interval: seconds between the turns of a job, over which the first turns are spread.
        """
        self._clock = clock
        step = min(LONGEST_SPREAD, interval / max(1, len(jobs)))
        start = clock.monotonic()
        self._due: list[tuple[float, int, Job]] = [(start + step * i, i, job) for i, job in enumerate(jobs)]
        heapify(self._due)
        self._changed = threading.Condition()
        self._stopped = False

    def start(self) -> None:
        """Start the workers. They are daemons: a call to Tedee under way does not hold up the end of the process."""
        for number in range(min(MOST_WORKERS, len(self._due))):
            threading.Thread(target=self._work, name=f"sync-{number}", daemon=True).start()

    def stop(self) -> None:
        """Begin no more turns."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def next_due(self) -> float:
        """Monotonic seconds of the earliest turn planned."""
        with self._changed:
            return self._due[0][0]

    def run_due(self) -> None:
        """Give every job that is due its turn, here and now, in the order in which they are due."""
        while entry := self._take():
            self._give_turn(entry)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (entry := self._take()):
                    if self._stopped:
                        return
                    wait = self._due[0][0] - self._clock.monotonic() if self._due else LONGEST_SLEEP
                    self._changed.wait(min(wait, LONGEST_SLEEP))
            self._give_turn(entry)

    def _take(self) -> tuple[float, int, Job] | None:
        with self._changed:
            if self._stopped or not self._due or self._due[0][0] > self._clock.monotonic():
                return None
            return heappop(self._due)

    def _give_turn(self, entry: tuple[float, int, Job]) -> None:
        _, number, job = entry
        try:
            # Ask again: what a job waits for may have moved since this turn was planned.
            if job.wait() <= 0:
                job.turn()
            wait = job.wait()
        except Exception:
            log.exception("a turn ended in a bug; please report it", account=job.name)
            wait = AFTER_A_BUG
        with self._changed:
            heappush(self._due, (self._clock.monotonic() + wait, number, job))
            self._changed.notify()
