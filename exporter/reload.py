"""The configuration, loaded again while the exporter runs."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

import structlog

from .clock import Clock
from .config import ConfigurationError, NotConfigured, Settings

log = structlog.get_logger(__name__)

WATCH_INTERVAL = 1.0
"""Seconds between two checks of the files of the web configuration."""
STUCK_SECONDS = 10.0
"""Seconds after which a reload counts as stuck, as if a file is on a server that does not answer."""

BUG = "unhandled exception; the log has it"


class Reload:
    """Loads the configuration again, on a thread of its own. A broken one changes nothing."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        apply: Callable[[Settings], None],
        refresh_web: Callable[[], list[str]],
        clock: Clock,
    ) -> None:
        """Begin with settings that were loaded successfully.

        Args:
            settings: as they were at the start.
            load: reads them again.
            apply: puts them to work.
            refresh_web: reads what has changed of the web configuration, and returns what is wrong with it.
            clock: for the time of the last success, and the duration of a reload.
        """
        self._state_file = settings.state_file
        self._load = load
        self._apply = apply
        self._refresh_web = refresh_web
        self._clock = clock
        self._problems: list[str] = []
        self._web_problems: list[str] = []
        self._good_at = clock.wall()
        self._changed = threading.Condition()
        self._requested: Future[list[str]] | None = None
        self._began: float | None = None
        self._stuck = False

    def start(self) -> None:
        """Start the thread. It also applies changes of the web configuration, which need no request."""
        threading.Thread(target=self._run, name="reload", daemon=True).start()

    def request(self) -> Future[list[str]]:
        """Request a reload that begins after this call. All requests that arrive before it begins share it.

        Returns:
            what is wrong with the configuration; empty if it was loaded.
        """
        with self._changed:
            if self._requested is None:
                self._requested = Future()
                self._changed.notify_all()
            return self._requested

    def state(self) -> tuple[bool, float]:
        """Whether the last load was successful, and when the last successful one was (Unix seconds)."""
        return not (self._problems or self._web_problems or self._stuck), self._good_at

    def check(self) -> None:
        """Log once that a reload is stuck."""
        began = self._began
        stuck = began is not None and self._clock.monotonic() - began > STUCK_SECONDS
        if stuck and not self._stuck:
            log.error(
                "reading the configuration has not ended; is a file of it on a server that does not answer?",
                seconds=STUCK_SECONDS,
            )
        self._stuck = stuck

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._requested, WATCH_INTERVAL)
                requested, self._requested = self._requested, None
            self._began = self._clock.monotonic()
            self._web_problems = self._guarded(self._refresh_web, self._web_problems)
            if requested:
                self._problems = self._guarded(self._reload, [])
            self._began = None
            if requested:
                requested.set_result(self._problems + self._web_problems)

    def _guarded(self, work: Callable[[], list[str]], before: list[str]) -> list[str]:
        """Return what `work` returns, or BUG after an exception, which is logged unless `before` has it, too."""
        try:
            return work()
        except Exception:
            if before != [BUG]:
                log.exception("unhandled exception while reloading; please report this")
            return [BUG]

    def _reload(self) -> list[str]:
        try:
            self._apply(self._load_checked())
        except ConfigurationError as error:
            for problem in error.problems:
                log.error("configuration not reloaded; the last good one stays", error=problem)
            return error.problems
        self._good_at = self._clock.wall()
        log.info("configuration reloaded")
        return []

    def _load_checked(self) -> Settings:
        try:
            settings = self._load()
        except NotConfigured:
            raise ConfigurationError(["no account is configured any more"]) from None
        if settings.state_file != self._state_file:
            raise ConfigurationError(["state_file: a reload cannot change it; restart the exporter"])
        return settings
