"""Lock details: one lock, or a few side by side."""

from dataclasses import replace

from grafana_foundation_sdk.builders import stat, statetimeline, table, timeseries

from exporter.metrics import catalogue

from . import queries as q
from . import value_mappings, variables
from .colours import MAX_SERIES
from .dashboard import Dashboard, PanelGroup
from .overview import BATTERY, RESULT, STATE
from .panels import (
    COLOURED_CELL,
    LOCK_LEGEND,
    Column,
    ValueFormat,
    line_panel,
    stat_panel,
    table_panel,
    timeline_panel,
)
from .value_mappings import LOW_BATTERY, Display

EMPTY = 10
"""Percent. Level for which the battery forecast is made."""

SHOWN = (
    f"topk({MAX_SERIES}, max by (lock_id) {q.with_recent(q.series(catalogue.LOCK_LAST_STATE_CHANGE, q.LOCKS))}"
    f" or 0 * group by (lock_id) {q.with_recent(q.series(catalogue.LOCK_REVISION, q.LOCKS))})"
)


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        uid="tedee-lock",
        title="Tedee: lock",
        description="State, door, battery, connection and properties of the selected lock. If several are selected, "
        f"the {MAX_SERIES} locks whose state changed last are shown.",
        time_range="24h",
        variables=variables.with_common_variables(variables.locks(), variables.shown(SHOWN, "lock_id")),
        alerts=q.firing_alerts('account=~"$account|", lock_id=~"$shown|"'),
        groups=[PanelGroup([*current_values(), *states(), *battery(), *connection(), properties()])],
    )


def current_values() -> list[stat.Panel]:
    """Return the first line of panels, with the current values."""
    return [
        value_panel(
            "State",
            "Current state of the lock. There is no data while the lock is offline.",
            q.lock_states(q.SHOWN_LOCKS),
            replace(STATE, no_value="no data"),
        ),
        value_panel(
            "Door",
            "Current state of the door, by its sensor. `not paired` means that the lock has no door sensor.",
            q.door_states(q.SHOWN_LOCKS),
            ValueFormat(texts=value_mappings.DOORS, no_value="no data"),
        ),
        value_panel(
            "Connection",
            "Connection of the lock to its bridge. If it is offline, check the power and network of the bridge and the "
            "battery of the lock.",
            q.lowest(catalogue.LOCK_CONNECTED, q.SHOWN_LOCKS),
            ValueFormat(texts=value_mappings.CONNECTIONS, no_value="no bridge"),
        ),
        value_panel(
            "Last change",
            "Time of the last state change. The activity log in the Tedee app shows who operated the lock.",
            f"{q.highest(catalogue.LOCK_LAST_STATE_CHANGE, q.SHOWN_LOCKS)} * 1000",
            ValueFormat("dateTimeFromNow", no_value="no data"),
        ),
        value_panel(
            "Last result",
            "Result of the last state change. If the lock jammed, check that the door is closed, then operate the lock "
            "again.",
            q.highest(catalogue.LOCK_STATE_CHANGE_RESULT, q.SHOWN_LOCKS),
            replace(RESULT, no_value="no data"),
        ),
        value_panel(
            "Charging",
            "Whether a charger is connected. If the level stays low while charging, the cable is faulty or the battery "
            "is worn out.",
            q.lowest(catalogue.LOCK_CHARGING, q.SHOWN_LOCKS),
            ValueFormat(texts=value_mappings.CHARGING, no_value="no data"),
        ),
    ]


def value_panel(title: str, description: str, expression: str, value_format: ValueFormat) -> stat.Panel:
    """Build a panel of the first line."""
    return lock_panel(title, description, expression, value_format).span(4).height(5)


def lock_panel(title: str, description: str, expression: str, value_format: ValueFormat) -> stat.Panel:
    """Build a panel with a named value for each lock, including locks without a value.

    If locks without a value were left out, the value of one lock would appear to be that of all selected locks.
    """
    texts = {q.NOT_KNOWN: Display(value_format.no_value), **value_format.texts}
    value_format = replace(value_format, texts=texts)
    return stat_panel(title, description, q.for_each_lock(expression, q.SHOWN_LOCKS), value_format, LOCK_LEGEND)


def states() -> list[statetimeline.Panel]:
    """Return the timelines of lock and door states."""
    return [
        timeline_panel(
            "State over time",
            "State of the lock over time. Gaps are times without data: the lock was offline, or the account was not "
            "reported.",
            q.with_names(q.lock_states(q.SHOWN_LOCKS), q.SHOWN_LOCKS),
            replace(STATE, thresholds=((None, "bad"),)),
        ).span(12),
        timeline_panel(
            "Door over time",
            "State of the door over time, by its sensor. A door that opens while the lock is locked was not secured.",
            q.with_names(q.door_states(q.SHOWN_LOCKS), q.SHOWN_LOCKS),
            ValueFormat(texts=value_mappings.DOORS),
        ).span(12),
    ]


def battery() -> list[timeseries.Panel | stat.Panel]:
    """Return the panels about the battery."""
    level = q.lowest(catalogue.LOCK_BATTERY_LEVEL, q.SHOWN_LOCKS)
    return [
        line_panel(
            "Battery level over time",
            f"Battery level over time; {LOW_BATTERY} % and less is low. If it falls faster than before, the lock may "
            "be hard to turn: check the hinges and the strike plate.",
            {LOCK_LEGEND: q.with_names(level, q.SHOWN_LOCKS)},
            BATTERY,
        ).span(16),
        lock_panel(
            "Battery level",
            f"Current battery level. Charge the battery at {LOW_BATTERY} %.",
            level,
            ValueFormat("percent", thresholds=BATTERY.thresholds, decimals=0, no_value="no data"),
        )
        .span(4)
        .height(8),
        lock_panel(
            f"Days until {EMPTY} %",
            f"Days until the battery reaches {EMPTY} %, by its trend over {q.LONG_TREND_DAYS} days, or over "
            f"{q.SHORT_TREND_DAYS} days if the level falls fast. There is no trend if the level fell too little, the "
            "history is too short, or the battery was charged.",
            q.days_until(EMPTY, q.SHOWN_LOCKS),
            ValueFormat(
                # Grafana's unit for days would show 7 days as 1 week.
                "suffix:days",
                {q.MAX_DAYS: Display(f"{q.MAX_DAYS} days or more", "good")},
                thresholds=((None, "quiet"), (0, "bad"), (7, "warn"), (14, "good")),
                decimals=0,
                no_value="no trend",
            ),
        )
        .span(4)
        .height(8),
    ]


def connection() -> list[statetimeline.Panel | stat.Panel]:
    """Return the panels about the connection to the bridge."""
    connected = f"{q.series(catalogue.LOCK_CONNECTED, q.SHOWN_LOCKS)}[$__range]"
    return [
        timeline_panel(
            "Connection over time",
            "Connection of the lock to its bridge over time. Locks that go offline at the same time usually share a "
            "bridge or a network.",
            q.with_names(q.lowest(catalogue.LOCK_CONNECTED, q.SHOWN_LOCKS), q.SHOWN_LOCKS),
            ValueFormat(texts=value_mappings.CONNECTIONS),
        )
        .span(16)
        .height(7),
        lock_panel(
            "Connected time",
            "Share of the time range in which the lock was connected to its bridge. Times without data are not "
            "counted. If the share is well below 100 %, move the bridge nearer to the lock.",
            f"sum by {q.BY_ID} (sum_over_time({connected})) / sum by {q.BY_ID} (count_over_time({connected}))",
            ValueFormat(
                "percentunit",
                thresholds=((None, "quiet"), (0, "bad"), (0.95, "warn"), (0.99, "good")),
                decimals=1,
                no_value="no bridge",
            ),
        )
        .span(8)
        .height(7),
    ]


def properties() -> table.Panel:
    """Return the table of the lock's properties."""
    titles = {
        "lock_name": "Lock",
        "account": "Account",
        "serial_number": "Serial number",
        "model": "Model",
        "firmware_version": "Firmware",
        "bridge_id": "Bridge ID",
        "time_zone": "Time zone",
        "organization_id": "Organization ID",
        "lock_id": "ID",
    }
    return table_panel(
        "Properties",
        "Properties that Tedee reports for the lock. The ID changes if the lock is removed and added again, the serial "
        "number does not. The revision changes with each change of a setting or the name.",
        [
            *(Column(label, title) for label, title in titles.items()),
            Column("update", "Update", ValueFormat(texts=value_mappings.UPDATES), COLOURED_CELL),
            Column("revision", "Revision", ValueFormat("none", decimals=0)),
        ],
        {
            "info": f"topk by {q.BY_ID} "
            f"(1, group by ({', '.join(titles)}) ({q.series(catalogue.LOCK_INFO, q.SHOWN_LOCKS)}))",
            "update": q.highest(catalogue.LOCK_FIRMWARE_UPDATE_AVAILABLE, q.SHOWN_LOCKS),
            "revision": q.highest(catalogue.LOCK_REVISION, q.SHOWN_LOCKS),
        },
        [("lock_name", False)],
    ).height(6)
