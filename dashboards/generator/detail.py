"""Lock detail: one lock, by its name, or a few beside each other."""

from dataclasses import replace

from grafana_foundation_sdk.builders import stat, statetimeline, table, timeseries

from exporter.metrics import catalogue
from exporter.presentation import LOW_BATTERY, Display

from . import queries as q
from . import variables, words
from .board import Board, Section
from .colours import FEW
from .overview import BATTERY, RESULT, STATE
from .panels import BY_NAME, PAINTED, Column, Reading, lines, sheet, tile, timeline

EMPTY = 10
"""Percent at which a battery should have been charged."""

LATEST = (
    f"topk({FEW}, max by (lock_id) {q.kept(q.of(catalogue.LOCK_LAST_STATE_CHANGE, q.LOCKS))}"
    f" or 0 * group by (lock_id) {q.kept(q.of(catalogue.LOCK_REVISION, q.LOCKS))})"
)
SEVERAL = f" Of several locks, the {FEW} that changed last are shown."


def board() -> Board:
    """The dashboard."""
    return Board(
        uid="tedee-lock",
        title="Tedee: lock",
        description="One lock, chosen by its name: what it does, what it did, how its battery is, and what it is."
        + SEVERAL,
        span="24h",
        variables=variables.chain(variables.locks(), variables.shown(LATEST, "lock_id")),
        alerts=q.alerts('account=~"$account|", lock_id=~"$shown|"'),
        sections=[Section([*now(), *states(), *battery(), *connection(), facts()])],
    )


def now() -> list[stat.Panel]:
    """How it is."""
    return [
        one(
            "State",
            "What the bolt does. `not known` while the lock is offline.",
            q.state(q.SHOWN_LOCKS),
            replace(STATE, unsaid="not known"),
        ),
        one(
            "Door",
            "What the door's sensor says. `not paired`: there is none.",
            q.door(q.SHOWN_LOCKS),
            Reading(words=words.DOORS, unsaid="not known"),
        ),
        one(
            "Connection",
            "Whether its bridge reaches it. Offline: see whether the bridge has power and network, and the lock a "
            "charged battery. Locks without a bridge have no connection to lose.",
            q.now(catalogue.LOCK_CONNECTED, q.SHOWN_LOCKS),
            Reading(words=words.CONNECTIONS, unsaid="no bridge"),
        ),
        one(
            "Last change",
            "When its state last changed. Tedee's app tells who turned it.",
            f"{q.latest(catalogue.LOCK_LAST_STATE_CHANGE, q.SHOWN_LOCKS)} * 1000",
            Reading("dateTimeFromNow", unsaid="not known"),
        ),
        one(
            "How it ended",
            "How the last change of state ended. Jammed: go and see whether the door is shut, then turn the lock "
            "again.",
            q.latest(catalogue.LOCK_STATE_CHANGE_RESULT, q.SHOWN_LOCKS),
            replace(RESULT, unsaid="not known"),
        ),
        one(
            "Charging",
            "Whether a charger is plugged in. A battery that stays low while it charges has a bad cable or is worn "
            "out.",
            q.now(catalogue.LOCK_CHARGING, q.SHOWN_LOCKS),
            Reading(words=words.CHARGING, unsaid="not known"),
        ),
    ]


def one(title: str, description: str, expression: str, reading: Reading) -> stat.Panel:
    """A tile of the first line."""
    return of_locks(title, description, expression, reading).span(4).height(5)


def of_locks(title: str, description: str, expression: str, reading: Reading) -> stat.Panel:
    """A tile of which each lock has a part with its name, also one of which nothing is known.

    Else the only value of several locks, one of them locked and the others offline, would pass for all of them.
    """
    said = {q.NOT_KNOWN: Display(reading.unsaid), **reading.words}
    return tile(title, description, q.of_each(expression, q.SHOWN_LOCKS), replace(reading, words=said), BY_NAME)


def states() -> list[statetimeline.Panel]:
    """What bolt and door did."""
    return [
        timeline(
            "State over time",
            "What the bolt did. Gaps: the lock was offline, or its account silent; nobody knows.",
            q.named(q.state(q.SHOWN_LOCKS), q.SHOWN_LOCKS),
            replace(STATE, steps=((None, "bad"),)),
        ).span(12),
        timeline(
            "Door over time",
            "What the door's sensor said. A door that opened while the bolt was out was never really locked.",
            q.named(q.door(q.SHOWN_LOCKS), q.SHOWN_LOCKS),
            Reading(words=words.DOORS),
        ).span(12),
    ]


def battery() -> list[timeseries.Panel | stat.Panel]:
    """How long it will turn."""
    level = q.now(catalogue.LOCK_BATTERY_LEVEL, q.SHOWN_LOCKS)
    return [
        lines(
            "Battery over time",
            f"Charge of the battery; at {LOW_BATTERY} % and below it is low. One that falls faster than it used to "
            "drives a bolt that is hard to turn: see to the door's hinges and the strike.",
            {BY_NAME: q.named(level, q.SHOWN_LOCKS)},
            BATTERY,
        ).span(16),
        of_locks(
            "Battery",
            f"Charge of the battery now. Charge it at {LOW_BATTERY} %.",
            level,
            Reading("percent", steps=BATTERY.steps, decimals=0, unsaid="not known"),
        )
        .span(4)
        .height(8),
        of_locks(
            f"Days until {EMPTY} %",
            f"How many days the battery takes down to {EMPTY} %, as it has been emptying for {q.LONG} days, or for "
            f"{q.SHORT} where it falls fast. `no trend`: it fell too little, was not watched for long enough, or was "
            "charged; then nobody can tell. Charge it before.",
            q.days_until(EMPTY, q.SHOWN_LOCKS),
            Reading(
                # Not Grafana's own unit of days, which makes weeks of seven.
                "suffix:days",
                {q.MOST_DAYS: Display(f"{q.MOST_DAYS} days or more", "good")},
                steps=((None, "quiet"), (0, "bad"), (7, "warn"), (14, "good")),
                decimals=0,
                unsaid="no trend",
            ),
        )
        .span(4)
        .height(8),
    ]


def connection() -> list[statetimeline.Panel | stat.Panel]:
    """Whether it could be reached."""
    connected = f"{q.of(catalogue.LOCK_CONNECTED, q.SHOWN_LOCKS)}[$__range]"
    return [
        timeline(
            "Connection over time",
            "When its bridge reached it. Locks that go offline together share a bridge or its network.",
            q.named(q.now(catalogue.LOCK_CONNECTED, q.SHOWN_LOCKS), q.SHOWN_LOCKS),
            Reading(words=words.CONNECTIONS),
        )
        .span(16)
        .height(7),
        of_locks(
            "Connected",
            "The part of the time range, as far as anything is known of it, in which its bridge reached it. Move the "
            "bridge nearer if it is much below 100 %.",
            f"sum by {q.BY_ID} (sum_over_time({connected})) / sum by {q.BY_ID} (count_over_time({connected}))",
            Reading(
                "percentunit",
                steps=((None, "quiet"), (0, "bad"), (0.95, "warn"), (0.99, "good")),
                decimals=1,
                unsaid="no bridge",
            ),
        )
        .span(8)
        .height(7),
    ]


def facts() -> table.Panel:
    """What it is."""
    titles = {
        "lock_name": "Lock",
        "account": "Account",
        "serial_number": "Serial number",
        "model": "Model",
        "firmware_version": "Firmware",
        "bridge_id": "Bridge",
        "time_zone": "Time zone",
        "organization_id": "Organization",
        "lock_id": "Id",
    }
    return sheet(
        "Facts",
        "What Tedee says of the lock itself. The id changes when a lock is removed and added again, the serial number "
        "does not. The revision moves when a setting or the name changes. Firmware is updated in Tedee's app.",
        [
            *(Column(label, title) for label, title in titles.items()),
            Column("update", "Update", Reading(words=words.UPDATES), PAINTED),
            Column("revision", "Revision", Reading("none", decimals=0)),
        ],
        {
            "info": f"topk by {q.BY_ID} "
            f"(1, group by ({', '.join(titles)}) ({q.of(catalogue.LOCK_INFO, q.SHOWN_LOCKS)}))",
            "update": q.latest(catalogue.LOCK_FIRMWARE_UPDATE_AVAILABLE, q.SHOWN_LOCKS),
            "revision": q.latest(catalogue.LOCK_REVISION, q.SHOWN_LOCKS),
        },
        [("lock_name", False)],
    ).height(6)
