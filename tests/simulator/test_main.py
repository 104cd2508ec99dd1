"""The simulator as a program."""

import os
import re
import signal
import subprocess
import sys

import pytest
import requests

from exporter.simulator import World
from exporter.simulator.__main__ import override
from testing.program import ROOT, TIMEOUT


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_program_prints_url_and_keys(ending: signal.Signals) -> None:
    command = [sys.executable, "-u", "-m", "exporter.simulator", "--accounts", "2", "--locks", "3", "--strict"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as program:
        assert program.stdout is not None
        url, first, second = (program.stdout.readline().strip() for _ in range(3))
        response = requests.get(
            f"{url}/api/v37/my/lock/sync", headers={"Authorization": "PersonalKey key-account-0002"}, timeout=TIMEOUT
        )
        program.send_signal(ending)
        try:
            assert program.wait(timeout=TIMEOUT) == 0
        finally:
            program.kill()
    assert first == "account-0001: 3 locks, key key-account-0001"
    assert second == "account-0002: 3 locks, key key-account-0002"
    assert len(response.json()["result"]) == 3


def test_override_sets_a_field_of_a_device() -> None:
    world = World.demo()
    override(world, "1001:stateChangeResult=1")
    override(world, "1001:name=Side door")
    assert world.account("home").lock(1001).overrides == {"stateChangeResult": 1, "name": "Side door"}
    assert not world.account("home").lock(1002).overrides


def test_documented_overrides_are_valid() -> None:
    documented = re.findall(r"(?m)^--override (\S+)", (ROOT / "docs" / "installation.md").read_text("utf-8"))
    assert len(documented) == 4
    world = World.demo()
    for text in documented:
        override(world, text)


@pytest.mark.parametrize(
    ("text", "error"), [("1:state=2", "no device has this id"), ("1001", "not ID:FIELD=VALUE"), ("a:b=c", "not ID:")]
)
def test_invalid_override_is_reported(text: str, error: str) -> None:
    command = [sys.executable, "-m", "exporter.simulator", "--override", text]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert result.returncode == 2
    assert f"argument --override: {text}: {error}" in result.stderr
