"""Scrapes of the exporter while many stalled clients are connected."""

import contextlib
import gzip
import itertools
import os
import re
import resource
import socket
import ssl
import statistics
import threading
import time
from base64 import b64encode
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

import pytest

from exporter.simulator import Cloud, World, serve
from testing.program import LONG_TEST, TIMEOUT, Exporter, configuration, eventually, lock_values, running
from tests.security.web_files import HASH, PAIR, PASSWORD, WebFiles

NOON = 1_790_000_000.0
"""The time of the simulated world, which does not advance, so that every scrape has the same locks."""
ACCOUNTS, LOCKS = 4, 500
"""Enough for a response of megabytes, which does not fit into the buffers of the connection."""
FILES = 1024
"""The default limit of open files, of systemd and of a shell."""
STALLED = 1_000
FLOOD = 5_000
ALLOWANCE = 512
"""Mebibytes that all stalled connections may take: one for each of the exporter's maximum of 512 connections."""
HOST = "127.0.0.1"
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0",
    "Accept-Encoding": "gzip",
    "Authorization": "Basic " + b64encode(f"prometheus:{PASSWORD}".encode()).decode(),
}
GET = b"GET /metrics HTTP/1.1\r\nHost: exporter\r\n\r\n"


@dataclass(frozen=True)
class Site:
    """A running exporter, with what its clients need."""

    exporter: Exporter
    port: int
    tls: ssl.SSLContext | None
    locks: str
    """The sample lines of the locks, which must be the same in each scrape."""

    def __str__(self) -> str:
        return "https" if self.tls else "http"

    def connect(self) -> socket.socket:
        """Return a TCP connection with a small receive buffer."""
        connection = socket.socket()
        connection.settimeout(TIMEOUT)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect((HOST, self.port))
        return connection

    def secured(self) -> socket.socket:
        """Return a connection with a small receive buffer, after the TLS handshake if TLS is enabled."""
        connection = self.connect()
        try:
            return self.tls.wrap_socket(connection, server_hostname=HOST) if self.tls else connection
        except OSError:
            connection.close()
            raise

    def files(self) -> int:
        """Return the number of files that the exporter has open."""
        return len(os.listdir(f"/proc/{self.exporter.process.pid}/fd"))  # noqa: PTH208

    def mebibytes(self) -> int:
        """Return the memory of the exporter, and that of the kernel for its unsent data."""
        pages = int(Path(f"/proc/{self.exporter.process.pid}/statm").read_text().split()[1])
        sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        unsent = sum(int(each[4][:8], 16) for each in sockets if each[1].endswith(f":{self.port:04X}"))
        return (pages * os.sysconf("SC_PAGESIZE") + unsent) // 2**20


class Scraper:
    """Scrapes as Prometheus does, and checks the responses."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._connection: HTTPConnection | None = None
        self.repeated = 0
        """Scrapes that were sent again because the connection had been closed."""

    def scrape(self, *, reconnect: bool) -> float:
        """Scrape, over a new connection if `reconnect`. Returns the duration in seconds."""
        if reconnect:
            self.close()
        began = time.perf_counter()
        try:
            body = self._request()
        except (HTTPException, OSError):
            # The connection was closed to make room for another one. That may happen, but not twice in a row.
            self.close()
            self.repeated += 1
            body = self._request()
        seconds = time.perf_counter() - began
        text = gzip.decompress(body).decode()
        assert locks_of(text) == self._site.locks
        assert text.endswith("\n# EOF\n")
        return seconds

    def text(self) -> str:
        """Return the metrics without checks."""
        return gzip.decompress(self._request()).decode()

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def _request(self) -> bytes:
        if not self._connection:
            address = (HOST, self._site.port)
            self._connection = (
                HTTPSConnection(*address, timeout=TIMEOUT, context=self._site.tls)
                if self._site.tls
                else HTTPConnection(*address, timeout=TIMEOUT)
            )
        self._connection.request("GET", "/metrics", headers=HEADERS)
        response = self._connection.getresponse()
        body = response.read()
        assert (response.status, response.headers["Content-Encoding"]) == (200, "gzip")
        return body


def locks_of(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if line.startswith("lock_"))


# Ways to stall; each returns a connection on which nothing more is done


def silent(site: Site) -> socket.socket:
    return site.connect()


def client_hello_only(site: Site) -> socket.socket:
    """Start a TLS handshake and do not continue it."""
    assert site.tls
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        site.tls.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=HOST).do_handshake()
    connection = site.connect()
    connection.sendall(outgoing.read())
    return connection


def sending(request: bytes, site: Site) -> socket.socket:
    connection = site.secured()
    try:
        connection.sendall(request)
    except OSError:
        connection.close()
        raise
    return connection


Stall = Callable[[Site], socket.socket]
half_a_line: Stall = partial(sending, GET[:8])
half_the_headers: Stall = partial(sending, GET[:-2] + b"X-Reason: a")
not_reading: Stall = partial(sending, GET)


def incomplete_requests(site: Site) -> list[Stall]:
    return [silent, half_a_line, half_the_headers, *([client_hello_only] if site.tls else [])]


class StalledClients:
    """Stalled connections of all kinds. On some of them a byte is sent every second, without completing a request."""

    def __init__(self, site: Site, *ways: Stall) -> None:
        self._site = site
        self._ways = itertools.cycle(ways or (*incomplete_requests(site), not_reading))
        self.connections: deque[socket.socket] = deque(maxlen=2 * STALLED)
        self._dripping: deque[socket.socket] = deque(maxlen=2 * STALLED)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._dripping_thread = threading.Thread(target=self._drip, daemon=True)

    def __enter__(self) -> "StalledClients":
        self._dripping_thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._dripping_thread.join()
        for connection in self.connections:
            connection.close()

    def grow(self, number: int) -> None:
        """Open more connections. Beyond 2 * STALLED the oldest are closed; the exporter has evicted these before."""
        for way in itertools.islice(self._ways, number):
            try:
                connection = way(self._site)
            except OSError:  # evicted already
                continue
            with self._lock:
                if len(self.connections) == self.connections.maxlen:
                    self.connections.popleft().close()
                self.connections.append(connection)
                if way in {half_a_line, half_the_headers}:
                    self._dripping.append(connection)

    def all_closed(self) -> bool:
        """Return True if the exporter has closed all of them."""
        with self._lock:
            return all(map(is_closed, self.connections))

    def _drip(self) -> None:
        while not self._stopped.wait(1.0):
            with self._lock:
                for connection in self._dripping:
                    with contextlib.suppress(OSError):
                        connection.sendall(b"a")


def is_closed(connection: socket.socket) -> bool:
    """Return True if the server has closed the connection, after reading all that it sent."""
    connection.settimeout(0.01)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def open_files(number: int | None) -> Iterator[None]:
    """Limit the open files of this process and of its children; None for the hard limit."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number or most, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@contextlib.contextmanager
def site(folder: Path, *, tls: bool, passwords: bool = False) -> Iterator[Site]:
    """Run an exporter of many locks whose states do not change. Its clients may open as many files as possible."""
    cloud = Cloud(World.of_size(ACCOUNTS, LOCKS, clock=lambda: NOON))
    accounts = [{"name": each.name, "personal_key": each.keys[0].value} for each in cloud.world.accounts]
    web, context = WebFiles(folder), None
    sections: dict[str, object] = {"basic_auth_users": {"prometheus": HASH}} if passwords else {}
    if tls:
        sections["tls_server_config"] = PAIR
        context = web.client_context()
    web.write(**sections)
    with serve(cloud) as address, contextlib.ExitStack() as stack:
        settings = configuration(folder, address.url, accounts)
        with open_files(FILES):
            exporter = stack.enter_context(running(f"--config.file={settings}", f"--web.config.file={web.file}"))
        stack.enter_context(open_files(None))
        without_locks = Site(exporter, exporter.port, context, locks="")
        locks = eventually(lambda: complete_locks(without_locks, cloud), "all locks and their names")
        yield Site(exporter, exporter.port, context, locks)
        assert not exporter.process.poll()
        assert not [line for line in exporter.log if "Traceback" in line or "level=error" in line]


def complete_locks(site: Site, cloud: Cloud) -> str:
    """Return the sample lines of the locks, or an empty text if values or names are missing."""
    with contextlib.closing(Scraper(site)) as scraper:
        text = scraper.text()
    # Names and door sensors, which are labels of `lock_info`, are fetched after the first sync.
    has_sensors = re.findall(r"(?m)^tedee_last_response_timestamp_seconds{.*my/doorsensor", text)
    if text.count("\nlock_info{") < ACCOUNTS * LOCKS or len(has_sensors) < ACCOUNTS:
        return ""
    rows = [row for each in cloud.world.accounts for row in cloud.last_result(each.name)]  # type: ignore[attr-defined]
    expected = lock_values(rows, [])
    for metric in ("lock_state", "lock_battery_level", "lock_connected"):
        samples = re.findall(rf'^{metric}{{.*lock_id="(\d+)".*}} (.*)$', text, re.MULTILINE)
        assert {int(lock_id): float(value) for lock_id, value in samples} == expected[metric]
    return locks_of(text)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("plain"), tls=False) as plain:
        yield plain


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With TLS and without passwords, so that every client can request the large response."""
    with site(tmp_path_factory.mktemp("secure"), tls=True) as secure:
        yield secure


@pytest.fixture(params=["plain", "secure"])
def either(request: pytest.FixtureRequest) -> Site:
    found: Site = request.getfixturevalue(request.param)
    return found


def test_stalled_clients_share_the_response_body(either: Site) -> None:
    before = either.mebibytes()
    with StalledClients(either, not_reading) as clients, contextlib.closing(Scraper(either)) as scraper:
        clients.grow(STALLED)
        scraper.scrape(reconnect=True)
        after = either.mebibytes()
    print(f"\n{either}: {before} MiB before, {after} MiB with {STALLED:,} responses that no client reads")
    assert after < before + ALLOWANCE


def alternated(site: Site, *, rounds: int, scrapes: int) -> list[float]:
    """Scrape with and without stalled connections in turn, so that other load on the machine affects both alike.

    Returns:
        the duration of a scrape with them, relative to one without, over new connections and over a reused one.
    """
    quiet = site.files() + 8
    seconds: dict[tuple[bool, bool], list[float]] = defaultdict(list)
    with contextlib.closing(Scraper(site)) as scraper:
        for _ in range(rounds):
            for reconnect in (True, False):
                seconds[False, reconnect] += [scraper.scrape(reconnect=reconnect) for _ in range(scrapes)]
            with StalledClients(site) as clients:
                clients.grow(STALLED)
                for reconnect in (True, False):
                    for _ in range(scrapes):
                        seconds[True, reconnect].append(scraper.scrape(reconnect=reconnect))
                        # A new scrape evicts a stalled connection.
                        clients.grow(1)
            eventually(lambda: site.files() <= quiet, "the exporter to notice that they were closed")
    ratios = []
    for reconnect in (True, False):
        unloaded, stalled = (statistics.median(seconds[loaded, reconnect]) for loaded in (False, True))
        ratios.append(stalled / unloaded)
        print(
            f"\n{site}, {'new connections' if reconnect else 'a reused connection'}: median scrape "
            f"unloaded {unloaded * 1e3:.2f} ms, with {STALLED:,} stalled {stalled * 1e3:.2f} ms, ratio {ratios[-1]:.2f}"
        )
    return ratios


def test_scrapes_work_with_1000_stalled_connections(either: Site) -> None:
    alternated(either, rounds=1, scrapes=100)


@pytest.mark.soak
@pytest.mark.timeout(LONG_TEST)
def test_scrapes_stay_fast_with_stalled_connections(either: Site) -> None:
    assert max(alternated(either, rounds=5, scrapes=200)) < 3


def test_incomplete_requests_are_closed(plain: Site, secure: Site) -> None:
    with (
        StalledClients(plain, *incomplete_requests(plain)) as one,
        StalledClients(secure, *incomplete_requests(secure)) as two,
    ):
        one.grow(100)
        two.grow(100)
        assert len(one.connections) == len(two.connections) == 100
        eventually(lambda: one.all_closed() and two.all_closed(), "the exporters to close all of them")


@pytest.mark.soak
@pytest.mark.timeout(LONG_TEST)
def test_clients_that_do_not_read_are_closed(either: Site) -> None:
    before = either.files()
    with StalledClients(either, not_reading) as clients:
        clients.grow(100)
        eventually(lambda: either.files() >= before + 100, "the exporter to have all of them")
        eventually(lambda: either.files() <= before, "the exporter to close all of them", 2 * TIMEOUT)


@pytest.mark.parametrize("protected", [False, True], ids=["plain", "secure with passwords"])
def test_flood_of_connections_is_survived(tmp_path: Path, protected: bool) -> None:
    with site(tmp_path, tls=protected, passwords=protected) as flooded:
        before, files, scrapes = flooded.mebibytes(), 0, 0
        # Without complete TLS handshakes, which cost the client as much as the exporter, to be as fast as possible.
        ways = [silent, client_hello_only] if protected else []
        with StalledClients(flooded, *ways) as clients, contextlib.closing(Scraper(flooded)) as scraper:
            attack = threading.Thread(target=clients.grow, args=(FLOOD,), daemon=True)
            attack.start()
            while attack.is_alive() or scrapes < 100:
                scraper.scrape(reconnect=scrapes % 2 == 0)
                scrapes += 1
                files = max(files, flooded.files())
            after = flooded.mebibytes()
            # Connections that are still open do not delay the exit.
            assert flooded.exporter.stop() == 0
        print(
            f"\n{flooded}: {FLOOD:,} connections: {scrapes} scrapes, {scraper.repeated} of them repeated, "
            f"at most {files} open files, {before} MiB before, {after} MiB after"
        )
        assert files < FILES * 2 / 3
        assert after < before + ALLOWANCE
