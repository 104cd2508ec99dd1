"""Generator of the Grafana dashboards. Metric names, and the texts and severities of codes, come from the exporter.

python -m dashboards.generator    # writes the JSON files to dashboards/
"""

from collections.abc import Iterator
from pathlib import Path

from . import detail, devices, exporter, overview
from .dashboard import Dashboard

FOLDER = Path(__file__).parent.parent


def dashboards() -> Iterator[tuple[Path, Dashboard]]:
    """Yield the file and the definition of each dashboard."""
    yield FOLDER / "locks-overview.json", overview.dashboard()
    yield FOLDER / "lock-detail.json", detail.dashboard()
    yield FOLDER / "devices.json", devices.dashboard()
    yield FOLDER / "exporter.json", exporter.dashboard()
