"""The HTML pages. They are self-contained: no scripts, and no fonts or images from other places."""

import base64
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import humanize
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from exporter.clock import Clock
from exporter.metrics.catalogue import CATALOGUE
from exporter.presentation import (
    CRITICAL_BATTERY,
    LOW_ACCESSORY_BATTERY,
    LOW_BATTERY,
    REJECTED_VALUE,
    describe_codes,
    format_time,
)
from exporter.sync.snapshot import StatusRegistry

from .status import account_views, attention_first
from .urls import ScrapeTarget

PROJECT = "https://github.com/tedee-exporter/tedee-exporter"

REFRESH_SECONDS = 10
"""Seconds after which the status page reloads if it is asked to. Its data changes at most every 20 seconds."""

STATUS_MAX_AGE = 1.0
"""Seconds for which a rendered status page is served before it is rendered again."""

_FOLDER = Path(__file__).parent / "templates"
_STYLE = (_FOLDER / "style.css").read_text("utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, slots=True)
class _RenderedPage:
    """The accounts of the status page, and the pages with them."""

    accounts: Markup
    wall: float
    """Unix time at which the rendering ended."""
    rendered_at: float
    """The same in monotonic seconds."""
    pages: dict[bool, bytes] = field(default_factory=dict)
    """The whole page, by whether it reloads."""


class Pages:
    """Renders the pages from the registry.

    A status page with thousands of locks takes megabytes and a large part of a second of processor time, which scrapes
    need as well. It is therefore rendered by one thread at a time and at most once a second, for all clients.
    """

    def __init__(
        self,
        registry: StatusRegistry,
        clock: Clock,
        *,
        version: str,
        telemetry_path: str,
        state_problem: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.headers = _PAGE_HEADERS
        """Headers of responses with a page."""
        self._registry = registry
        self._clock = clock
        self._rendering = threading.Lock()
        self._status: _RenderedPage | None = None
        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "ago": self._ago,
            "until": self._until,
            "format_time": format_time,
            "clock_time": self._clock_time,
            "wall_time": self._wall_time,
        }
        self._environment.globals |= {
            "style": Markup(_STYLE),  # noqa: S704  (a file of this package)
            "version": version,
            "project": PROJECT,
            "telemetry_path": telemetry_path,
            "state_problem": state_problem,
            "refresh": REFRESH_SECONDS,
            "catalogue": CATALOGUE,
            "not_reported": REJECTED_VALUE,
            "critical_battery": CRITICAL_BATTERY,
            "low_battery": LOW_BATTERY,
            "low_accessory_battery": LOW_ACCESSORY_BATTERY,
        }

    def status(self, refresh: str | None = None) -> bytes:
        """Return the status page, which is at most STATUS_MAX_AGE seconds old. Thread-safe.

        Args:
            refresh: REFRESH_SECONDS as text for a page that reloads. All other values mean that it does not.
        """
        refreshes = refresh == str(REFRESH_SECONDS)
        with self._rendering:
            if self._status is None or self._clock.monotonic() >= self._status.rendered_at + STATUS_MAX_AGE:
                accounts = self._render_accounts()
                # Its age counts from the end of the rendering, so that requests that waited for it do not repeat it.
                self._status = _RenderedPage(accounts, self._clock.wall(), self._clock.monotonic())
            rendered = self._status
            if refreshes not in rendered.pages:
                template = self._environment.get_template("status.html")
                html = template.render(accounts=rendered.accounts, rendered_at=rendered.wall, refreshes=refreshes)
                rendered.pages[refreshes] = html.encode()
            return rendered.pages[refreshes]

    def docs(self, target: ScrapeTarget) -> str:
        """Return the documentation of the metrics, with a scrape configuration for the exporter."""
        return self._environment.get_template("docs.html").render(target=target, codes=describe_codes())

    def _render_accounts(self) -> Markup:
        views = account_views(self._registry, self._clock)
        template = self._environment.get_template("accounts.html")
        return Markup(template.render(views=views, attention_first=attention_first(views)))  # noqa: S704  (escaped)

    def _ago(self, at: float) -> str:
        age = self._clock.wall() - at
        return "just now" if age < 1 else f"{humanize.naturaldelta(age)} ago"

    def _clock_time(self, at: float, zone: str | None = None) -> str:
        """Return a time in a time zone, by default that of this process, without the date or year if it is today's."""
        time, now = (datetime.fromtimestamp(each, UTC).astimezone(_zone(zone)) for each in (at, self._clock.wall()))
        name = time.tzname() or ""
        zone_name = f"UTC{name}" if name[:1] in {"+", "-"} else name
        date = f"{time:%Y-%m-%d} " if time.year != now.year else f"{time.day} {time:%b} "
        date = "" if time.date() == now.date() else date
        return f"{date}{time:%H:%M} {zone_name}"

    def _wall_time(self, at: float) -> float:
        """Return monotonic seconds as Unix time."""
        return self._clock.wall() - (self._clock.monotonic() - at)

    def _until(self, at: float) -> str:
        remaining = at - self._clock.wall()
        return "now" if remaining < 1 else f"in {humanize.naturaldelta(remaining)}"


@lru_cache(maxsize=256)
def _zone(name: str | None) -> tzinfo | None:
    """Return a time zone; None, which means that of this process, if it is not in the database of this machine."""
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError):  # the name is text of a response
        return None
