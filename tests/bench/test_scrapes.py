"""The benchmark of scrapes: it runs, and all servers serve the same metrics."""

import gzip
import re

import pytest
import requests

from bench import scrapes
from bench.cloud import OURS
from bench.machine import Options
from bench.scrapes import NGINX, SERVERS, Load, servers
from testing.program import TIMEOUT
from tests.conftest import require_program

LOAD = Load(3, 1, "OpenMetrics", "gzip")


@pytest.fixture(autouse=True)
def _required_programs() -> None:
    for program in ("nginx", "taskset", "wrk"):
        require_program(program)


def test_nginx_serves_the_same_bytes() -> None:
    with servers(LOAD.locks, Options()) as candidates:
        headers = {"Accept": scrapes.ACCEPTS[LOAD.format], "Accept-Encoding": "gzip"}
        sent = {}
        for server in candidates.values():
            response = requests.get(server.url(LOAD), headers=headers, stream=True, timeout=TIMEOUT)
            assert response.headers["Content-Encoding"] == "gzip"
            sent[server.name] = response.raw.read(decode_content=False)
        # The process metrics at the end change each second.
        locks = {name: re.findall(b"^.*lock_.*$", gzip.decompress(body), re.MULTILINE) for name, body in sent.items()}
        assert locks[NGINX] == locks[OURS]
        assert abs(len(sent[NGINX]) - len(sent[OURS])) < 100


def test_all_servers_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrapes, "SIZES", (LOAD.locks,))
    monkeypatch.setattr(scrapes, "CONNECTIONS", (LOAD.connections,))
    monkeypatch.setattr(scrapes, "ENCODINGS", {LOAD.encoding: scrapes.ENCODINGS[LOAD.encoding]})
    (measured,) = scrapes.measure(Options(rounds=1)).loads[LOAD].rounds
    assert set(measured) == set(SERVERS)
    for server in measured.values():
        assert 0 < server.p50 <= server.p99
        assert server.rate > 0
        assert server.processor_time > 0
