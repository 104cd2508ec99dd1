"""Renders locks to compressed blocks of the exposition. Locks that a sync did not change are not rendered again."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, filterfalse, islice, pairwise, zip_longest

from exporter.sync.snapshot import Lock

from .catalogue import LOCK_METRICS
from .collector import family, lock_families
from .compression import CompressedBlock
from .lines import sample_lines

CHUNK_SIZE = 512
"""Locks in a chunk. Their lines of one family are about 40 KiB. Larger chunks would not compress better: deflate
refers back at most 32 KiB."""
BATCH_SIZE = 64
"""Locks whose samples are in memory at the same time. A lock has ten samples of half a kilobyte each."""

AccountLock = tuple[str, Lock]
"""The name of an account, and one of its locks."""

LockKey = tuple[str, int]
"""The name of an account, and the id of one of its locks."""

LockLines = Sequence[bytes]
"""The line of a lock for each of LOCK_METRICS. It is empty if the lock has no sample."""

_COLUMNS = {family(metric).name: index for index, metric in enumerate(LOCK_METRICS)}


@dataclass(frozen=True, slots=True)
class Column:
    """The lines of one metric family for the locks of a chunk, compressed together."""

    block: CompressedBlock
    """The lines of all locks. They are most of the memory that a lock takes, and are stored only here."""
    ends: "array[int]"
    """The offset at which the line of each lock ends. It equals the previous one if the lock has no line."""

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> "Column":
        """Join and compress lines."""
        lines = list(lines)
        return cls(CompressedBlock.of(b"".join(lines)), array("I", accumulate(map(len, lines))))

    def lines(self) -> list[bytes]:
        """Return the line of each lock."""
        return [self.block.plain[start:end] for start, end in pairwise((0, *self.ends))]

    def with_lines(self, lines: Mapping[int, bytes]) -> "Column":
        """Return the column with other lines at the given indices, or the same column if they are equal."""
        if all(self._line(index) == line for index, line in lines.items()):
            return self
        return Column.of(lines.get(index, line) for index, line in enumerate(self.lines()))

    def _line(self, index: int) -> bytes:
        return self.block.plain[self.ends[index - 1] if index else 0 : self.ends[index]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Up to CHUNK_SIZE consecutive locks, with their rendered lines in one column per metric."""

    locks: tuple[AccountLock, ...]
    columns: tuple[Column, ...]
    """One for each of LOCK_METRICS."""

    @classmethod
    def of(cls, locks: tuple[AccountLock, ...], lines: Iterable[LockLines]) -> "Chunk":
        """Return a chunk of locks with these lines."""
        return cls(locks, tuple(map(Column.of, zip(*lines, strict=True))))

    def lines(self) -> Iterator[LockLines]:
        """Return the lines of each lock."""
        return zip(*(column.lines() for column in self.columns), strict=True)

    def changed(self, locks: Sequence[AccountLock]) -> list[int] | None:
        """Return the indices of locks that differ from the locks here, or None if the ids differ."""
        if len(locks) != len(self.locks):
            return None
        changed = [index for index, (lock, known) in enumerate(zip(locks, self.locks, strict=True)) if lock != known]
        return changed if all(_key(locks[index]) == _key(self.locks[index]) for index in changed) else None

    def with_lines(self, locks: tuple[AccountLock, ...], lines: Mapping[int, LockLines]) -> "Chunk":
        """Return the chunk with the new values of its locks, and with other lines at the given indices."""
        if not lines:
            return self
        columns = (
            column.with_lines({index: each[number] for index, each in lines.items()})
            for number, column in enumerate(self.columns)
        )
        return Chunk(locks, tuple(columns))


def build_chunks(locks: Sequence[AccountLock], previous: Sequence[Chunk]) -> list[Chunk]:
    """Divide locks into chunks, and render only the locks that are not equal to a lock of the previous chunks.

    If a chunk has the same locks as the previous chunk at its position, that chunk is updated. Locks that moved to
    another position are found by their key.
    """
    groups = [tuple(locks[start : start + CHUNK_SIZE]) for start in range(0, len(locks), CHUNK_SIZE)]
    updates = [
        (group, chunk, chunk.changed(group) if chunk else None)
        for group, chunk in zip_longest(groups, previous, fillvalue=())
    ]
    moved = {
        _key(lock): (lock, lines)
        for _, chunk, changed in updates
        if chunk and changed is None
        for lock, lines in zip(chunk.locks, chunk.lines(), strict=True)
    }

    def moved_lines(lock: AccountLock) -> LockLines | None:
        known, lines = moved.get(_key(lock), (None, None))
        return lines if known == lock else None

    # Renders the locks in the order in which the chunks below request their lines.
    rendered = _render(
        lock
        for group, _, changed in updates
        for lock in (filterfalse(moved_lines, group) if changed is None else (group[index] for index in changed))
    )
    return [
        Chunk.of(group, (moved_lines(lock) or next(rendered) for lock in group))
        if changed is None or not chunk
        else chunk.with_lines(group, {index: next(rendered) for index in changed})
        for group, chunk, changed in updates
        if group
    ]


def _key(account_lock: AccountLock) -> LockKey:
    account, lock = account_lock
    return account, lock.id


def _render(locks: Iterable[AccountLock]) -> Iterator[LockLines]:
    """Yield the lines of each lock. Locks are rendered in batches, because samples take much more memory than lines."""
    locks = iter(locks)
    while batch := list(islice(locks, BATCH_SIZE)):
        lines = {_key(lock): [b""] * len(LOCK_METRICS) for lock in batch}
        for each in lock_families(batch):
            for sample, line in zip(each.samples, sample_lines(each), strict=True):
                key = sample.labels["account"], int(sample.labels["lock_id"])
                lines[key][_COLUMNS[each.name]] = line
        yield from lines.values()
