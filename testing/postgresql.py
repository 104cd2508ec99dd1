"""PostgreSQL servers for the tests, as Debian packages them."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from .program import TIMEOUT, eventually, free_port


def programs() -> Path:
    """Return the folder of the server's programs, which Debian does not add to PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if folders:
        return folders[-1]
    found = shutil.which("initdb")
    assert found, "PostgreSQL is not installed: apt-get install postgresql"
    return Path(found).resolve().parent


UNPRIVILEGED = 65534
"""Id of the user who runs the servers if the tests run as root."""


class PostgreSQL:
    """A server on 127.0.0.1 with the database and superuser `tedee`."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        """Create a server without starting it.

        Args:
            folder: Folder of its data, which must be empty or not exist.
            port: Port; by default a free one.
        """
        self.folder = folder
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL for the superuser."""
        return f"postgresql://tedee@127.0.0.1:{self.port}/tedee"

    @property
    def pid(self) -> int:
        """Process id of the server, which is the parent of its other processes."""
        return self._require_process().pid

    def create(self) -> None:
        """Create the data of a new server."""
        self.run("initdb", "--username=tedee", "--auth=trust", "--no-sync", "--encoding=UTF8", str(self.folder))

    def copy_to(self, standby: "PostgreSQL") -> None:
        """Create the data of a standby that follows this server."""
        standby.run(
            "pg_basebackup", "--pgdata", str(standby.folder), "--write-recovery-conf", "--checkpoint=fast",
            "--host=127.0.0.1", f"--port={self.port}", "--username=tedee",
        )  # fmt: skip

    def start(self, **options: str) -> None:
        """Start the server, and wait until it accepts connections."""
        settings = {"port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": ""} | options
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [programs() / "postgres", "-D", self.folder, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **unprivileged(),
        )
        eventually(self._accepts_connections, "PostgreSQL to accept connections")

    def create_database(self) -> None:
        """Create the database `tedee`."""
        self.execute("CREATE DATABASE tedee", database="postgres")

    def execute(self, statement: str, *parameters: object, database: str = "tedee") -> list[tuple[Any, ...]]:
        """Run a statement as superuser, and return its rows."""
        url = f"postgresql://tedee@127.0.0.1:{self.port}/{database}"
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def promote(self) -> None:
        """Make a standby the primary server."""
        self.execute("SELECT pg_promote()")

    def stop(self) -> None:
        """Stop the server: connections are closed."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill all processes of the server, as a power failure does."""
        self._end(signal.SIGKILL)

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Stop all processes of the server for the time of the context, so that it does not respond."""
        processes = [self.pid, *self.backends()]
        for each in processes:
            os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGCONT)

    def backends(self) -> list[int]:
        """Return the ids of the server's child processes."""
        return [
            int(each) for children in Path(f"/proc/{self.pid}/task").glob("*/children")
            for each in children.read_text().split()
        ]  # fmt: skip

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL as an unprivileged user, which owns the data."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            for each in (self.folder.parent, *self.folder.parent.parents[:-2]):
                each.chmod(each.stat().st_mode | 0o011)
            shutil.chown(self.folder.parent, UNPRIVILEGED)
        subprocess.run(
            [programs() / program, *arguments], check=True, capture_output=True, timeout=TIMEOUT, **unprivileged()
        )

    def _accepts_connections(self) -> bool:
        try:
            self.execute("SELECT 1", database="postgres")
        except psycopg.OperationalError:
            assert self._require_process().poll() is None, "PostgreSQL ended"
            return False
        return True

    def _require_process(self) -> subprocess.Popen[bytes]:
        assert self._process, "PostgreSQL was not started"
        return self._process

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        # The children are in sessions of their own. Without the postmaster they would end a moment later.
        children = self.backends() if number == signal.SIGKILL else []
        self._process.send_signal(number)
        for each in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)
        self._process.wait(TIMEOUT)
        self._process = None


def unprivileged() -> dict[str, Any]:
    """Return the arguments of `subprocess` for another user than root, who must not run servers of databases."""
    return {"user": UNPRIVILEGED, "cwd": "/"} if os.getuid() == 0 else {}


@contextlib.contextmanager
def running_server(**options: str) -> Iterator[PostgreSQL]:
    """Run a server with an empty database for the time of the context."""
    with tempfile.TemporaryDirectory(prefix="tedee-postgresql-", ignore_cleanup_errors=True) as name:
        server = PostgreSQL(Path(name) / "server" / "data")
        server.create()
        server.start(**{"fsync": "off"} | options)
        try:
            server.create_database()
            yield server
        finally:
            server.kill()
