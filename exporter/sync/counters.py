"""Counters of one account. They keep their values when its options change."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import structlog

from exporter.tedee.errors import REASONS
from exporter.tedee.rows import ParseResult

from .snapshot import Durations
from .state_changes import StateChanges

if TYPE_CHECKING:
    from .event_log import EventLog

log = structlog.get_logger(__name__)

MAX_LOGGED_REJECTIONS = 200
"""Device fields whose rejected values are logged, each once. Rejected values of further fields are only counted."""


class Counters:
    """What is counted for one account: requests, syncs, rejected values, state changes, events.

    It is the observer of the account's client.
    """

    def __init__(self, account: str) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        """By path of the endpoint and code."""
        self.failures = Counter(dict.fromkeys(REASONS, 0))
        """Failed syncs by reason."""
        self.durations = Durations()
        """Durations of the syncs."""
        self.rejections: Counter[str] = Counter()
        """Rejected values by field."""
        self.state_changes = StateChanges()
        """State changes by lock."""
        self.event_logs: dict[int, EventLog] = {}
        """Counted events by lock."""
        self._account = account
        self._logged: set[tuple[int | None, str]] = set()

    def request_sent(self, endpoint: str, code: str) -> None:
        """Count a request."""
        self.requests[endpoint, code] += 1

    def values_rejected(self, parsed: ParseResult[Any, Any]) -> None:
        """Count the rejected values of a response, and log the first one of each field of a device, up to a limit."""
        self.rejections.update(parsed.rejection_counts)
        for rejection in parsed.rejections:
            key = (rejection.device_id, rejection.field)
            if key in self._logged or len(self._logged) >= MAX_LOGGED_REJECTIONS:
                continue
            self._logged.add(key)
            log.warning(
                "value of a response cannot be used; its sample is absent (this is logged once)",
                account=self._account,
                id=rejection.device_id,
                field=rejection.field,
                value=rejection.value,
            )
            if len(self._logged) == MAX_LOGGED_REJECTIONS:
                log.warning(
                    "further values that cannot be used are only counted, in tedee_rejected_values_total",
                    account=self._account,
                )
