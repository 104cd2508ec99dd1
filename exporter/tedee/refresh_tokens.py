"""Refresh tokens: in their files, or in memory while a file cannot be written."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from exporter.background import CRITICAL_WORK
from exporter.secrets import Secret

from .credentials import CredentialsUnavailable, read_secret
from .token_file import CannotStore, Reservation, reserve

log = structlog.get_logger(__name__)

REFRESH_TOKEN = "refresh token"  # noqa: S105
"""The name of it in messages."""


class Closed(Exception):
    """No exchange may begin, since the process ends."""


@dataclass(frozen=True)
class StoredToken:
    """A refresh token, and the one that its file has: the same, unless the file could not be written."""

    token: Secret
    on_file: Secret


@dataclass(frozen=True)
class Exchange:
    """An exchange of a refresh token whose successor can be stored."""

    token: Secret
    store: Callable[[Secret], None]
    """Store the successor. Raises CannotStore if it is in memory only."""


class RefreshTokens:
    """The refresh tokens of a process. There is one instance, so that what is in memory outlives a reload.

    What other processes or a person put into a file counts more than what is in memory.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._locks: dict[Path, threading.Lock] = {}
        self._unsaved: dict[Path, StoredToken] = {}
        self._under_way = 0
        self._closed = False

    @contextlib.contextmanager
    def exchange(self, path: Path) -> Iterator[Exchange]:
        """Reserve storage for a successor while a token is exchanged. The exchanges of one file do not overlap.

        Raises:
            CredentialsUnavailable: There is no token.
            CannotStore: A successor could not be stored.
            Closed: The process ends.
        """
        with self._work_on(path), contextlib.ExitStack() as stack:
            held = self._read(path)
            reservation = None
            try:
                reservation = reserve(path)
                stack.callback(reservation.release)
            except CannotStore:
                # A token in memory may be exchanged all the same: that of the file is invalid already, so no more can
                # be lost, and the account works until the file can be written.
                if path not in self._unsaved:
                    raise
            yield Exchange(held.token, partial(self._keep, path, held, reservation))

    def save(self, path: Path) -> bool:
        """Store a token that could not be stored before. Return True if there was one.

        Raises:
            CannotStore: It still cannot be stored.
        """
        if self.stored(path):
            return False
        try:
            with self._work_on(path):
                self._save(path, None)
        except Closed:
            return False
        return True

    def current(self, path: Path) -> Secret:
        """Return the token that an exchange would use now.

        Raises:
            CredentialsUnavailable: There is none.
        """
        return self._current(path).token

    def stored(self, path: Path) -> bool:
        """Return False while the token is in memory only."""
        return path not in self._unsaved

    def close(self, timeout: float) -> bool:
        """Begin no more exchanges, wait for those under way, and try once more to store what is in memory only.

        Args:
            timeout: The longest time to wait, in seconds.

        Returns:
            False if a token is lost with the process.
        """
        with self._changed:
            self._closed = True
            if self._under_way:
                log.info("waiting for refresh tokens that are being exchanged", seconds=timeout)
            if not self._changed.wait_for(lambda: not self._under_way, timeout):
                log.error("an exchange of a refresh token has not ended; it may be necessary to sign in to Tedee again")
        for path in list(self._unsaved):
            problem = "its exchange has not ended"
            if self._locks[path].acquire(blocking=False):
                try:
                    self._save(path, None)
                    continue
                except CannotStore as error:
                    problem = str(error)
                finally:
                    self._locks[path].release()
            log.error("refresh token is lost with this process; sign in to Tedee again", file=str(path), error=problem)
        return not self._unsaved

    @contextlib.contextmanager
    def _work_on(self, path: Path) -> Iterator[None]:
        """Work on a file alone, and let `close` wait for it.

        Raises:
            Closed: The process ends.
        """
        with self._changed:
            if self._closed:
                raise Closed
            self._under_way += 1
            lock = self._locks.setdefault(path, threading.Lock())
        try:
            with CRITICAL_WORK(), lock:
                yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def _current(self, path: Path) -> StoredToken:
        unsaved = self._unsaved.get(path)
        try:
            on_file = read_secret(path, REFRESH_TOKEN)
        except CredentialsUnavailable:
            if unsaved is None:
                raise
            return unsaved
        return unsaved if unsaved and unsaved.on_file == on_file else StoredToken(on_file, on_file)

    def _read(self, path: Path) -> StoredToken:
        """Return the current token, and forget the one in memory if another one is in the file."""
        current = self._current(path)
        if self._unsaved.get(path) != current:
            self._unsaved.pop(path, None)
        return current

    def _keep(self, path: Path, spent: StoredToken, reservation: Reservation | None, successor: Secret) -> None:
        self._unsaved[path] = StoredToken(successor, spent.on_file)
        self._save(path, reservation)

    def _save(self, path: Path, reservation: Reservation | None) -> None:
        """Store what is in memory only, in storage that has been reserved or is reserved now."""
        if reservation is None:
            reservation = reserve(path)
            try:
                self._save(path, reservation)
            finally:
                reservation.release()
            return
        with reservation.exclusive():
            held = self._read(path)
            if path not in self._unsaved:
                return
            try:
                reservation.write(held.token)
            except OSError as error:
                # A part of it may be in the file, which is not what another process has written.
                with contextlib.suppress(CredentialsUnavailable):
                    self._unsaved[path] = StoredToken(held.token, read_secret(path, REFRESH_TOKEN))
                raise CannotStore(f"{REFRESH_TOKEN} file {path} cannot be written: {error.strerror}") from None
            del self._unsaved[path]
