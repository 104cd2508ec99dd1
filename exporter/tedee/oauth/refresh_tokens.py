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
from exporter.tedee.secret_source import CredentialsUnavailable, read_secret

from . import REFRESH_TOKEN
from .token_file import CannotStore, Preallocation, preallocate

log = structlog.get_logger(__name__)


class Closed(Exception):
    """No exchange can start, since the process is stopping."""


@dataclass(frozen=True)
class StoredToken:
    """A refresh token, and the token in its file. They differ only if the file could not be written."""

    token: Secret
    file_token: Secret


@dataclass(frozen=True)
class Exchange:
    """An exchange of a refresh token, with preallocated storage for the new token."""

    token: Secret
    store: Callable[[Secret], None]
    """Stores the new token. Raises CannotStore if it is in memory only."""


class RefreshTokens:
    """The refresh tokens of a process. There is one instance, so that tokens in memory outlive a reload.

    If another process or the user changes a file, its token replaces the one in memory.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._locks: dict[Path, threading.Lock] = {}
        self._unsaved: dict[Path, StoredToken] = {}
        self._in_progress = 0
        self._closed = False

    @contextlib.contextmanager
    def exchange(self, path: Path) -> Iterator[Exchange]:
        """Provide an exchange of the current token. Exchanges of one file do not overlap.

        Raises:
            CredentialsUnavailable: There is no token.
            CannotStore: A new token could not be stored.
            Closed: The process is stopping.
        """
        with self._exclusive_access(path), contextlib.ExitStack() as stack:
            current = self._read(path)
            preallocation = None
            try:
                preallocation = preallocate(path)
                stack.callback(preallocation.release)
            except CannotStore:
                # A token in memory is exchanged anyway. The token in the file is invalid already, so nothing more can
                # be lost, and the account works until the file can be written.
                if path not in self._unsaved:
                    raise
            yield Exchange(current.token, partial(self._store_new, path, current, preallocation))

    def save(self, path: Path) -> bool:
        """Write a token that is in memory to its file. Returns True if there was one.

        Raises:
            CannotStore: The token still cannot be stored.
        """
        if self.stored(path):
            return False
        try:
            with self._exclusive_access(path):
                self._save(path, None)
        except Closed:
            return False
        return True

    def current(self, path: Path) -> Secret:
        """Return the token that an exchange would use now.

        Raises:
            CredentialsUnavailable: There is no token.
        """
        return self._current(path).token

    def stored(self, path: Path) -> bool:
        """Return False if the token is in memory only."""
        return path not in self._unsaved

    def close(self, timeout: float) -> bool:
        """Reject new exchanges, wait for those in progress, and write the tokens that are in memory to their files.

        Args:
            timeout: Maximum time to wait, in seconds.

        Returns:
            False if a token is lost with the process.
        """
        with self._changed:
            self._closed = True
            if self._in_progress:
                log.info("waiting for exchanges of refresh tokens to end", seconds=timeout)
            if not self._changed.wait_for(lambda: not self._in_progress, timeout):
                log.error(
                    "an exchange of a refresh token was interrupted; it may be necessary to sign in to Tedee again"
                )
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
    def _exclusive_access(self, path: Path) -> Iterator[None]:
        """Lock a file in this process. `close` waits until it is unlocked.

        Raises:
            Closed: The process is stopping.
        """
        with self._changed:
            if self._closed:
                raise Closed
            self._in_progress += 1
            lock = self._locks.setdefault(path, threading.Lock())
        try:
            with CRITICAL_WORK(), lock:
                yield
        finally:
            with self._changed:
                self._in_progress -= 1
                self._changed.notify_all()

    def _current(self, path: Path) -> StoredToken:
        unsaved = self._unsaved.get(path)
        try:
            file_token = read_secret(path, REFRESH_TOKEN)
        except CredentialsUnavailable:
            if unsaved is None:
                raise
            return unsaved
        return unsaved if unsaved and unsaved.file_token == file_token else StoredToken(file_token, file_token)

    def _read(self, path: Path) -> StoredToken:
        """Return the current token. Discard the token in memory if the file has been changed."""
        current = self._current(path)
        if self._unsaved.get(path) != current:
            self._unsaved.pop(path, None)
        return current

    def _store_new(self, path: Path, used: StoredToken, preallocation: Preallocation | None, new_token: Secret) -> None:
        self._unsaved[path] = StoredToken(new_token, used.file_token)
        self._save(path, preallocation)

    def _save(self, path: Path, preallocation: Preallocation | None) -> None:
        """Write the token that is in memory to its file, into preallocated storage if given."""
        if preallocation is None:
            preallocation = preallocate(path)
            try:
                self._save(path, preallocation)
            finally:
                preallocation.release()
            return
        with preallocation.exclusive():
            current = self._read(path)
            if path not in self._unsaved:
                return
            try:
                preallocation.write(current.token)
            except OSError as error:
                # The file may contain a part of the token, which must not be taken for a change by another process.
                with contextlib.suppress(CredentialsUnavailable):
                    self._unsaved[path] = StoredToken(current.token, read_secret(path, REFRESH_TOKEN))
                raise CannotStore(f"{REFRESH_TOKEN} file {path} cannot be written: {error.strerror}") from None
            del self._unsaved[path]
