"""Renders locks to compressed blocks of the exposition. What a sync did not change is not rendered again."""

from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest

from exporter.sync.snapshot import Lock

from .catalogue import LOCK_METRICS, Metric
from .collector import add_samples, empty_family, sample_lines
from .compression import CompressedBlock

BLOCK_SIZE = 512
"""Locks in a block. Their lines of one family are about 40 KiB. Larger blocks would not compress better: deflate
refers back at most 32 KiB."""
BATCH_SIZE = 64
"""Locks whose samples are in memory at the same time. A sample takes half a kilobyte, a line a tenth of it."""

AccountLock = tuple[str, Lock]
"""The name of an account, and one of its locks."""
LockLines = tuple[bytes, ...]
"""The lines of a lock, one for each of LOCK_METRICS; empty if the lock has no sample in the family."""


class RenderedLocks:
    """The lines of all locks. A lock is rendered again if it changed, and a block compressed again if a line did."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, int], tuple[Lock, LockLines]] = {}
        """By account and id of the lock."""
        self._blocks: dict[Metric[Lock], list[CompressedBlock]] = {metric: [] for metric in LOCK_METRICS}

    def update(self, locks: Sequence[AccountLock]) -> None:
        """Replace the locks."""
        known = self._lines
        keys = [(account, lock.id) for account, lock in locks]
        changed = {key: each for key, each in zip(keys, locks, strict=True) if known.get(key, (None,))[0] != each[1]}
        if not changed and [*known] == keys:
            return
        rendered = dict(zip(changed, render([*changed.values()]), strict=True))
        self._lines = {
            key: (lock, rendered[key]) if key in rendered else known[key]
            for key, (_, lock) in zip(keys, locks, strict=True)
        }
        for index, metric in enumerate(LOCK_METRICS):
            column = [rendered[index] for _, rendered in self._lines.values()]
            plain = [b"".join(column[start : start + BLOCK_SIZE]) for start in range(0, len(column), BLOCK_SIZE)]
            self._blocks[metric] = [
                before if before and before.plain == block else CompressedBlock.of(block)
                for block, before in zip_longest(plain, self._blocks[metric][: len(plain)])
            ]

    def blocks(self, metric: Metric[Lock]) -> list[CompressedBlock]:
        """Return the blocks of a family; none if no lock has a sample in it."""
        return [block for block in self._blocks[metric] if block.plain]


def render(locks: Sequence[AccountLock]) -> Iterator[LockLines]:
    """Yield the lines of each lock. Locks are rendered in batches, because samples take much more memory than lines."""
    for start in range(0, len(locks), BATCH_SIZE):
        batch = [((account, str(lock.id), lock.name), lock) for account, lock in locks[start : start + BATCH_SIZE]]
        columns = []
        for metric in LOCK_METRICS:
            family, counts = empty_family(metric), [0]
            for labels, lock in batch:
                add_samples(family, metric, labels, lock)
                counts.append(len(family.samples))
            lines = sample_lines(family)
            columns.append([b"".join(lines[first:last]) for first, last in pairwise(counts)])
        yield from zip(*columns, strict=True)
