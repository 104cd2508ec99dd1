from collections.abc import Iterator
from typing import Any

import pytest

from exporter.simulator import Address, World, serve
from testing.faults import FaultyCloud

HOME: dict[str, Any] = {"name": "home", "personal_key": "simulated-key-home"}
HOTEL: dict[str, Any] = {"name": "hotel", "personal_key": "simulated-key-hotel"}


@pytest.fixture
def cloud() -> FaultyCloud:
    """A simulated cloud with the demo's locks that rejects calls above Tedee's limits."""
    return FaultyCloud(World.demo(), strict=True)


@pytest.fixture
def address(cloud: FaultyCloud) -> Iterator[Address]:
    with serve(cloud) as address:
        yield address
