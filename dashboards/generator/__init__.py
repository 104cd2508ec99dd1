"""The Grafana dashboards as code. What they say of codes and metrics comes from the exporter itself.

python -m dashboards.generator    # writes the JSON beside this folder
"""

from collections.abc import Iterator
from pathlib import Path

from . import detail, exporter, overview
from .board import Board

FOLDER = Path(__file__).parent.parent


def boards() -> Iterator[tuple[Path, Board]]:
    """Each dashboard and the file that holds it."""
    yield FOLDER / "locks-overview.json", overview.board()
    yield FOLDER / "lock-detail.json", detail.board()
    yield FOLDER / "exporter.json", exporter.board()
