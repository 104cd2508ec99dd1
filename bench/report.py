"""The results of the benchmark as Markdown."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Goal(NamedTuple):
    """A goal of the project, and the result."""

    measurement: str
    goal: str
    result: str
    reached: bool


class Part:
    """The results of one part of the benchmark."""

    def goals(self) -> Iterable[Goal]:
        """Return the goals of the part."""
        return ()

    def results(self) -> Iterable[tuple[str, str]]:
        """Return all other measurements and results."""
        return ()

    def details(self) -> str:
        """Return Markdown for the end of the report."""
        return ""


def report(parts: Iterable[Part]) -> str:
    """Return the goals of the parts, all other results, and the details."""
    parts = list(parts)
    goals = [
        [measurement, goal, result, "" if reached else "**missed**"]
        for part in parts
        for measurement, goal, result, reached in part.goals()
    ]
    results = [row for part in parts for row in part.results()]
    sections = [
        table(["measurement", "goal", "result", ""], goals) if goals else "",
        table(["measurement", "result"], results) if results else "",
        *(part.details() for part in parts),
    ]
    return "\n".join(filter(None, sections))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
