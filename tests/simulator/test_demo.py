"""The demo, as the exporter shows it: at any time of the day, every state can be seen somewhere."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.accounts import Accounts
from exporter.config.settings import Settings, Sync
from exporter.config.source import Source
from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.simulator import START_HOUR, Call, Cloud, World, serve
from exporter.simulator.api import Handler
from exporter.simulator.connection import Connection, silence
from exporter.simulator.request import Request
from exporter.simulator.response import Response
from exporter.sync.scheduler import Scheduler
from exporter.sync.snapshot import StatusRegistry
from exporter.web.status import account_views
from testing import delivery
from testing.clock import FakeClock
from testing.stores import memory_store

from .conftest import NOON

HOUR = 3600.0
STARTED = NOON + 7.3 * HOUR
GLANCE = 120.0
"""Seconds for which a user looks at the page. The busy locks change within this time."""
OUTAGE = (5, 15)
"""Minutes of each half hour in which the cabin gets no response."""


class QuickCloud(Cloud):
    """Resets connections instead of not responding, because a time-out would take real time."""

    async def respond(self, call: Call, request: Request, connection: Connection, handler: Handler) -> Response:
        response = await super().respond(call, request, connection, handler)
        return replace(response, deliver=delivery.reset) if response.deliver is silence else response


@dataclass
class Seen:
    """What the status page and the metrics showed at some time of the demo."""

    minute: int
    """Minutes since the start."""
    texts: set[str] = field(default_factory=set)
    """State, door and connection of all locks."""
    metrics: set[tuple[str, float]] = field(default_factory=set)
    """Names and values of the samples of all locks."""
    accounts: dict[str, str] = field(default_factory=dict)
    """Sync state of each account, or "stale"."""


MOMENTS = [hour * 60 + minute for hour in range(0, 24, 2) for minute in (2, 13, 20)]


@pytest.fixture(scope="module")
def seen() -> list[Seen]:
    """What a user sees at several moments of a day. The exporter does not sync between them."""
    clock = FakeClock(wall=STARTED)
    world = World.demo(clock=clock.wall, start_hour=START_HOUR)
    registry, scheduler = StatusRegistry(), Scheduler(clock)
    exposition = Exposition(registry, ExporterCollector("1", lambda: (True, 0.0), lambda: True), clock)
    accounts = Accounts(clock, memory_store(clock), registry, scheduler)
    configured = [{"name": account.name, "personal_key": account.keys[0].value} for account in world.accounts]

    def glance(minute: int) -> Seen:
        here = Seen(minute)
        clock.advance(STARTED + minute * 60 - clock.wall())
        end = clock.wall() + GLANCE
        while clock.wall() <= end:
            scheduler.run_due()
            exposition.render()
            for view in account_views(registry, clock):
                here.accounts[view.status.account] = "stale" if view.is_stale else view.sync_state.text
                for row in view.rows or ():
                    here.texts |= {row.state.text, row.door.text, row.connection.text}
                    here.texts |= {text for text, shown in _battery(row.charging, row.battery_low) if shown}
            for family in text_string_to_metric_families(exposition.scrape("", "").body.decode()):
                here.metrics |= {(sample.name, sample.value) for sample in family.samples}
            clock.advance(10)
        return here

    with serve(QuickCloud(world, strict=True, clock=clock.monotonic)) as address:
        settings = Source({"api": {"url": address.url}, "accounts": configured}).validated(Settings)
        accounts.apply(settings)
        return [glance(minute) for minute in MOMENTS]


def _battery(charging: bool, low: bool) -> Iterator[tuple[str, bool]]:
    yield "charging", charging
    yield "low battery", low


@pytest.mark.parametrize("moment", range(len(MOMENTS)), ids=[f"+{each // 60}h{each % 60:02}" for each in MOMENTS])
def test_page_shows_every_state_at_any_time(seen: list[Seen], moment: int) -> None:
    assert seen[moment].texts >= {
        *("locked", "unlocked", "jammed", "uncalibrated"),
        *("opened", "closed", "not paired"),
        *("connected", "offline", "no bridge"),
        *("charging", "low battery"),
    }


@pytest.mark.parametrize("moment", range(len(MOMENTS)), ids=[f"+{each // 60}h{each % 60:02}" for each in MOMENTS])
def test_metrics_have_every_state_at_any_time(seen: list[Seen], moment: int) -> None:
    assert seen[moment].metrics >= {
        *(("lock_state", code) for code in (0, 2, 3, 6)),
        *(("lock_door_state", code) for code in (0, 2, 3)),
        *((name, value) for name in ("lock_connected", "lock_charging", "tedee_up") for value in (0, 1)),
        *(("lock_state_change_result", code) for code in (0, 1)),
    }


def test_one_account_fails_and_one_is_stale_at_times(seen: list[Seen]) -> None:
    for each in seen:
        # Between two moments the exporter did not run: without a response, its last data is older than `stale_after`.
        is_stale = each.minute > 2 and OUTAGE[0] <= each.minute % 30 < OUTAGE[1]
        assert each.accounts == {
            "home": "up to date",
            "hotel": "up to date",
            "flats": "up to date",
            "cabin": "stale" if is_stale else "up to date",
            "office": "failing",
        }


def test_outages_of_the_cabin_outlast_its_data() -> None:
    outages = World.demo().account("cabin").outages
    assert outages
    assert Sync().stale_after + 60 < outages.length < outages.period / 2


def test_every_account_has_highlights() -> None:
    assert all(account.highlights for account in World.demo().accounts)
