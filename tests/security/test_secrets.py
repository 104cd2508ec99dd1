"""Lost if these fail: the keys that open doors, to whoever reads a log, a scrape, a page or a disk."""

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
from exporter.simulator import TOKEN_PATH, Account, Cloud, Fault, Lock, PersonalKey, RefreshToken, Token, World, serve
from exporter.simulator.faults import EXAMPLES
from tests.cli.conftest import logging_put_back
from tests.program import PATIENCE, configuration, environment, eventually, free_port, run
from tests.security.leaking import PIECE, forms, leaks, state_files

__all__ = ["logging_put_back"]

FORMS: tuple[logs.Format, ...] = ("logfmt", "json")

FAULTS: Mapping[str, Fault | None] = {
    "none": None,
    **EXAMPLES,
    **{str(status): Fault.error(status) for status in (400, 401, 403, 404, 429, 503)},
    **{f"echo with {status}": Fault.echo(status) for status in (200, 400, 500)},
}

MISPLACED = "a key for the name of a file"


def secret(name: str) -> str:
    """One that is nobody else's, with all that is special about base64 in it."""
    return f"k+/{base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()}"


def jwt(name: str) -> str:
    """A token that says when it expires."""
    parts = ({"alg": "RS256"}, {"exp": 4_000_000_000, "sub": name}, {"signature": secret(name)})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


@dataclass
class Users:
    """Accounts of a simulated cloud, and of a configuration, and every secret that gives access to them."""

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

    def key_for_the_name_of_a_file(self, account: Account) -> dict[str, Any]:
        return {"personal_key_file": self.personal_key(account)["personal_key"]}


KINDS: dict[str, tuple[Callable[[Users, Account], dict[str, Any]], str | None]] = {
    "personal key": (Users.personal_key, None),
    "personal key file": (Users.personal_key_file, None),
    "access token": (Users.access_token, None),
    "access token file": (Users.access_token_file, None),
    "oauth": (Users.oauth, "sync"),
    "oauth, refreshing": (Users.oauth, "token"),
    MISPLACED: (Users.key_for_the_name_of_a_file, None),
}
"""How an account gets at Tedee, and the endpoint whose calls go wrong."""


@dataclass
class Program:
    """The program, all that it writes to its streams, and all that it serves."""

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
        return requests.get(self.url + path, headers=headers, timeout=PATIENCE).content

    def reload(self) -> bytes:
        return requests.post(f"{self.url}/-/reload", timeout=PATIENCE).content

    def kernel(self) -> dict[str, bytes]:
        """What the kernel shows everybody of a process."""
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


def test_nothing_that_the_program_emits_holds_a_secret_whatever_goes_wrong(tmp_path: Path) -> None:
    # Both at once: the first syncs of so many accounts are spread over 20 seconds.
    with ThreadPoolExecutor() as pool:
        leaked = dict(zip(FORMS, pool.map(leaked_by_a_life, FORMS, map(tmp_path.joinpath, FORMS)), strict=True))
    assert leaked == {form: {} for form in FORMS}


def leaked_by_a_life(form: logs.Format, folder: Path) -> dict[str, set[str]]:
    """What leaks of a program with an account for each kind of credentials and each fault."""
    folder.mkdir()
    world = World([Account(f"{kind}: {fault}", [Lock(1, "Front door")]) for kind in KINDS for fault in FAULTS])
    cloud = Cloud(world)
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
        emitted = emitted_by_a_life(path, state, form, lambda: {call.account for call in cloud.calls} == expected)
    issued = {each.value for account in world.accounts for each in (*account.tokens, *account.refresh_tokens)}
    assert len(issued - users.secrets) > len(FAULTS)
    return leaks(emitted, users.secrets | issued)


def emitted_by_a_life(
    path: Path, state: Path, form: logs.Format, all_called: Callable[[], bool] = lambda: True
) -> dict[str, bytes]:
    """Return all that the program emits from its start over good and bad reloads to its end.

    It is ended after the first sync of every account, and not before `all_called` returns True.
    """
    flags = (f"--config.file={path}", f"--log.format={form}", "--log.level=debug")
    checked = run(*flags, "--config.check")
    emitted = {"--config.check": (checked.stdout + checked.stderr).encode()}
    with running(path.parent, *flags) as program:
        eventually(lambda: ready(program) and all_called(), "the first sync of every account", 4 * PATIENCE)
        emitted |= program.served() | program.kernel()
        emitted["reload"] = program.reload()
        good = path.read_text()
        path.write_text(f"{good}\nmisspelt: {good!r}\n")
        emitted["reload of a wrong file"] = program.reload()
        path.write_text(f"{good}\n  - name: 'no end\n")
        emitted["reload of a broken file"] = program.reload()
        emitted |= {f"{where}, later": content for where, content in program.served().items()}
        emitted |= {f"{where}, in use": content for where, content in state_files(state)}
        program.process.terminate()
        assert program.process.wait(PATIENCE) == 0
        emitted |= program.streams() | dict(state_files(state))
    assert b"debug" in emitted["stderr"]
    assert b"not reloaded" in emitted["reload of a wrong file"]
    assert b"not reloaded" in emitted["reload of a broken file"]
    return emitted


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("variable", ["TEDEE_PERSONAL_KEY", "TEDEE_ACCESS_TOKEN"])
@pytest.mark.parametrize("fault", ["none", "echo"])
def test_nothing_that_one_sync_emits_holds_a_secret_of_the_environment(
    tmp_path: Path, variable: str, form: logs.Format, fault: str
) -> None:
    value = jwt("home")
    account = Account("home", [Lock(1, "Front door")], keys=[PersonalKey(value)], tokens=[Token(value)])
    cloud = Cloud(World([account]))
    cloud.faults.script(FAULTS[fault], forever=True)
    state = tmp_path / "state.db"
    with serve(cloud) as address:
        variables: dict[str, Any] = {variable: value, "TEDEE_API_URL": address.url, "TEDEE_STATE_FILE": str(state)}
        ended = run("--sync.once", f"--log.format={form}", "--log.level=debug", **variables)
    assert ended.returncode == (0 if fault == "none" else 1)
    assert leaks({"streams": (ended.stdout + ended.stderr).encode(), **dict(state_files(state))}, {value}) == {}


# That the search finds what there is to find


def test_a_name_that_is_a_secret_is_found_wherever_names_are_emitted(tmp_path: Path) -> None:
    name = secret("planted")
    account = Account(name, [Lock(1, secret("lock"))], keys=[PersonalKey(name)])
    state = tmp_path / "state" / "state.db"
    with serve(Cloud(World([account]))) as address:
        accounts = [{"name": name, "personal_key": "another-key"}, {"name": "home", "personal_key": name}]
        path = configuration(tmp_path, address.url, accounts, state_file=str(state))
        emitted = emitted_by_a_life(path, state, "json")
    found = leaks(emitted, {name})
    assert found.keys() >= {"--config.check", "/metrics", "/metrics as OpenMetrics", "/", "stderr"}
    assert any(where.startswith("state.db") for where in found)
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
def test_a_planted_secret_is_found_in_every_form(write: Callable[[str], str], value: str) -> None:
    planted = f"ts=… level=debug msg=planted key={write(value)} logger=exporter".encode()
    assert leaks({"log": planted}, {value}) == {"log": {value}}
    assert leaks({"log": planted}, {secret("another")}) == {}


def test_no_form_is_so_short_that_it_stands_anywhere() -> None:
    assert min(len(form) for form in forms(secret("any"))) >= PIECE
