"""Renders locks to compressed blocks of the exposition. What a sync did not change is not rendered again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
LockKey = tuple[str, int]
"""The name of an account, and the id of one of its locks."""
LockLines = bytes
"""The lines of a lock in each family of LOCK_METRICS, separated by NUL, which no line contains. The part of a family is
empty if the lock has no sample in it. As separate objects they would take 1.4 KiB more."""
_SEPARATOR = b"\0"


@dataclass(frozen=True, slots=True)
class LockGroup:
    """Consecutive locks: their lines, and a block of each family."""

    lines: Sequence[LockLines]
    """Of up to BLOCK_SIZE locks."""
    blocks: Sequence[CompressedBlock]
    """For each of LOCK_METRICS."""

    @classmethod
    def of(cls, lines: Sequence[LockLines], before: "LockGroup | None") -> "LockGroup":
        """Compress the lines of locks. The blocks of an earlier version are reused if they have the same lines."""
        if before and before.lines == lines:
            return before
        columns = zip(*(each.split(_SEPARATOR) for each in lines), strict=True)
        plain = [b"\n".join([*filter(None, column), b""]) for column in columns]
        known = before.blocks if before else [None] * len(plain)
        pairs = zip(plain, known, strict=True)
        return cls(lines, [old if old and old.plain == new else CompressedBlock.of(new) for new, old in pairs])


class RenderedLocks:
    """The lines of all locks. A lock is rendered again if it changed, and a block compressed again if a line did."""

    def __init__(self) -> None:
        self._lines: dict[LockKey, tuple[Lock, LockLines]] = {}
        self._groups: list[LockGroup] = []

    def update(self, locks: Sequence[AccountLock]) -> None:
        """Replace the locks, group by group, so that the lines of one group only are in memory in two versions."""
        known = self._lines
        keys = [(account, lock.id) for account, lock in locks]
        changed = {key: each for key, each in zip(keys, locks, strict=True) if known.get(key, (None,))[0] != each[1]}
        if not changed and [*known] == keys:
            return
        rendered = render([*changed.values()])
        self._lines = {}
        starts = range(0, len(locks), BLOCK_SIZE)
        for number, start in enumerate(starts):
            part = slice(start, start + BLOCK_SIZE)
            for key, (_, lock) in zip(keys[part], locks[part], strict=True):
                _, lines = known.pop(key, (None, b""))
                self._lines[key] = lock, next(rendered) if key in changed else lines
            before = self._groups[number] if number < len(self._groups) else None
            group = LockGroup.of([self._lines[key][1] for key in keys[part]], before)
            self._groups[number : number + 1] = [group]
        del self._groups[len(starts) :]

    def blocks(self, metric: Metric[Lock]) -> list[CompressedBlock]:
        """Return the blocks of a family; none if no lock has a sample in it."""
        index = LOCK_METRICS.index(metric)
        return [group.blocks[index] for group in self._groups if group.blocks[index].plain]


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
            columns.append([b"".join(lines[first:last]).removesuffix(b"\n") for first, last in pairwise(counts)])
        yield from map(_SEPARATOR.join, zip(*columns, strict=True))
