"""Lost if these fail: every scrape, to anybody who can open a connection and leave it at that."""

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
from tests.program import LONG_TEST, PATIENCE, Exporter, configuration, eventually, lock_values, running
from tests.security.web_files import HASH, PAIR, PASSWORD, WebFiles

NOON = 1_790_000_000.0
"""The simulated world stands still here, so that every scrape has the same locks."""
ACCOUNTS, LOCKS = 4, 500
"""Enough for an answer of megabytes: more than fits on its way to somebody who does not take it."""
FILES = 1024
"""That a service may open where nobody said how many, with systemd as in a shell."""
STALLED = 1_000
FLOOD = 5_000
ALLOWANCE = 512
"""Mebibytes that stalled connections may cost altogether: one for each that the exporter has at the same time."""
HOST = "127.0.0.1"
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0",
    "Accept-Encoding": "gzip",
    "Authorization": "Basic " + b64encode(f"prometheus:{PASSWORD}".encode()).decode(),
}
GET = b"GET /metrics HTTP/1.1\r\nHost: exporter\r\n\r\n"


@dataclass(frozen=True)
class Site:
    """A running exporter, and what its clients need to know."""

    exporter: Exporter
    port: int
    tls: ssl.SSLContext | None
    locks: str
    """The part of the exposition that must be the same in each scrape."""

    def __str__(self) -> str:
        return "https" if self.tls else "http"

    def connect(self) -> socket.socket:
        """A connection of somebody who takes in next to nothing; where there is TLS it has not begun."""
        connection = socket.socket()
        connection.settimeout(PATIENCE)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect((HOST, self.port))
        return connection

    def secured(self) -> socket.socket:
        """The same, ready for a request."""
        connection = self.connect()
        try:
            return self.tls.wrap_socket(connection, server_hostname=HOST) if self.tls else connection
        except OSError:
            connection.close()
            raise

    def files(self) -> int:
        """How many the exporter has open."""
        return len(os.listdir(f"/proc/{self.exporter.process.pid}/fd"))  # noqa: PTH208

    def mebibytes(self) -> int:
        """Of memory that the exporter uses, and the kernel for what is on its way from it."""
        pages = int(Path(f"/proc/{self.exporter.process.pid}/statm").read_text().split()[1])
        sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        unsent = sum(int(each[4][:8], 16) for each in sockets if each[1].endswith(f":{self.port:04X}"))
        return (pages * os.sysconf("SC_PAGESIZE") + unsent) // 2**20


class Scraper:
    """What scrapes as Prometheus does, and looks closely at what it gets."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._connection: HTTPConnection | None = None
        self.repeated = 0
        """Scrapes that had to be sent once more, since the connection was gone."""

    def scrape(self, *, afresh: bool) -> float:
        """One good answer, over a new connection where `afresh`; the seconds it took."""
        if afresh:
            self.close()
        began = time.perf_counter()
        try:
            body = self._answer()
        except (HTTPException, OSError):
            # The connection had to go, to make room: that may happen, but not twice in a row.
            self.close()
            self.repeated += 1
            body = self._answer()
        seconds = time.perf_counter() - began
        text = gzip.decompress(body).decode()
        assert locks_of(text) == self._site.locks
        assert text.endswith("\n# EOF\n")
        return seconds

    def text(self) -> str:
        """What it says, whatever that is."""
        return gzip.decompress(self._answer()).decode()

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def _answer(self) -> bytes:
        if not self._connection:
            address = (HOST, self._site.port)
            self._connection = (
                HTTPSConnection(*address, timeout=PATIENCE, context=self._site.tls)
                if self._site.tls
                else HTTPConnection(*address, timeout=PATIENCE)
            )
        self._connection.request("GET", "/metrics", headers=HEADERS)
        answer = self._connection.getresponse()
        body = answer.read()
        assert (answer.status, answer.headers["Content-Encoding"]) == (200, "gzip")
        return body


def locks_of(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if line.startswith("lock_"))


# The ways to stall, each a connection of somebody who leaves it at that


def silent(site: Site) -> socket.socket:
    return site.connect()


def greeting_only(site: Site) -> socket.socket:
    """TLS begun, with the client's hello, and never gone on with."""
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
not_taking_the_answer: Stall = partial(sending, GET)


def ways_not_to_ask(site: Site) -> list[Stall]:
    return [silent, half_a_line, half_the_headers, *([greeting_only] if site.tls else [])]


class Herd:
    """Stalled connections of all kinds, some of which still drip: a byte now and then, which never makes a request."""

    def __init__(self, site: Site, *ways: Stall) -> None:
        self._site = site
        self._ways = itertools.cycle(ways or (*ways_not_to_ask(site), not_taking_the_answer))
        self.connections: deque[socket.socket] = deque(maxlen=2 * STALLED)
        self._dripping: deque[socket.socket] = deque(maxlen=2 * STALLED)
        self._turn = threading.Lock()
        self._over = threading.Event()
        self._dripper = threading.Thread(target=self._drip, daemon=True)

    def __enter__(self) -> "Herd":
        self._dripper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._dripper.join()
        for connection in self.connections:
            connection.close()

    def grow(self, number: int) -> None:
        """Open so many more. The youngest may push out the oldest, which the exporter pushes out sooner."""
        for way in itertools.islice(self._ways, number):
            try:
                connection = way(self._site)
            except OSError:  # pushed out already
                continue
            with self._turn:
                if len(self.connections) == self.connections.maxlen:
                    self.connections.popleft().close()
                self.connections.append(connection)
                if way in {half_a_line, half_the_headers}:
                    self._dripping.append(connection)

    def ended(self) -> bool:
        """Whether the exporter has ended all of them."""
        with self._turn:
            return all(map(ended, self.connections))

    def _drip(self) -> None:
        while not self._over.wait(1.0):
            with self._turn:
                for connection in self._dripping:
                    with contextlib.suppress(OSError):
                        connection.sendall(b"a")


def ended(connection: socket.socket) -> bool:
    """Whether the other side has, once all that it had sent is read."""
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
    """How many files this process, and what it starts, may open; None for as many as it can have."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number or most, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@contextlib.contextmanager
def site(folder: Path, *, tls: bool, passwords: bool = False) -> Iterator[Site]:
    """An exporter of a fleet that stands still, and as many open files for its clients as they can have."""
    cloud = Cloud(World.of_size(ACCOUNTS, LOCKS, clock=lambda: NOON))
    accounts = [{"name": each.name, "personal_key": each.keys[0].value} for each in cloud.world.accounts]
    web, context = WebFiles(folder), None
    sections: dict[str, object] = {"basic_auth_users": {"prometheus": HASH}} if passwords else {}
    if tls:
        sections["tls_server_config"] = PAIR
        context = ssl.create_default_context()
        web.ca.configure_trust(context)
    web.write(**sections)
    with serve(cloud) as address, contextlib.ExitStack() as stack:
        settings = configuration(folder, address.url, accounts)
        with open_files(FILES):
            exporter = stack.enter_context(running(f"--config.file={settings}", f"--web.config.file={web.file}"))
        stack.enter_context(open_files(None))
        nothing_known = Site(exporter, exporter.port, context, locks="")
        locks = eventually(lambda: complete(nothing_known, cloud), "all locks and their names")
        yield Site(exporter, exporter.port, context, locks)
        assert not exporter.process.poll()
        assert not [line for line in exporter.log if "Traceback" in line or "level=error" in line]


def complete(site: Site, cloud: Cloud) -> str:
    """The locks' part of the exposition, once it has all that the cloud says."""
    with contextlib.closing(Scraper(site)) as scraper:
        text = scraper.text()
    if text.count("\nlock_info{") < ACCOUNTS * LOCKS:
        return ""
    answers = [row for each in cloud.world.accounts for row in cloud.last_result(each.name)]  # type: ignore[attr-defined]
    expected = lock_values(answers, [])
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
    """With TLS, and without passwords: everybody may ask for the large answer."""
    with site(tmp_path_factory.mktemp("secure"), tls=True) as secure:
        yield secure


@pytest.fixture(params=["plain", "secure"])
def either(request: pytest.FixtureRequest) -> Site:
    found: Site = request.getfixturevalue(request.param)
    return found


def test_answers_that_nobody_takes_are_not_kept_for_each(either: Site) -> None:
    before = either.mebibytes()
    with Herd(either, not_taking_the_answer) as herd, contextlib.closing(Scraper(either)) as scraper:
        herd.grow(STALLED)
        scraper.scrape(afresh=True)
        after = either.mebibytes()
    print(f"\n{either}: {before} MiB before, {after} MiB with {STALLED:,} answers that nobody takes")
    assert after < before + ALLOWANCE


def alternated(site: Site, *, rounds: int, scrapes: int) -> list[float]:
    """Scrapes with and without stalled connections in turn, so that the machine's moods meet both alike.

    Returns:
        how many times as long one takes with them, over new connections and over one that is kept.
    """
    quiet = site.files() + 8
    seconds: dict[tuple[bool, bool], list[float]] = defaultdict(list)
    with contextlib.closing(Scraper(site)) as scraper:
        for _ in range(rounds):
            for afresh in (True, False):
                seconds[False, afresh] += [scraper.scrape(afresh=afresh) for _ in range(scrapes)]
            with Herd(site) as herd:
                herd.grow(STALLED)
                for afresh in (True, False):
                    for _ in range(scrapes):
                        seconds[True, afresh].append(scraper.scrape(afresh=afresh))
                        # A new scrape takes the place of one that stalls.
                        herd.grow(1)
            eventually(lambda: site.files() <= quiet, "the exporter to notice that they are gone")
    ratios = []
    for afresh in (True, False):
        unloaded, stalled = (statistics.median(seconds[loaded, afresh]) for loaded in (False, True))
        ratios.append(stalled / unloaded)
        print(
            f"\n{site}, {'new connections' if afresh else 'a kept connection'}: median scrape "
            f"unloaded {unloaded * 1e3:.2f} ms, with {STALLED:,} stalled {stalled * 1e3:.2f} ms, ratio {ratios[-1]:.2f}"
        )
    return ratios


def test_a_thousand_stalled_connections_keep_no_scrape_from_its_answer(either: Site) -> None:
    alternated(either, rounds=1, scrapes=100)


@pytest.mark.soak
@pytest.mark.timeout(LONG_TEST)
def test_a_thousand_stalled_connections_do_not_make_scrapes_slow(either: Site) -> None:
    assert max(alternated(either, rounds=5, scrapes=200)) < 3


def test_who_does_not_come_to_the_end_of_a_request_is_shown_out(plain: Site, secure: Site) -> None:
    with Herd(plain, *ways_not_to_ask(plain)) as one, Herd(secure, *ways_not_to_ask(secure)) as two:
        one.grow(100)
        two.grow(100)
        assert len(one.connections) == len(two.connections) == 100
        eventually(lambda: one.ended() and two.ended(), "the exporters to end all of them")


@pytest.mark.soak
@pytest.mark.timeout(LONG_TEST)
def test_who_does_not_take_the_answer_is_shown_out(either: Site) -> None:
    before = either.files()
    with Herd(either, not_taking_the_answer) as herd:
        herd.grow(100)
        eventually(lambda: either.files() >= before + 100, "the exporter to have all of them")
        eventually(lambda: either.files() <= before, "the exporter to end all of them", 2 * PATIENCE)


@pytest.mark.parametrize("protected", [False, True], ids=["plain", "secure with passwords"])
def test_a_flood_of_connections_is_survived(tmp_path: Path, protected: bool) -> None:
    with site(tmp_path, tls=protected, passwords=protected) as flooded:
        before, files, scrapes = flooded.mebibytes(), 0, 0
        # As fast as possible: without the client's part of TLS, which costs it as much as it does the exporter.
        ways = [silent, greeting_only] if protected else []
        with Herd(flooded, *ways) as herd, contextlib.closing(Scraper(flooded)) as scraper:
            attack = threading.Thread(target=herd.grow, args=(FLOOD,), daemon=True)
            attack.start()
            while attack.is_alive() or scrapes < 100:
                scraper.scrape(afresh=scrapes % 2 == 0)
                scrapes += 1
                files = max(files, flooded.files())
            after = flooded.mebibytes()
            # Those who are still there do not hold up the end.
            assert flooded.exporter.stop() == 0
        print(
            f"\n{flooded}: {FLOOD:,} connections: {scrapes} scrapes, {scraper.repeated} of them repeated, "
            f"at most {files} open files, {before} MiB before, {after} MiB after"
        )
        assert files < FILES * 2 / 3
        assert after < before + ALLOWANCE
