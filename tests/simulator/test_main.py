"""The simulator as a program."""

import os
import signal
import subprocess
import sys

import pytest
import requests

from testing.program import TIMEOUT


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
