"""No output of the program contains a secret: streams, pages, metrics, state files."""

import base64
import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from exporter import logs
from exporter.simulator import TOKEN_PATH, Account, Lock, PersonalKey, RefreshToken, Token, World, serve
from testing.faults import EXAMPLES, Fault, FaultyCloud
from testing.program import TIMEOUT, configuration, environment, eventually, free_port, run
from tests.cli.conftest import restore_logging
from tests.security.secret_search import PART_LENGTH, forms, leaks, state_files

__all__ = ["restore_logging"]

FORMS: tuple[logs.Format, ...] = ("logfmt", "json")

FAULTS: Mapping[str, Fault | None] = {
    "none": None,
    **EXAMPLES,
    **{str(status): Fault.error(status) for status in (400, 401, 403, 404, 429, 503)},
    **{f"echo with {status}": Fault.echo(status) for status in (200, 400, 500)},
}

MISPLACED = "key instead of a file name"


def secret(name: str) -> str:
    """Return a unique secret with the special characters of base64."""
    return f"k+/{base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()}"


def jwt(name: str) -> str:
    """Return a unique JSON Web Token with an expiry time."""
    parts = ({"alg": "RS256"}, {"exp": 4_000_000_000, "sub": name}, {"signature": secret(name)})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


@dataclass
class Users:
    """Accounts of a simulated cloud and of a configuration, with all their secrets."""

    folder: Path
    url: str = ""
    secrets: set[str] = field(default_factory=set)

    def file(self, name: str, content: str) -> str:
        path = self.folder / name
        path.write_text(f"{content}\n")
        path.chmod(0o600)
        return str(path)

    def secret(self, value: str) -> str:
        self.secrets.add(value)
        return value

    def personal_key(self, account: Account) -> dict[str, Any]:
        account.keys = [PersonalKey(self.secret(secret(account.name)))]
        return {"personal_key": account.keys[0].value}

    def personal_key_file(self, account: Account) -> dict[str, Any]:
        return {"personal_key_file": self.file(account.name, self.personal_key(account)["personal_key"])}

    def access_token(self, account: Account) -> dict[str, Any]:
        account.tokens = [Token(self.secret(jwt(account.name)))]
        return {"access_token": account.tokens[0].value}

    def access_token_file(self, account: Account) -> dict[str, Any]:
        return {"access_token_file": self.file(account.name, self.access_token(account)["access_token"])}

    def oauth(self, account: Account) -> dict[str, Any]:
        account.refresh_tokens = [RefreshToken(self.secret(jwt(f"refresh {account.name}")))]
        return {
            "oauth": {
                "client_id": "simulated-client",
                "client_secret_file": self.file(
                    f"{account.name}.client", self.secret(secret(f"client {account.name}"))
                ),
                "refresh_token_file": self.file(f"{account.name}.refresh", account.refresh_tokens[0].value),
                "token_url": self.url + TOKEN_PATH,
            }
        }

    def key_as_file_name(self, account: Account) -> dict[str, Any]:
        return {"personal_key_file": self.personal_key(account)["personal_key"]}


KINDS: dict[str, tuple[Callable[[Users, Account], dict[str, Any]], str | None]] = {
    "personal key": (Users.personal_key, None),
    "personal key file": (Users.personal_key_file, None),
    "access token": (Users.access_token, None),
    "access token file": (Users.access_token_file, None),
    "oauth": (Users.oauth, "sync"),
    "oauth, refreshing": (Users.oauth, "token"),
    MISPLACED: (Users.key_as_file_name, None),
}
"""Kinds of credentials, each with the endpoint whose calls fail. None for all endpoints."""


@dataclass
class Program:
    """Running program, with its streams and pages."""

    folder: Path
    process: subprocess.Popen[bytes]
    url: str

    def streams(self) -> dict[str, bytes]:
        return {name: (self.folder / name).read_bytes() for name in ("stdout", "stderr")}

    def served(self) -> dict[str, bytes]:
        openmetrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
        return {
            "/metrics as OpenMetrics": self.get("/metrics", **openmetrics),
            **{path: self.get(path) for path in ("/metrics", "/", "/docs", "/-/ready", "/-/healthy", "/no/such/page")},
        }

    def get(self, path: str, **headers: str) -> bytes:
        return requests.get(self.url + path, headers=headers, timeout=TIMEOUT).content

    def reload(self) -> bytes:
        return requests.post(f"{self.url}/-/reload", timeout=TIMEOUT).content

    def kernel(self) -> dict[str, bytes]:
        """Return what all users can read about a process."""
        folder = Path("/proc", str(self.process.pid))
        threads = [task / "comm" for task in (folder / "task").iterdir()]
        return {"cmdline": (folder / "cmdline").read_bytes(), "comm": b"\n".join(path.read_bytes() for path in threads)}


@contextlib.contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Program]:
    port = free_port()
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{port}", *arguments],
            env=environment(),
            stdout=stdout,
            stderr=stderr,
        )
        try:
            yield Program(folder, process, f"http://127.0.0.1:{port}")
        finally:
            process.kill()
            process.wait()


def ready(program: Program) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return b"is ready" in program.get("/-/ready")
    return False


def test_no_output_contains_a_secret_after_any_fault(tmp_path: Path) -> None:
    # Both at the same time: the first syncs of so many accounts are spread over 20 seconds.
    with ThreadPoolExecutor() as pool:
        leaked = dict(zip(FORMS, pool.map(leaked_by_run, FORMS, map(tmp_path.joinpath, FORMS)), strict=True))
    assert leaked == {form: {} for form in FORMS}


def leaked_by_run(form: logs.Format, folder: Path) -> dict[str, set[str]]:
    """Return the secrets that leak from a program with an account for each kind of credential and each fault."""
    folder.mkdir()
    world = World([Account(f"{kind}: {fault}", [Lock(1, "Front door")]) for kind in KINDS for fault in FAULTS])
    cloud = FaultyCloud(world)
    with serve(cloud) as address:
        users = Users(folder, address.url)
        accounts = []
        for account in world.accounts:
            kind, _, fault = account.name.partition(": ")
            enter, endpoint = KINDS[kind]
            accounts.append({"name": account.name, **enter(users, account)})
            cloud.faults.script(FAULTS[fault], account=account.name, endpoint=endpoint, forever=True)
        state = folder / "state" / "state.db"
        path = configuration(folder, address.url, accounts, api={"timeout": "5s"}, state_file=str(state))
        expected = {account.name for account in world.accounts if not account.name.startswith(MISPLACED)}
        # On a busy machine a first request can time out before the cloud reads it.
        emitted = emitted_by_run(path, state, form, lambda: {call.account for call in cloud.calls} == expected)
    issued = {each.value for account in world.accounts for each in (*account.tokens, *account.refresh_tokens)}
    assert len(issued - users.secrets) > len(FAULTS)
    return leaks(emitted, users.secrets | issued)


def emitted_by_run(
    path: Path, state: Path, form: logs.Format, all_called: Callable[[], bool] = lambda: True
) -> dict[str, bytes]:
    """Return all output of the program, from its start through valid and invalid reloads to its end.

    The program is stopped after the first sync of every account, and not before `all_called` returns True.
    """
    flags = (f"--config.file={path}", f"--log.format={form}", "--log.level=debug")
    checked = run(*flags, "--config.check")
    emitted = {"--config.check": (checked.stdout + checked.stderr).encode()}
    with running(path.parent, *flags) as program:
        eventually(lambda: ready(program) and all_called(), "the first sync of every account", 4 * TIMEOUT)
        emitted |= program.served() | program.kernel()
        emitted["reload"] = program.reload()
        valid = path.read_text()
        path.write_text(f"{valid}\nmisspelt: {valid!r}\n")
        emitted["reload of an invalid file"] = program.reload()
        path.write_text(f"{valid}\n  - name: 'no end\n")
        emitted["reload of a broken file"] = program.reload()
        emitted |= {f"{name}, later": content for name, content in program.served().items()}
        emitted |= {f"{name}, in use": content for name, content in state_files(state)}
        program.process.terminate()
        assert program.process.wait(TIMEOUT) == 0
        emitted |= program.streams() | dict(state_files(state))
    assert b"debug" in emitted["stderr"]
    assert b"not reloaded" in emitted["reload of an invalid file"]
    assert b"not reloaded" in emitted["reload of a broken file"]
    return emitted


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("variable", ["TEDEE_PERSONAL_KEY", "TEDEE_ACCESS_TOKEN"])
@pytest.mark.parametrize("fault", ["none", "echo"])
def test_sync_once_does_not_print_a_secret_variable(
    tmp_path: Path, variable: str, form: logs.Format, fault: str
) -> None:
    value = jwt("home")
    account = Account("home", [Lock(1, "Front door")], keys=[PersonalKey(value)], tokens=[Token(value)])
    cloud = FaultyCloud(World([account]))
    cloud.faults.script(FAULTS[fault], forever=True)
    state = tmp_path / "state.db"
    with serve(cloud) as address:
        variables: dict[str, Any] = {variable: value, "TEDEE_API_URL": address.url, "TEDEE_STATE_FILE": str(state)}
        ended = run("--sync.once", f"--log.format={form}", "--log.level=debug", **variables)
    assert ended.returncode == (0 if fault == "none" else 1)
    assert leaks({"streams": (ended.stdout + ended.stderr).encode(), **dict(state_files(state))}, {value}) == {}


# Tests of the search


def test_search_finds_a_secret_used_as_a_name(tmp_path: Path) -> None:
    name = secret("planted")
    account = Account(name, [Lock(1, secret("lock"))], keys=[PersonalKey(name)])
    state = tmp_path / "state" / "state.db"
    with serve(FaultyCloud(World([account]))) as address:
        accounts = [{"name": name, "personal_key": "another-key"}, {"name": "home", "personal_key": name}]
        path = configuration(tmp_path, address.url, accounts, state_file=str(state))
        emitted = emitted_by_run(path, state, "json")
    found = leaks(emitted, {name})
    assert found.keys() >= {"--config.check", "/metrics", "/metrics as OpenMetrics", "/", "stderr"}
    assert any(name.startswith("state.db") for name in found)
    assert "responses" in leaks(emitted, {secret("lock")})


@pytest.mark.parametrize(
    "write",
    [
        lambda value: value,
        lambda value: value[:40],
        lambda value: json.dumps({"key": value}),
        lambda value: f"{value.encode()!r}",
        lambda value: quote(f"https://user:{value}@host/?key={value}"),
        lambda value: base64.b64encode(value.encode()).decode(),
        lambda value: base64.b64encode(f"user:{value}".encode()).decode(),
        lambda value: base64.b64encode(f"a-user:{value}".encode()).decode(),
        lambda value: base64.urlsafe_b64encode(f"PersonalKey {value} and more".encode()).decode(),
        lambda value: f"PersonalKey {value}".encode().hex(),
        lambda value: f"{value.encode().hex().upper()}",
    ],
)
@pytest.mark.parametrize("value", [secret("planted"), jwt("planted")], ids=["key", "token"])
def test_search_finds_a_secret_in_every_encoding(write: Callable[[str], str], value: str) -> None:
    planted = f"ts=… level=debug msg=planted key={write(value)} logger=exporter".encode()
    assert leaks({"log": planted}, {value}) == {"log": {value}}
    assert leaks({"log": planted}, {secret("another")}) == {}


def test_every_searched_form_has_a_minimum_length() -> None:
    assert min(len(form) for form in forms(secret("any"))) >= PART_LENGTH
