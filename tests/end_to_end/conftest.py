from collections.abc import Iterator

import pytest

from exporter.simulator import Cloud, World, serve
from tests.program import Exporter, configuration, eventually, running

NOON = 1_790_000_000.0
"""The simulated world stands still here, so that everybody sees the same values."""

ODD_NAME = 'quotes " backslash \\ \\n newline\nemoji 🏰 Łódź <script>document.title="owned"</script>'


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    """A world in which something is the matter with many a lock."""
    world = World.demo(clock=lambda: NOON)
    home, hotel = world.account("home"), world.account("hotel")
    home.lock("Shed").rename(ODD_NAME)
    home.lock("Garage").override(state=2, doorState=2, isCharging=True)
    home.lock("Cellar").override(state=42, doorState=7)
    hotel.lock("Pool gate").override(state=3, stateChangeResult=1)
    hotel.lock("Annex").override(isConnected=False)
    hotel.lock("Room 101").override(batteryLevel=255)
    return Cloud(world, strict=True)


@pytest.fixture(scope="module")
def exporter(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """The program, with names."""
    accounts = [
        {"name": "home", "personal_key": "simulated-key-home"},
        {"name": "hotel", "personal_key": "simulated-key-hotel"},
    ]
    with serve(cloud) as address:
        path = configuration(tmp_path_factory.mktemp("exporter"), address.url, accounts)
        with running(f"--config.file={path}") as exporter:
            exporter.wait_until_ready()
            eventually(lambda: exporter.get("/metrics").text.count("\nlock_info{") == 18, "names of all locks")
            yield exporter
