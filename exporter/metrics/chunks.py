"""Locks to pieces of the exposition, of which only those are made anew whose locks have changed."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, filterfalse, islice, pairwise, zip_longest

from exporter.sync.snapshot import Lock

from .catalogue import LOCK_METRICS
from .collector import family, lock_families
from .compression import CompressedBlock
from .lines import sample_lines

CHUNK = 512
"""Locks whose lines are compressed together: of each family some 40 KiB, and deflate looks back on 32."""
AT_ONCE = 64
"""Locks whose samples there are at the same time: each has ten, of half a kilobyte."""

Row = tuple[str, Lock]
"""A lock, and the name of its account."""

Key = tuple[str, int]
"""The name of an account, and the id of one of its locks."""

Lines = Sequence[bytes]
"""A lock's line of each of LOCK_METRICS, empty where it has none."""

_COLUMNS = {family(metric).name: index for index, metric in enumerate(LOCK_METRICS)}


@dataclass(frozen=True, slots=True)
class Column:
    """One family's lines of the locks of a chunk."""

    piece: CompressedBlock
    """All of them. They are most of what there is of a lock, and kept nowhere else."""
    ends: "array[int]"
    """Where in the piece each lock's line ends; where the one before it does, if it has none."""

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> "Column":
        """Put lines together, and compress them."""
        lines = list(lines)
        return cls(CompressedBlock.of(b"".join(lines)), array("I", accumulate(map(len, lines))))

    def lines(self) -> list[bytes]:
        """The line of each lock."""
        return [self.piece.plain[start:end] for start, end in pairwise((0, *self.ends))]

    def revised(self, changes: Mapping[int, bytes]) -> "Column":
        """With other lines, by their index; the same where they are the same."""
        if all(self._line(index) == line for index, line in changes.items()):
            return self
        return Column.of(changes.get(index, line) for index, line in enumerate(self.lines()))

    def _line(self, index: int) -> bytes:
        return self.piece.plain[self.ends[index - 1] if index else 0 : self.ends[index]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some locks, one after the other, and what is said of them."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    """Of each of LOCK_METRICS."""

    @classmethod
    def of(cls, rows: tuple[Row, ...], lines: Iterable[Lines]) -> "Chunk":
        """Put the lines of locks together."""
        return cls(rows, tuple(map(Column.of, zip(*lines, strict=True))))

    def lines(self) -> Iterator[Lines]:
        """The lines of each lock."""
        return zip(*(column.lines() for column in self.columns), strict=True)

    def changes(self, rows: Sequence[Row]) -> list[int] | None:
        """Where locks are not as they are here; None where they are others."""
        if len(rows) != len(self.rows):
            return None
        changes = [index for index, (row, known) in enumerate(zip(rows, self.rows, strict=True)) if row != known]
        return changes if all(_key(rows[index]) == _key(self.rows[index]) for index in changes) else None

    def revised(self, rows: tuple[Row, ...], changes: Mapping[int, Lines]) -> "Chunk":
        """The same locks, of which some have other lines."""
        if not changes:
            return self
        columns = (
            column.revised({index: lines[number] for index, lines in changes.items()})
            for number, column in enumerate(self.columns)
        )
        return Chunk(rows, tuple(columns))


def chunked(rows: Sequence[Row], before: Sequence[Chunk]) -> list[Chunk]:
    """Locks in chunks: what stands where it stood stays, and a lock that has not changed keeps its lines."""
    parts = [tuple(rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK)]
    places = [(part, old, old.changes(part) if old else None) for part, old in zip_longest(parts, before, fillvalue=())]
    moved = {
        _key(row): (row, lines)
        for _, old, changes in places
        if old and changes is None
        for row, lines in zip(old.rows, old.lines(), strict=True)
    }

    def known(row: Row) -> Lines | None:
        was, lines = moved.get(_key(row), (None, None))
        return lines if was == row else None

    new = _rendered(
        row
        for part, _, changes in places
        for row in (filterfalse(known, part) if changes is None else (part[index] for index in changes))
    )
    return [
        Chunk.of(part, (known(row) or next(new) for row in part))
        if changes is None or not old
        else old.revised(part, {index: next(new) for index in changes})
        for part, old, changes in places
        if part
    ]


def _key(row: Row) -> Key:
    account, lock = row
    return account, lock.id


def _rendered(rows: Iterable[Row]) -> Iterator[Lines]:
    """The lines of locks, one lock after the other: rendered as they are asked for, since samples are large."""
    rows = iter(rows)
    while some := list(islice(rows, AT_ONCE)):
        lines = {_key(row): [b""] * len(LOCK_METRICS) for row in some}
        for each in lock_families(some):
            for sample, line in zip(each.samples, sample_lines(each), strict=True):
                place = sample.labels["account"], int(sample.labels["lock_id"])
                lines[place][_COLUMNS[each.name]] = line
        yield from lines.values()
