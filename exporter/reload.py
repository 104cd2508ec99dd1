"""The configuration, loaded again while the exporter runs."""

import threading
from collections.abc import Callable

import structlog

from .clock import Clock
from .config import ConfigurationError, NotConfigured, Settings

log = structlog.get_logger(__name__)


class Reload:
    """Loads the configuration again. A broken one changes nothing."""

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
            clock: for the time of the last success.
        """
        self._state_file = settings.state_file
        self._load = load
        self._apply = apply
        self._refresh_web = refresh_web
        self._clock = clock
        self._lock = threading.Lock()
        self._good = True
        self._good_at = clock.wall()
        self._web_problems: list[str] = []

    def __call__(self) -> list[str]:
        """Load and apply; the problems, none where it went well."""
        with self._lock:
            self.watch()
            try:
                self._apply(self._load_checked())
            except ConfigurationError as error:
                self._good = False
                for problem in error.problems:
                    log.error("configuration not reloaded; the last good one stays", error=problem)
                return error.problems + self._web_problems
            self._good, self._good_at = True, self._clock.wall()
            log.info("configuration reloaded")
            return self._web_problems

    def watch(self) -> None:
        """Read what has changed of the web configuration: that needs nobody to ask for it."""
        self._web_problems = self._refresh_web()

    def state(self) -> tuple[bool, float]:
        """Whether the last load was successful, and when the last successful one was (Unix seconds)."""
        return self._good and not self._web_problems, self._good_at

    def _load_checked(self) -> Settings:
        try:
            settings = self._load()
        except NotConfigured:
            raise ConfigurationError(["no account is configured any more"]) from None
        if settings.state_file != self._state_file:
            raise ConfigurationError(["state_file: a reload cannot change it; restart the exporter"])
        return settings
