"""Twenty minutes of random faults: limits hold, no account shows locks of another, and memory use is constant."""

import contextlib
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest
import requests
import yaml

from exporter.simulator import Account, Bridge, Lock, PersonalKey, World, serve
from testing.faults import Fault, FaultyCloud
from testing.program import TIMEOUT, Exporter, running

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

SECONDS = 1200.0
USERS = 30
FAULTY = 18
"""Users whose calls fail in all ways; those of the others succeed unless a test changes their keys."""
MIB = 2**20


def fault(rng: random.Random) -> Fault | None:
    """Return a random fault, or None."""
    status = rng.choice(
        [204, 206, 301, 302, 304, 400, 401, 403, 404, 406, 409, 421, 425, 429, 451, 500, 502, 503, 504, 599]
    )
    kinds: list[Callable[[], Fault | None]] = [
        lambda: None,
        lambda: None,
        lambda: Fault.error(status, "it failed"),
        lambda: Fault.error(status, "it failed", delay=rng.uniform(0, 9)),
        lambda: Fault.error(503, headers={"Retry-After": rng.choice(["0", "-1", "7", "2.5", "soon", "1000000000"])}),
        lambda: Fault.too_many_requests(rng.choice([None, 0, 1, 30, "Thu, 01 Jan 2015 00:00:00 GMT", "x"])),
        lambda: Fault.delayed(rng.uniform(0, 9.5)),
        lambda: Fault.delayed(rng.uniform(9.5, 12.0)),
        Fault.silence,
        Fault.reset,
        Fault.reset_mid_body,
        lambda: Fault.drip(rng.randint(1, 64), rng.uniform(0.001, 0.2)),
        Fault.malformed,
        lambda: Fault.json(rng.choice([None, [], {}, 7, "text", {"success": True}, {"result": [], "success": "yes"}])),
        lambda: Fault.result(rng.choice([None, "text", 7, {}, [None], [[]], [{}], [{"id": "1"}], [{"id": -1}]])),
        lambda: Fault.body(rng.randbytes(rng.randint(0, 100_000)), "application/json"),
        lambda: Fault.body(b"\xff\xfe\x00", "text/plain"),
        lambda: Fault.body(b"[" * 5_000, "application/json"),
        lambda: Fault.body(b" " * (17 * MIB), "application/json"),
        Fault.html,
        lambda: Fault.html(200),
        lambda: Fault.redirect("https://example.invalid/"),
        lambda: Fault.unsuccessful("no"),
        lambda: Fault.echo(rng.choice([200, 401, 500])),
        lambda: Fault.edit_rows(lambda rows: [*rows, *rows]),
        lambda: Fault.edit_rows(lambda rows: rows[:1]),
        lambda: Fault.edit_rows(lambda rows: [*rows, "not a lock", None, 7]),
        lambda: Fault.edit_rows(lambda rows: [{**row, "deviceState": None} for row in rows]),
        lambda: Fault.edit_rows(lambda rows: [{**row, "isConnected": "false"} for row in rows]),
        lambda: Fault.edit_rows(lambda rows: [{**row, "revision": rng.randint(0, 99)} for row in rows]),
        lambda: Fault.edit_rows(lambda rows: [{**row, "lockProperties": {"state": 300}} for row in rows]),
    ]
    return rng.choice(kinds)()


@dataclass
class Site:
    """The exporter's configuration, and the history of the keys of each account."""

    folder: Path
    url: str
    names: list[str] = field(default_factory=lambda: [f"account {number}" for number in range(USERS)])
    key_history: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    """By account: times in Unix seconds, and the user whose key the file had from then on."""

    @property
    def path(self) -> Path:
        return self.folder / "tedee-exporter.yml"

    @property
    def state(self) -> Path:
        return self.folder / "state.db"

    def key_file(self, number: int) -> Path:
        return self.folder / f"key {number}"

    def set_key(self, number: int, user: int, key: int) -> None:
        """Write a key of a user to the file of an account."""
        self._record(self.names[number], f"user {user}")
        self.key_file(number).write_text(key_of(user, key))
        self._record(self.names[number], f"user {user}")

    def rename(self, number: int, name: str) -> None:
        self.key_history[name] = [*self.key_history.get(name, []), *self.key_history.get(self.names[number], [])]
        self.names[number] = name
        self.write()

    def write(self) -> None:
        accounts = [
            {"name": name, "personal_key_file": str(self.key_file(number))} for number, name in enumerate(self.names)
        ]
        content = {"api": {"url": self.url}, "state_file": str(self.state), "accounts": accounts}
        new = self.path.with_suffix(".new")
        new.write_text(yaml.safe_dump(content))
        new.replace(self.path)

    def users(self, name: str, synced: float) -> set[str]:
        """Return the users whose keys the account may have used for the sync that succeeded at that time."""
        history = self.key_history[name]
        before = [at for at, _ in history if at <= synced - 15]
        since = max(before, default=0.0)
        return {user for at, user in history if since <= at <= synced + 1}

    def _record(self, name: str, user: str) -> None:
        self.key_history.setdefault(name, []).append((time.time(), user))


def key_of(user: int, key: int) -> str:
    return f"key-{key}-of-user-{user}-0123456789abcdef"


def world() -> World:
    bridge = Bridge(7, "Bridge", "7-7")
    return World(
        [
            Account(
                f"user {user}",
                [Lock(1000 * (user + 1) + index, f"Lock {index} of {user}", bridge=bridge) for index in range(3)],
                keys=[PersonalKey(key_of(user, key)) for key in range(3)],
            )
            for user in range(USERS)
        ]
    )


class Checker:
    """Scrapes exporters, and checks to which user the locks of each account belong."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.wrong: list[str] = []
        self.shown = 0

    def check(self, exporter: Exporter) -> None:
        samples = exporter.samples()
        synced = {
            dict(labels)["account"]: value
            for (name, labels), value in samples.items()
            if name == "tedee_last_sync_timestamp_seconds"
        }
        for name, labels in samples:
            if name != "lock_connected":
                continue
            lock = dict(labels)
            owner = f"user {int(lock['lock_id']) // 1000 - 1}"
            allowed = self.site.users(lock["account"], synced[lock["account"]])
            self.shown += 1
            if owner not in allowed:
                self.wrong.append(f"{lock} at {time.time()}: synced {synced[lock['account']]}, not of {allowed}")


def damage(site: Site, old: bytes, rng: random.Random) -> None:
    """Damage the files of a killed process."""
    content = bytearray(site.state.read_bytes())
    match rng.randrange(7):
        case 0:
            site.state.write_bytes(content[: rng.randrange(len(content) + 1)])
        case 1:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            site.state.write_bytes(content)
        case 2:
            site.state.write_bytes(rng.randbytes(5_000))
        case 3:
            site.state.write_bytes(b"")
        case 4:
            site.state.write_bytes(old)
        case 5:
            site.state.with_name("state.db-journal").unlink(missing_ok=True)
        case 6:
            copy = site.state.with_name("copy")
            copy.write_bytes(old)
            shutil.copystat(site.state, copy)
            copy.replace(site.state)


def change_keys(site: Site, rng: random.Random) -> None:
    """Rotate keys, swap them between files, or write the key of one account to the file of another."""
    one, two = rng.sample(range(USERS), 2)
    users = [site.key_history[site.names[number]][-1][1] for number in (one, two)]
    first, second = (int(user.removeprefix("user ")) for user in users)
    match rng.randrange(3):
        case 0:
            site.set_key(one, first, rng.randrange(3))
        case 1:
            key = site.key_file(one).read_text(), site.key_file(two).read_text()
            site.set_key(one, second, int(key[1][4]))
            time.sleep(rng.choice([0.0, 0.5, 5.0]))
            site.set_key(two, first, int(key[0][4]))
        case 2:
            # A mistake of the operator, corrected up to half a minute later.
            before = site.key_file(one).read_text()
            site.set_key(one, second, int(site.key_file(two).read_text()[4]))
            time.sleep(rng.uniform(1.0, 30.0))
            site.set_key(one, first, int(before[4]))


@contextlib.contextmanager
def in_background(work: Callable[[], None]) -> Iterator[None]:
    over = threading.Event()
    problems: list[BaseException] = []

    def run() -> None:
        try:
            while not over.is_set():
                work()
        except BaseException as error:  # noqa: BLE001
            problems.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if problems:
        raise problems[0]


def resident(exporter: Exporter) -> int:
    status = Path(f"/proc/{exporter.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


class Soak:
    """Runs processes with one state file and one configuration."""

    def __init__(self, site: Site, rng: random.Random) -> None:
        self.site = site
        self.checker = Checker(site)
        self.events: Counter[str] = Counter()
        self.memory: list[int] = []
        """Resident bytes of the process that is not killed, every half second."""
        self.threads = 0
        self.log = ""
        self._rng = rng

    def kill_and_start(self, until: float) -> None:
        """Start processes, kill or stop them, damage their file, and rename accounts."""
        old = b""
        while time.monotonic() < until:
            with self._running() as exporter:
                for _ in range(self._rng.randrange(60)):
                    self._watch(exporter)
                    if self._rng.random() < 0.05:
                        self._rename()
                        requests.post(f"{exporter.url}/-/reload", timeout=TIMEOUT)
                self._end(exporter)
            if self._rng.random() < 0.5 and old:
                damage(self.site, old, self._rng)
                self.events["damaged"] += 1
            old = self.site.state.read_bytes()
            if self._rng.random() < 0.3:
                self._rename()
            time.sleep(self._rng.choice([0.0, 0.0, 1.0, 10.0, 30.0]))

    def run_with_followers(self, until: float) -> None:
        """Run one process all the time, and short-lived ones next to it."""
        with self._running() as exporter:
            while time.monotonic() < until:
                with self._running() as second:
                    for _ in range(self._rng.randrange(40)):
                        self._watch(exporter, second)
                    self._end(second)
                for _ in range(self._rng.randrange(20)):
                    exporter.get("/")
                    self._watch(exporter)
            self.threads = len(list(Path(f"/proc/{exporter.process.pid}/task").iterdir()))
            assert exporter.stop(signal.SIGTERM) == 0
            self.log = "".join(exporter.log)

    @contextlib.contextmanager
    def _running(self) -> Iterator[Exporter]:
        self.events["started"] += 1
        with running(f"--config.file={self.site.path}") as exporter:
            # Before Python runs, a signal ends the process with another code.
            assert exporter.port
            yield exporter

    def _watch(self, *exporters: Exporter) -> None:
        for exporter in exporters:
            self.checker.check(exporter)
        self.memory.append(resident(exporters[0]))
        time.sleep(0.5)

    def _end(self, exporter: Exporter) -> None:
        if self._rng.random() < 0.3:
            assert exporter.stop(signal.SIGTERM) == 0
            self.events["stopped"] += 1
        else:
            exporter.kill()
            self.events["killed"] += 1

    def _rename(self) -> None:
        self.events["renamed"] += 1
        self.site.rename(self._rng.randrange(USERS), f"renamed {self.events['renamed']}")


def test_random_faults_for_20_minutes(tmp_path: Path) -> None:
    rng, keys, faults = random.Random(14), random.Random(15), random.Random(16)
    cloud = FaultyCloud(world(), strict=True)
    begin = time.monotonic()

    def fail_calls() -> None:
        for user in range(FAULTY):
            endpoint = faults.choice(["sync", "sync", "details", "door_sensors"])
            cloud.faults.script(fault(faults), account=f"user {user}", endpoint=endpoint)
        time.sleep(15)

    def change_keys_often() -> None:
        change_keys(site, keys)
        time.sleep(7)

    with serve(cloud) as address:
        site = Site(tmp_path, address.url)
        for number in range(USERS):
            site.set_key(number, number, 0)
        site.write()
        soak = Soak(site, rng)
        with in_background(fail_calls), in_background(change_keys_often):
            soak.kill_and_start(begin + 0.4 * SECONDS)
            soak.memory.clear()
            soak.run_with_followers(begin + SECONDS)
    syncs = [call for call in cloud.calls if call.endpoint == "sync"]
    third = len(soak.memory) // 3
    before, after = (median(part) / MIB for part in (soak.memory[third : 2 * third], soak.memory[2 * third :]))
    maximum = max(soak.memory) / MIB
    print(
        f"{dict(soak.events)}, {len(syncs)} syncs, {soak.checker.shown} locks shown, {soak.threads} threads, "
        f"memory {before:.1f}, then {after:.1f}, at most {maximum:.1f} MiB"
    )
    assert cloud.violations == []
    assert soak.checker.wrong == []
    assert "Traceback" not in soak.log
    assert len(syncs) > SECONDS / 40 * USERS / 2
    assert maximum < 100
    assert after < before + 3
