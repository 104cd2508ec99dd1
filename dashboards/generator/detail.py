"""Lock details: one lock, or a few side by side."""

from dataclasses import replace

from grafana_foundation_sdk.builders import statetimeline, table, timeseries

from exporter.metrics import catalogue

from . import queries as q
from . import value_mappings, variables
from .alert_table import alert_table
from .colours import MAX_SERIES
from .dashboard import Dashboard, PanelGroup
from .devices import BATTERY as ACCESSORY_BATTERY
from .devices import WRONG_PINS, event_numbers, events_by_source
from .overview import (
    ACCOUNT,
    BATTERY,
    CONNECTION,
    DAYS_LEFT,
    DOOR,
    EMPTY,
    HEATMAP_DAYS,
    LAST_CHANGE,
    RESULT,
    SHARE,
    STATE,
    UPDATE,
    use_by_lock,
)
from .panels import (
    COLOURED_CELL,
    HOURS_HEIGHT,
    LOCK_LEGEND,
    Column,
    ValueFormat,
    bar_panel,
    hours_panel,
    line_panel,
    table_panel,
    timeline_panel,
)
from .value_mappings import LOW_BATTERY

SHOWN = (
    f"topk({MAX_SERIES}, max by (lock_id) {q.with_recent(q.series(catalogue.LOCK_LAST_STATE_CHANGE, q.LOCKS))}"
    f" or 0 * group by (lock_id) {q.with_recent(q.series(catalogue.LOCK_REVISION, q.LOCKS))})"
)
TABLE_HEIGHT = 8
"""Height of a table with MAX_SERIES rows."""
ALERT_MATCHERS = f'{q.ANY_ALERT}, account=~"$account|", lock_id=~"$lock|"'


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        uid="tedee-lock",
        title="Tedee: lock",
        description="State, door, battery, connection and properties of the selected lock. If several are selected, "
        f"the {MAX_SERIES} locks whose state changed last are shown.",
        time_range="24h",
        variables=variables.with_common_variables(variables.locks(), variables.shown(SHOWN, "lock_id")),
        alerts=q.started_alerts(ALERT_MATCHERS),
        groups=[
            PanelGroup([now(), *states(), battery(), connection(), properties()]),
            PanelGroup([state_changes(), use()], "Use", folded=True),
            PanelGroup(
                [events(), wrong_pins(), events_by_hour(), event_numbers(q.SHOWN_LOCKS).span(12).height(HOURS_HEIGHT)],
                "Events",
                folded=True,
            ),
            PanelGroup([alerts()], "Alerts", folded=True),
        ],
    )


def now() -> table.Panel:
    """Return the table of the current values."""
    connected = q.series(catalogue.LOCK_CONNECTED, q.SHOWN_LOCKS)
    return table_panel(
        "Current values",
        "Current values of each lock; `no data` means that the lock is offline or its account is not reported. Days "
        f"left is the time until the battery reaches {EMPTY} %; connected is the share of the time with data. If more "
        f"than {MAX_SERIES} locks are selected, this dashboard shows the {MAX_SERIES} whose state changed last.",
        [
            Column("lock_name", "Lock", min_width=110),
            replace(ACCOUNT, filterable=False),
            Column("state", "State", STATE, cell=COLOURED_CELL, width=100),
            Column("door", "Door", DOOR, cell=COLOURED_CELL, width=95),
            Column("connection", "Connection", CONNECTION, cell=COLOURED_CELL, width=105),
            Column("battery", "Battery", BATTERY, cell=COLOURED_CELL, width=75),
            Column("days", "Days left", replace(DAYS_LEFT, no_value="no trend"), cell=COLOURED_CELL, width=95),
            Column("charging", "Charging", ValueFormat(texts=value_mappings.CHARGING), width=80),
            Column("changed", "Last change", LAST_CHANGE, width=140),
            Column("result", "Result", RESULT, cell=COLOURED_CELL, width=75),
            Column("connected", "Connected", SHARE, cell=COLOURED_CELL, width=95),
        ],
        {
            "name": q.or_hint(q.recent_lock_names(q.SHOWN_LOCKS), "lock_name"),
            "state": q.lock_states(q.SHOWN_LOCKS),
            "door": q.door_states(q.SHOWN_LOCKS),
            "connection": q.connections(q.SHOWN_LOCKS),
            "battery": q.lowest(catalogue.LOCK_BATTERY_LEVEL, q.SHOWN_LOCKS),
            "days": q.days_until(EMPTY, q.SHOWN_LOCKS),
            "charging": q.lowest(catalogue.LOCK_CHARGING, q.SHOWN_LOCKS),
            "changed": f"{q.highest(catalogue.LOCK_LAST_STATE_CHANGE, q.SHOWN_LOCKS)} * 1000",
            "result": q.highest(catalogue.LOCK_STATE_CHANGE_RESULT, q.SHOWN_LOCKS),
            # A lock that is not reported now has no share: it would show a good connection for the time before. An
            # exporter counts for as long as it has reported the lock.
            "connected": f"sum by {q.BY_ID} (sum_over_time({connected}[$__range]) and {connected})"
            f" / sum by {q.BY_ID} (count_over_time({connected}[$__range]) and {connected})",
        },
        [("lock_name", False)],
    ).height(TABLE_HEIGHT)


def states() -> list[statetimeline.Panel]:
    """Return the timelines of lock and door states."""
    return [
        timeline_panel(
            "State over time",
            "State of the lock over time. Gaps are times without data: the lock was offline, or the account was not "
            "reported.",
            q.with_names(q.lock_states(q.SHOWN_LOCKS), q.SHOWN_LOCKS),
            STATE,
        ).span(12),
        timeline_panel(
            "Door over time",
            "State of the door over time, by its sensor. A door that opens while the lock is locked was not secured.",
            q.with_names(q.door_states(q.SHOWN_LOCKS), q.SHOWN_LOCKS),
            DOOR,
        ).span(12),
    ]


def battery() -> timeseries.Panel:
    """Return the panel with the battery levels over time."""
    level = q.lowest(catalogue.LOCK_BATTERY_LEVEL, q.SHOWN_LOCKS)
    return line_panel(
        "Battery level over time",
        f"Battery level over time; {LOW_BATTERY} % and less is low. If it falls faster than before, the lock may be "
        "hard to turn: check the hinges and the strike plate.",
        {LOCK_LEGEND: q.with_names(level, q.SHOWN_LOCKS)},
        BATTERY,
        steps=True,
    ).span(12)


def connection() -> statetimeline.Panel:
    """Return the timeline of the connections to the bridge."""
    return timeline_panel(
        "Connection over time",
        "Connection of the lock to its bridge over time. Locks that go offline at the same time usually share a bridge "
        "or a network.",
        q.with_names(q.lowest(catalogue.LOCK_CONNECTED, q.SHOWN_LOCKS), q.SHOWN_LOCKS),
        ValueFormat(texts=value_mappings.CONNECTIONS),
    ).span(12)


def alerts() -> table.Panel:
    """Return the table of firing alerts."""
    return alert_table(ALERT_MATCHERS, Column("device", "Device", width=250)).height(7)


def state_changes() -> timeseries.Panel:
    """Return the panel with the state changes of each lock over time."""
    return bar_panel(
        "State changes per hour",
        "State changes of each lock in each hour. The activity log in the Tedee app shows who operated the lock.",
        q.with_names(q.state_changes(q.SHOWN_LOCKS, "1h"), q.SHOWN_LOCKS),
        LOCK_LEGEND,
        width="1h",
    ).span(24)


def use() -> table.Panel:
    """Return the table of the use of each lock."""
    return use_by_lock()


def events() -> timeseries.Panel:
    """Return the panel with the events over time."""
    return events_by_source(q.SHOWN_LOCKS).span(12)


def wrong_pins() -> timeseries.Panel:
    """Return the panel with wrong PINs over time."""
    pins = q.events(f"{q.SHOWN_LOCKS}, {WRONG_PINS}", "$__interval", q.BY_ID)
    return (
        bar_panel(
            "Wrong PINs over time",
            "PINs that were wrong, or not permitted at that time, at each lock. Tedee receives several wrong PINs at "
            "once, and the exporter counts them when it receives them.",
            f"{q.with_names(pins, q.SHOWN_LOCKS)} > 0",
            LOCK_LEGEND,
            width="1h",
            no_data="no wrong PINs, or events are not enabled",
        )
        .span(12)
        .height(10)
    )


def events_by_hour() -> table.Panel:
    """Return the table of events by day and hour."""
    return hours_panel(
        "Events by hour",
        f"Events of the locks in each hour of the last {HEATMAP_DAYS} days, in the time zone of the dashboard. Hours "
        "are empty if events are not enabled.",
        f"sum({q.events(q.SHOWN_LOCKS, '1h', offset=' offset -1h')})",
        f"group(last_over_time({q.series(catalogue.BUILD_INFO, q.EXPORTERS)}[{HEATMAP_DAYS}d] @ end()))",
        HEATMAP_DAYS,
    )


def properties() -> table.Panel:
    """Return the table of the lock's properties."""
    widths = {
        "lock_name": ("Lock", None),
        "firmware_version": ("Firmware", 95),
        "model": ("Model", 85),
        "serial_number": ("Serial number", 120),
        "bridge_name": ("Bridge", 100),
        "time_zone": ("Time zone", 125),
        "account": ("Account", 110),
        "lock_id": ("ID", 80),
    }
    hidden = {
        "bridge_id": "Bridge ID",
        "keypad_id": "Keypad ID",
        "door_sensor_id": "Door sensor ID",
        "organization_id": "Organization ID",
    }
    name, *labels = (
        Column(label, title, width=width, min_width=None if width else 100) for label, (title, width) in widths.items()
    )
    info = f"group by ({', '.join([*widths, *hidden])}) ({q.series(catalogue.LOCK_INFO, q.SHOWN_LOCKS)})"
    accessory = replace(ACCESSORY_BATTERY, no_value="none")
    return table_panel(
        "Properties",
        "Properties that Tedee reports for the lock, with the lowest batteries of its keypads and door sensors; `no "
        "level` means that the level has not changed for 30 days. The ID changes if the lock is removed and added "
        "again, the serial number does not.",
        [
            name,
            Column("keypad", "Keypad", accessory, cell=COLOURED_CELL, width=80),
            Column("sensor", "Door sensor", accessory, cell=COLOURED_CELL, width=95),
            Column("update", "Update", UPDATE, cell=COLOURED_CELL, width=85),
            *labels,
            *(Column(label, title, hidden=True) for label, title in hidden.items()),
        ],
        {
            "info": q.or_hint(f"topk by {q.BY_ID} (1, {info})", "lock_name"),
            "update": q.highest(catalogue.LOCK_FIRMWARE_UPDATE_AVAILABLE, q.SHOWN_LOCKS),
            "keypad": q.accessory_batteries(catalogue.KEYPAD_BATTERY, catalogue.KEYPAD_INFO, q.KEYPAD_ID),
            "sensor": q.accessory_batteries(
                catalogue.DOOR_SENSOR_BATTERY, catalogue.DOOR_SENSOR_INFO, q.DOOR_SENSOR_ID
            ),
        },
        [("lock_name", False)],
    ).height(TABLE_HEIGHT)
