"""Families to lines, as prometheus_client writes them."""

from collections.abc import Iterable

from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector


class Families(Collector):
    """Families that exist already, as the collector that encoders ask for."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        """The families."""
        return self._families


def sample_lines(family: Family) -> list[bytes]:
    """A line for each sample of a family, the newline included. Both formats write a sample the same way."""
    # Not splitlines: of all that may end a line, only the newline is escaped in a label's value. The first two are
    # HELP and TYPE.
    return [line + b"\n" for line in generate_latest(Families([family])).split(b"\n")[2:-1]]
