from collections.abc import Iterator
from typing import Any

import pytest

from exporter.simulator import TOKEN_PATH, Cloud, World, serve
from testing.program import Exporter, configuration, eventually, running

NOON = 1_790_000_000.0
"""The time of the simulated world, which does not advance, so that all clients see the same values."""

ODD_NAME = 'quotes " backslash \\ \\n newline\nemoji 🏰 Łódź <script>document.title="owned"</script>'


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    """A simulated cloud in which many locks have unusual states."""
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
    """The exporter, after it has received all devices and the first events."""
    folder = tmp_path_factory.mktemp("exporter")
    (folder / "token").write_text("simulated-refresh-hotel")
    with serve(cloud) as address:
        oauth = {"client_id": "a-client", "refresh_token_file": "token", "token_url": address.url + TOKEN_PATH}
        home: dict[str, Any] = {"name": "home", "personal_key": "simulated-key-home"}
        accounts = [home, {"name": "hotel", "oauth": oauth}]
        path = configuration(folder, address.url, accounts, events={"enabled": True})
        with running(f"--config.file={path}") as exporter:
            exporter.wait_until_ready()

            # The refresh token of the hotel lacks the scope for events.
            def is_complete() -> bool:
                text = exporter.get("/metrics").text
                return text.count("\nlock_info{") == 18 and text.count("\ntedee_last_response_timestamp_seconds{") == 5

            eventually(is_complete, "all devices and the first events")
            yield exporter
