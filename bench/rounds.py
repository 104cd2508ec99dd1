"""Rounds of measurements: each round measures every program once, and gives one ratio of each two."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Generic, TypeVar

LEAST, MOST = 4, 10
"""Numbers of rounds. Rounds after the least ones are measured only while the ratios differ too much."""
TOLERANCE = 1.2
"""The highest quotient of the medians of two halves of the rounds that agree."""

T = TypeVar("T")


def number(ratio: float) -> str:
    """Return a ratio as text."""
    if ratio >= 10:
        return f"{ratio:,.0f}"
    return f"{ratio:.2f}" if ratio >= 1 else f"{ratio:#.2g}"


@dataclass(frozen=True)
class Ratio:
    """The ratios of two results, one of each round."""

    rounds: Sequence[float]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    @property
    def agrees(self) -> bool:
        """True if the medians of the first and the second half of the rounds differ by at most a fifth."""
        half = len(self.rounds) // 2
        if not half:
            return False
        low, high = sorted([median(self.rounds[:half]), median(self.rounds[half:])])
        return high <= TOLERANCE * low

    @property
    def spread(self) -> str:
        """The median, the lowest and the highest ratio as text."""
        return f"{number(self.median)} ({number(min(self.rounds))} to {number(max(self.rounds))})"

    def __str__(self) -> str:
        doubt = "" if self.agrees else ", whose halves differ by more than a fifth"
        return f"{self.spread} in {len(self.rounds)} rounds{doubt}"


@dataclass
class Comparison(Generic[T]):
    """Rounds of measurements of several programs.

    The first program is compared with each of the others. There are enough rounds as soon as the ratios of `figure`
    agree, from `least` to `most`.
    """

    programs: Sequence[str]
    figure: Callable[[T], float]
    most: int = MOST
    least: int = LEAST
    rounds: list[dict[str, T]] = field(default_factory=list)

    def order(self) -> list[str]:
        """Return the programs in the order of the next round, which is the reverse of that of the last one."""
        return list(reversed(self.programs) if len(self.rounds) % 2 else self.programs)

    def add(self, measured: dict[str, T]) -> None:
        """Add a round."""
        self.rounds.append(measured)
        print(".", end="", flush=True, file=sys.stderr)

    def is_complete(self) -> bool:
        """Return True if there are enough rounds."""
        if len(self.rounds) >= self.most:
            return True
        first, *others = self.programs
        return len(self.rounds) >= self.least and all(self.ratio(first, other).agrees for other in others)

    def ratio(self, one: str, other: str, figure: Callable[[T], float] | None = None) -> Ratio:
        """Return the ratio of one program's figure to that of another."""
        figure = figure or self.figure
        return Ratio([figure(each[one]) / figure(each[other]) for each in self.rounds])

    def median(self, program: str, figure: Callable[[T], float] | None = None) -> float:
        """Return the median of a program's figure."""
        figure = figure or self.figure
        return median(figure(each[program]) for each in self.rounds)
