"""Reloads of the configuration while the exporter runs."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

import structlog

from .clock import Clock
from .config import ConfigurationError, NotConfigured, Settings

log = structlog.get_logger(__name__)

WATCH_INTERVAL = 1.0
"""Seconds between two checks for changes of the web configuration."""
STUCK_SECONDS = 10.0
"""Seconds after which a reload counts as stuck, for example because a file server does not respond."""

UNHANDLED = "unhandled exception; see the log"


class Reload:
    """Reloads the configuration on its own thread. An invalid configuration changes nothing."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        apply: Callable[[Settings], None],
        refresh_web: Callable[[], list[str]],
        clock: Clock,
    ) -> None:
        """Create the object without starting its thread.

        Args:
            settings: The settings loaded at the start.
            load: Loads the settings.
            apply: Applies the settings.
            refresh_web: Loads changes of the web configuration, and returns its errors.
            clock: For the time of the last success, and the duration of a reload.
        """
        keys = ("state_file", "state_url", "state_url_file")
        self._state = {key: getattr(settings, key) for key in keys}
        self._load = load
        self._apply = apply
        self._refresh_web = refresh_web
        self._clock = clock
        self._problems: list[str] = []
        self._web_problems: list[str] = []
        self._last_success = clock.wall()
        self._changed = threading.Condition()
        self._requested: Future[list[str]] | None = None
        self._started_at: float | None = None
        self._stuck = False

    def start(self) -> None:
        """Start the thread. It also applies changes of the web configuration, without a request."""
        threading.Thread(target=self._run, name="reload", daemon=True).start()

    def request(self) -> Future[list[str]]:
        """Request a reload that begins after this call. All requests that arrive before it begins share it.

        Returns:
            The errors of the configuration; empty if it was loaded.
        """
        with self._changed:
            if self._requested is None:
                self._requested = Future()
                self._changed.notify_all()
            return self._requested

    def result(self) -> tuple[bool, float]:
        """Return whether the last load was successful, and the Unix time of the last successful load."""
        return not (self._problems or self._web_problems or self._stuck), self._last_success

    def check(self) -> None:
        """Log once that a reload is stuck."""
        started_at = self._started_at
        stuck = started_at is not None and self._clock.monotonic() - started_at > STUCK_SECONDS
        if stuck and not self._stuck:
            log.error(
                "reload is stuck; check whether a configuration file is on a file server that does not respond",
                seconds=STUCK_SECONDS,
            )
        self._stuck = stuck

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._requested, WATCH_INTERVAL)
                requested, self._requested = self._requested, None
            self._started_at = self._clock.monotonic()
            self._web_problems = self._catch(self._refresh_web, self._web_problems)
            if requested:
                self._problems = self._catch(self._reload, [])
            self._started_at = None
            if requested:
                requested.set_result(self._problems + self._web_problems)

    def _catch(self, load: Callable[[], list[str]], previous: list[str]) -> list[str]:
        """Return the errors of a load, or UNHANDLED after an exception, which is logged unless it happened before."""
        try:
            return load()
        except Exception:
            if previous != [UNHANDLED]:
                log.exception("unhandled exception while reloading; please report this")
            return [UNHANDLED]

    def _reload(self) -> list[str]:
        try:
            self._apply(self._load_checked())
        except ConfigurationError as error:
            for problem in error.problems:
                log.error("configuration not reloaded; the previous one stays in use", error=problem)
            return error.problems
        self._last_success = self._clock.wall()
        log.info("configuration reloaded")
        return []

    def _load_checked(self) -> Settings:
        try:
            settings = self._load()
        except NotConfigured:
            raise ConfigurationError(["no account is configured"]) from None
        if changed := [key for key, value in self._state.items() if getattr(settings, key) != value]:
            raise ConfigurationError([f"{key}: cannot be changed by a reload; restart the exporter" for key in changed])
        return settings
