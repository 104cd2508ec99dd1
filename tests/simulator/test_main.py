import os
import signal
import subprocess
import sys

import pytest
import requests

from tests.program import TIMEOUT


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_program_says_where_it_is_and_what_opens_it(ending: signal.Signals) -> None:
    command = [sys.executable, "-u", "-m", "exporter.simulator", "--accounts", "2", "--locks", "3", "--strict"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as program:
        assert program.stdout is not None
        url, first, second = (program.stdout.readline().strip() for _ in range(3))
        answer = requests.get(
            f"{url}/api/v37/my/lock/sync", headers={"Authorization": "PersonalKey key-account-0002"}, timeout=TIMEOUT
        )
        program.send_signal(ending)
        try:
            assert program.wait(timeout=TIMEOUT) == 0
        finally:
            program.kill()
    assert first == "account-0001: 3 locks, key key-account-0001"
    assert second == "account-0002: 3 locks, key key-account-0002"
    assert len(answer.json()["result"]) == 3
