"""Converts metric families to lines of text. prometheus_client writes them."""

from collections.abc import Iterable

from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector


class FamilyCollector(Collector):
    """Collector of given families, which is what prometheus_client's encoders take."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        """Return the families."""
        return self._families


def sample_lines(family: Family) -> list[bytes]:
    """Return a line for each sample of a family, including the newline. It is the same in both formats."""
    # splitlines() would also split at characters that are not escaped in label values. The first two lines are HELP
    # and TYPE.
    return [line + b"\n" for line in generate_latest(FamilyCollector([family])).split(b"\n")[2:-1]]
