"""Locks overview: locks that are not secured or have a problem, all locks, and recent changes."""

from dataclasses import replace

from grafana_foundation_sdk.builders import stat, table, timeseries

from exporter.metrics import catalogue
from exporter.tedee.models import DoorState, LockState

from . import queries as q
from . import value_mappings, variables
from .dashboard import Dashboard, PanelGroup
from .panels import COLOURED_CELL, GAUGE_CELL, Column, ValueFormat, line_panel, stat_panel, table_panel
from .value_mappings import JAMMED, LOW_BATTERY

MAX_ROWS = 500
"""Rows in the table of locks. Locks that need attention come first."""
RECENT_CHANGES = 20
"""Rows in the table of recent changes."""

SHOWN = f"topk({MAX_ROWS}, {q.attention(q.LOCKS, 'by (lock_id)')})"
DETAIL_URL = (
    "/d/tedee-lock?${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${account:queryparam}"
    "&var-lock=${__data.fields.ID}&${__url_time_range}"
)

JAMMED_VALUE, ERROR_VALUE = -1, -2
"""Values of the column "State" for a failed state change. As on the status page, it takes precedence over the state."""
FAILURES = {JAMMED_VALUE: value_mappings.RESULTS[JAMMED], ERROR_VALUE: value_mappings.OTHER_ERROR}
STATE = ValueFormat(texts=value_mappings.STATES, thresholds=((None, "quiet"), (0, "bad")))
"""Format of lock states. An unknown code is shown as a problem."""

COUNT_UNIT = "none"

MAX_POINTS = 200
"""Maximum points of a line that counts locks. Each point evaluates the series of up to MAX_ROWS locks."""
BATTERY = ValueFormat(
    "percent", thresholds=((None, "quiet"), (0, "bad"), (LOW_BATTERY + 1, "good")), decimals=0, minimum=0, maximum=100
)
RESULT = ValueFormat(texts=value_mappings.RESULTS, text_above=value_mappings.OTHER_ERROR)

NAME = Column("lock_name", "Lock", width=220, link=("Lock details", DETAIL_URL))
ACCOUNT = Column("account", "Account", width=140)
ID = Column("lock_id", "ID", width=90)


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        uid="tedee-locks",
        title="Tedee: locks",
        description="Locks that are not secured or have a problem, all locks, and recent changes.",
        time_range="24h",
        variables=variables.with_common_variables(variables.locks(), variables.shown(SHOWN, "lock_id")),
        alerts=q.firing_alerts('account=~"$account|", lock_id=~"$lock|"'),
        groups=[PanelGroup([*counts(), all_locks(), recent_changes(), counts_over_time()])],
    )


def counts() -> list[stat.Panel]:
    """Return the panels with the current numbers of locks and accounts."""
    return [
        count_panel(
            "Not secured",
            "Locks that are not confirmed locked with a closed door, including offline locks. A door without a sensor "
            "counts as closed; locks without a bridge are not counted. `no data` means that an account is not "
            "reported.",
            q.not_secured_count(q.LOCKS),
            "warn",
        ).span(6),
        count_panel(
            "Unlocked",
            "Locks that are unlocked or pulled. Lock them in the Tedee app or on site.",
            q.count_locks(q.unlocked(q.LOCKS), q.series(catalogue.LOCK_STATE, q.LOCKS)),
            "warn",
        ),
        count_panel(
            "Open doors",
            "Locks whose sensor reports an open door. There is no data if no door sensor reports.",
            q.count_locks(q.open_doors(q.LOCKS), q.door_sensors(q.LOCKS)),
            "warn",
        ),
        count_panel(
            "Jammed or unknown",
            "Locks whose last state change failed, or that are semi-locked, uncalibrated or in an unknown state. Check "
            "that the door is closed, then operate the lock again. Calibrate it in the Tedee app if the app asks for "
            "it.",
            q.count_locks(q.jammed_or_unknown(q.LOCKS), q.series(catalogue.LOCK_STATE, q.LOCKS)),
            "bad",
        ),
        count_panel(
            "Offline",
            "Locks that are not connected to their bridge; their state is unknown. Check the power and network of the "
            "bridge and the battery of the lock.",
            q.count_locks(q.offline(q.LOCKS), q.series(catalogue.LOCK_CONNECTED, q.LOCKS)),
            "bad",
        ),
        count_panel(
            "Low batteries",
            f"Locks with a battery level of {LOW_BATTERY} % or less that are not charging. Charge the lowest first.",
            q.count_locks(q.low_battery(q.LOCKS), q.series(catalogue.LOCK_BATTERY_LEVEL, q.LOCKS)),
            "bad",
        ),
        count_panel(
            "Accounts without data",
            "Accounts that were reported before but whose locks are not reported now. The other numbers do not include "
            "their locks. The exporter dashboard shows the cause.",
            f"count({q.accounts_without_data()}) or 0 * count({q.accounts()})",
            "bad",
        ),
    ]


def count_panel(title: str, description: str, expression: str, severity: str) -> stat.Panel:
    """Build a panel with a number that has the given severity above 0."""
    value_format = ValueFormat(COUNT_UNIT, thresholds=((None, "quiet"), (0, "good"), (1, severity)), no_value="no data")
    return stat_panel(title, description, expression, value_format).span(3)


def all_locks() -> table.Panel:
    """Return the table of all locks."""
    return table_panel(
        "Locks",
        "The selected locks: first those with a problem, then those that are not secured, then the others by name. At "
        f"most {MAX_ROWS} locks are listed. The name links to the lock's details.",
        [
            NAME,
            ACCOUNT,
            Column("state", "State", replace(STATE, texts={**value_mappings.STATES, **FAILURES}), COLOURED_CELL, 130),
            Column("door", "Door", ValueFormat(texts=value_mappings.DOORS), COLOURED_CELL, 120),
            Column("battery", "Battery", BATTERY, GAUGE_CELL),
            Column("charging", "Charging", ValueFormat(texts=value_mappings.CHARGING), width=100),
            Column("connection", "Connection", ValueFormat(texts=value_mappings.CONNECTIONS), COLOURED_CELL, 110),
            Column("changed", "Last change", ValueFormat("dateTimeFromNow"), width=150),
            Column("firmware_version", "Firmware", width=120),
            Column("update", "Update", ValueFormat(texts=value_mappings.UPDATES), width=140),
            ID,
        ],
        {
            "state": states(q.SHOWN_LOCKS),
            "door": q.door_states(q.SHOWN_LOCKS),
            "battery": q.lowest(catalogue.LOCK_BATTERY_LEVEL, q.SHOWN_LOCKS),
            "charging": q.lowest(catalogue.LOCK_CHARGING, q.SHOWN_LOCKS),
            "connection": q.lowest(catalogue.LOCK_CONNECTED, q.SHOWN_LOCKS),
            "changed": f"{q.highest(catalogue.LOCK_LAST_STATE_CHANGE, q.SHOWN_LOCKS)} * 1000",
            "name": names(q.SHOWN_LOCKS),
            "update": q.highest(catalogue.LOCK_FIRMWARE_UPDATE_AVAILABLE, q.SHOWN_LOCKS),
            "attention": q.attention(q.SHOWN_LOCKS, f"by {q.BY_ID}"),
        },
        [("lock_name", False), ("Value #attention", True)],
    ).height(14)


def recent_changes() -> table.Panel:
    """Return the table of recent state changes."""
    changes = f"topk({RECENT_CHANGES}, {q.highest(catalogue.LOCK_LAST_STATE_CHANGE, q.LOCKS)})"
    of_those = f"and on {q.BY_ID} {changes}"
    return (
        table_panel(
            "Recent changes",
            f"The {RECENT_CHANGES} locks whose state changed last. The activity log in the Tedee app shows who "
            "operated a lock.",
            [
                Column("changed", "Last change", ValueFormat("dateTimeFromNow"), width=150),
                NAME,
                ACCOUNT,
                Column("state", "State", STATE, COLOURED_CELL, 130),
                Column("result", "Result", RESULT, COLOURED_CELL, 130),
                ID,
            ],
            {
                "changed": f"{changes} * 1000",
                "name": f"{q.lock_names(q.LOCKS)} {of_those}",
                "state": f"({q.lock_states(q.LOCKS)}) {of_those}",
                "result": f"{q.highest(catalogue.LOCK_STATE_CHANGE_RESULT, q.LOCKS)} {of_those}",
            },
            [("Value #changed", True)],
        )
        .span(14)
        .height(10)
    )


def counts_over_time() -> timeseries.Panel:
    """Return the panel with the numbers of locks over time."""
    conditions = {
        "not locked": (catalogue.LOCK_STATE, f"!= bool {LockState.LOCKED.value}"),
        "door open": (catalogue.LOCK_DOOR_STATE, f"== bool {DoorState.OPENED.value}"),
        "offline": (catalogue.LOCK_CONNECTED, "== bool 0"),
    }
    queries = {
        legend: q.count_matching(metric, q.SHOWN_LOCKS, comparison)
        for legend, (metric, comparison) in conditions.items()
    }
    low = q.count_locks(q.low_battery(q.SHOWN_LOCKS), q.series(catalogue.LOCK_BATTERY_LEVEL, q.SHOWN_LOCKS))
    return (
        line_panel(
            "Lock status over time",
            "Number of the listed locks in each condition. Check a lock whose line never returns to 0. Locks that go "
            "offline at the same time usually share a bridge or a network.",
            {**queries, "low battery": low},
            ValueFormat(COUNT_UNIT, decimals=0, minimum=0),
        )
        .max_data_points(MAX_POINTS)
        .span(10)
        .height(10)
    )


def states(matchers: str) -> str:
    """Return an expression for the state of each lock, or for the failure of its last state change."""
    result = q.series(catalogue.LOCK_STATE_CHANGE_RESULT, matchers)
    return f"min by {q.BY_ID} (-clamp_max({result} > 0, {-ERROR_VALUE})) or {q.lock_states(matchers)}"


def names(matchers: str) -> str:
    """Return an expression for name and firmware of each lock. A new lock has a name before its firmware is known."""
    info = f"group by (account, lock_id, lock_name, firmware_version) ({q.series(catalogue.LOCK_INFO, matchers)})"
    return f"topk by {q.BY_ID} (1, {info} or on {q.BY_ID} {q.lock_names(matchers)})"
