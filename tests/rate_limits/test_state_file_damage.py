"""Damaged, truncated and lost state files lead to no early call."""

import itertools
import mmap
import os
import random
import shutil
import signal
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from exporter.clock import Instant
from exporter.state.rate_limits import RateLimitPolicy
from exporter.state.responses import CachedResponse
from exporter.state.stores import OpenStore
from exporter.sync.limiter import RateLimiter
from exporter.tedee.endpoint import SYNC
from testing.clock import FakeClock
from testing.stores import LONGEST_CALL, open_store

POLICY = RateLimitPolicy(longest_call=LONGEST_CALL)
ACCOUNTS = ("home", "hotel")


def limiters(path: Path, clock: FakeClock) -> tuple[OpenStore, list[RateLimiter]]:
    """Start a process with two accounts."""
    store = open_store(path, clock)
    created = []
    for account in ACCOUNTS:
        limiter = RateLimiter(
            account, store.states, clock, POLICY, jitter=lambda: 1.0, is_first_start=store.states.is_new
        )
        limiter.set_user(f"user of {account}")
        created.append(limiter)
    return store, created


@dataclass(frozen=True)
class StateFiles:
    """The files that a process left, by name, and the time from which its first account may be called."""

    files: dict[str, bytes]
    now: float
    allowed_at: float

    @classmethod
    def of(cls, path: Path, now: float, allowed_at: float) -> "StateFiles":
        return cls({each.name: each.read_bytes() for each in path.parent.iterdir()}, now, allowed_at)

    def wait(self, folder: Path) -> float:
        """Return the seconds that the next start waits with these files."""
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        clock = FakeClock(monotonic=self.now)
        store, (home, _) = limiters(folder / "state.db", clock)
        wait = home.wait(SYNC)
        store.close()
        return wait

    def without(self, name: str) -> "StateFiles":
        return StateFiles(
            {other: content for other, content in self.files.items() if other != name}, self.now, self.allowed_at
        )

    def truncated(self, name: str, size: int) -> "StateFiles":
        return StateFiles({**self.files, name: self.files[name][:size]}, self.now, self.allowed_at)

    def changed(self, name: str, at: int, value: int) -> "StateFiles":
        content = bytearray(self.files[name])
        content[at] = value
        return StateFiles({**self.files, name: bytes(content)}, self.now, self.allowed_at)


def damages(state_files: StateFiles) -> Iterator[tuple[str, StateFiles]]:
    """Generate every truncation of every file, and four changes of every byte."""
    for name, content in state_files.files.items():
        for size in range(len(content)):
            yield f"{name} cut to {size} bytes", state_files.truncated(name, size)
        for at, byte in enumerate(content):
            for value in {byte ^ 1, byte ^ 0x80, 0, 0xFF} - {byte}:
                yield f"byte {at} of {name} changed from {byte} to {value}", state_files.changed(name, at, value)


def after_calls(path: Path, *, in_progress: bool, clean: bool) -> StateFiles:
    """Return the files of a process that made calls and ended during a call, or five seconds after one."""
    clock = FakeClock()
    store, (home, hotel) = limiters(path, clock)
    for _ in range(3):
        for account, limiter in zip(ACCOUNTS, (home, hotel), strict=True):
            with limiter.acquire(SYNC, f"user of {account}"):
                clock.advance(0.5)
            store.responses.store_response(
                account, SYNC.path, f"key of {account}", CachedResponse([b'{"id": 1}'], Instant.now(clock))
            )
        clock.advance(20)
    with home.acquire(SYNC, "user of home"):
        started = clock.monotonic()
        if in_progress:
            clock.advance(1)
            return StateFiles.of(path, clock.monotonic(), started + LONGEST_CALL + 20.0)
    ended = clock.monotonic()
    clock.advance(5)
    if clean:
        store.close()
    return StateFiles.of(path, clock.monotonic(), ended + 20.0)


# A real process that is killed at random times, including during a transaction

_SHARED = struct.Struct("ddd")
"""Clock, start of the last call of the first account, its end (0 during the call)."""


def _work(path: Path, shared: mmap.mmap) -> None:
    clock = FakeClock()
    store, pair = limiters(path, clock)
    started = ended = 0.0
    while True:
        for account, limiter in zip(ACCOUNTS, pair, strict=True):
            clock.advance(limiter.wait(SYNC))
            with limiter.acquire(SYNC, f"user of {account}"):
                if account == "home":
                    started, ended = clock.monotonic(), 0.0
                    shared[:] = _SHARED.pack(clock.monotonic(), started, ended)
                clock.advance(3.0)
                if account == "home":
                    ended = clock.monotonic()
                shared[:] = _SHARED.pack(clock.monotonic(), started, ended)
            store.responses.store_response(
                account, SYNC.path, f"key of {account}", CachedResponse([b'{"id": 1}'] * 50, Instant.now(clock))
            )


def killed(path: Path, rng: random.Random) -> StateFiles:
    """Kill a process that makes calls as fast as it can, and return its files."""
    shared = mmap.mmap(-1, _SHARED.size)
    child = os.fork()
    if child == 0:
        try:
            _work(path, shared)
        finally:
            os._exit(1)
    while not shared[:8].strip(b"\0"):
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    now, started, ended = _SHARED.unpack(shared[:])
    return StateFiles.of(path, now, ended + 20.0 if ended else started + LONGEST_CALL + 20.0)


def check(state_files: StateFiles, folder: Path, what: str) -> None:
    assert state_files.now + state_files.wait(folder) >= state_files.allowed_at - 0.001, what


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory if possible, because thousands of files are written."""
    shared = Path("/dev/shm")
    folder = shared / f"damage-{os.getpid()}" if os.access(shared, os.W_OK) else tmp_path_factory.mktemp("damage")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


ENDS = [(in_progress, clean) for in_progress in (False, True) for clean in (False, True) if not (in_progress and clean)]


@pytest.mark.parametrize(("in_progress", "clean"), ENDS)
def test_undamaged_files_are_trusted(tmp_path: Path, memory: Path, in_progress: bool, clean: bool) -> None:
    state_files = after_calls(tmp_path / "state" / "state.db", in_progress=in_progress, clean=clean)
    assert state_files.now + state_files.wait(memory) == state_files.allowed_at


@pytest.mark.parametrize(("in_progress", "clean"), ENDS)
def test_damaged_files_lead_to_no_early_call(tmp_path: Path, memory: Path, in_progress: bool, clean: bool) -> None:
    state_files = after_calls(tmp_path / "state" / "state.db", in_progress=in_progress, clean=clean)
    every = list(damages(state_files))
    for what, damaged in random.Random(7).sample(every, 700):
        check(damaged, memory, what)


@pytest.mark.parametrize("seed", range(4))
def test_killed_process_leads_to_no_early_call(tmp_path: Path, memory: Path, seed: int) -> None:
    rng = random.Random(seed)
    for number in itertools.count():
        state_files = killed(tmp_path / str(number) / "state.db", rng)
        check(state_files, memory, "undamaged")
        if "state.db-journal" in state_files.files:
            break
    check(state_files.without("state.db-journal"), memory, "journal lost")
    for what, damaged in rng.sample(list(damages(state_files)), 300):
        check(damaged, memory, what)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("in_progress", "clean"), ENDS)
def test_any_damage_leads_to_no_early_call(tmp_path: Path, memory: Path, in_progress: bool, clean: bool) -> None:
    state_files = after_calls(tmp_path / "state" / "state.db", in_progress=in_progress, clean=clean)
    for what, damaged in damages(state_files):
        check(damaged, memory, what)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_any_damage_after_kill_leads_to_no_early_call(tmp_path: Path, memory: Path) -> None:
    rng = random.Random(1)
    journals = 0
    for number in range(100):
        state_files = killed(tmp_path / str(number) / "state.db", rng)
        check(state_files, memory, "undamaged")
        if "state.db-journal" in state_files.files:
            journals += 1
            check(state_files.without("state.db-journal"), memory, "journal lost")
            for what, damaged in rng.sample(list(damages(state_files)), 3_000):
                check(damaged, memory, what)
    assert journals > 10
