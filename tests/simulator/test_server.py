"""The HTTP server of the simulator: port, shutdown, logging and IPv6."""

import logging
import threading
from time import sleep

import pytest
import requests

from exporter.simulator import Cloud, World, serve
from testing.faults import Fault, FaultyCloud
from testing.program import TIMEOUT

from .conftest import Served


def test_port_in_use_raises_oserror(served: Served) -> None:
    port = int(served.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="in use"), serve(served.cloud, port=port):
        pass


def test_port_is_released_at_the_end() -> None:
    cloud = Cloud(World.demo())
    with serve(cloud) as first:
        requests.get(first.url, timeout=TIMEOUT)
    with pytest.raises(requests.ConnectionError):
        requests.get(first.url, timeout=TIMEOUT)
    with serve(cloud, port=first.port) as second:
        assert requests.get(second.url, timeout=TIMEOUT).status_code == 404


def test_shutdown_does_not_wait_for_calls_in_progress(caplog: pytest.LogCaptureFixture) -> None:
    cloud = FaultyCloud(World.demo())
    cloud.faults.script(Fault.silence(), Fault.delayed(60), Fault.drip(1, 60))
    given_up: list[Exception] = []

    def call(url: str) -> None:
        try:
            requests.get(f"{url}/api/v37/my/lock", timeout=TIMEOUT)
        except requests.RequestException as error:
            given_up.append(error)

    with serve(cloud) as address:
        clients = [threading.Thread(target=call, args=[address.url]) for _ in range(3)]
        for client in clients:
            client.start()
        while len(cloud.calls) < 3:
            sleep(0.005)
    for client in clients:
        client.join()
    assert len(given_up) == 3
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_server_does_not_change_loggers() -> None:
    names = ("uvicorn", "uvicorn.error", "uvicorn.access")
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in map(logging.getLogger, names)]
    with serve(Cloud(World.demo())) as address:
        requests.get(address.url, timeout=TIMEOUT)
    after = [(logger.handlers[:], logger.level, logger.propagate) for logger in map(logging.getLogger, names)]
    assert after == before


def test_server_supports_ipv6() -> None:
    try:
        with serve(Cloud(World.demo()), host="::1") as address:
            assert requests.get(address.url, timeout=TIMEOUT).status_code == 404
    except OSError as error:
        if isinstance(error, requests.RequestException):
            raise
        pytest.skip("no IPv6 here")
