"""Locks overview: locks that are not secured or have a problem, all locks, alerts, and how the locks are used."""

from dataclasses import replace

from grafana_foundation_sdk.builders import stat, table, timeseries

from exporter.metrics import catalogue

from . import queries as q
from . import value_mappings, variables
from .alert_table import alert_table
from .dashboard import Dashboard, PanelGroup
from .panels import (
    AXIS_OF_EVENTS,
    COLOURED_CELL,
    HOURS_HEIGHT,
    Column,
    ValueFormat,
    hours_panel,
    line_panel,
    stat_panel,
    table_panel,
)
from .value_mappings import JAMMED, LOW_BATTERY, NO_VALUE, Display

MAX_ROWS = 500
"""If at most as many locks are selected, the tables list all of them."""
MAX_IDS = 80
"""Locks that the tables list otherwise: half of them need most attention, a quarter have the lowest batteries, and a
quarter the lowest availability. Each query has the ids of all of them: with many more, a URL would be too long."""
LISTED = (
    f" If more than {MAX_ROWS} locks are selected, {MAX_IDS} are listed: those that need most attention, with the "
    "lowest batteries, and with the lowest availability."
)

RECENT_CHANGES = 20
"""Rows in the table of recent changes."""
AVAILABILITY_DAYS, HEATMAP_DAYS = 30, 7
EMPTY = 10
"""Percent. Level for which the battery forecast is made."""

DETAIL_URL = (
    "/d/tedee-lock?${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${account:queryparam}"
    "&var-lock=${__data.fields.ID}&${__url_time_range}"
)

ALERT_MATCHERS = f'{q.ANY_ALERT}, account=~"$account|", lock_id=~"$lock|"'

JAMMED_VALUE, ERROR_VALUE = -1, -2
"""Values of the column "State" for a failed state change. As on the status page, it takes precedence over the state."""
FAILURES = {JAMMED_VALUE: value_mappings.RESULTS[JAMMED], ERROR_VALUE: value_mappings.OTHER_ERROR}
NO_DATA = "no data"
"""Text for a lock that is offline, or whose account is not reported."""
STATE = ValueFormat(texts=value_mappings.STATES, thresholds=((None, "quiet"), (0, "bad")), no_value=NO_DATA)
"""Format of lock states. An unknown code is shown as a problem."""
STATE_OR_FAILURE = replace(STATE, texts={**value_mappings.STATES, **FAILURES})
DOOR = ValueFormat(texts=value_mappings.DOORS, thresholds=((None, "quiet"), (0, "quiet")))
CONNECTION = ValueFormat(texts={**value_mappings.CONNECTIONS, q.NO_BRIDGE: Display("no bridge")}, no_value=NO_DATA)
LAST_CHANGE = ValueFormat("dateTimeFromNow", {q.NO_CHANGE: NO_VALUE})
UPDATE = ValueFormat(texts=value_mappings.UPDATES)

COUNT_UNIT = "none"
COUNT = ValueFormat(COUNT_UNIT, decimals=0, minimum=0)

MIN_WINDOW = "2m"
"""Minimum step of the numbers of locks, so that each step has samples if Prometheus scrapes once a minute."""
MAX_POINTS = 200
"""Maximum points of a line that counts locks. Each point evaluates the series of all selected locks."""
BATTERY = ValueFormat(
    "percent",
    thresholds=((None, "quiet"), (0, "bad"), (EMPTY + 1, "warn"), (LOW_BATTERY + 1, "good")),
    decimals=0,
    minimum=0,
    maximum=100,
)
DAYS_LEFT = ValueFormat(
    # Grafana's unit for days would show 7 days as 1 week.
    "suffix:days",
    {q.MAX_DAYS: Display(f"{q.MAX_DAYS} days or more", "good"), q.NO_TREND: Display("no trend")},
    thresholds=((None, "quiet"), (0, "bad"), (7, "warn"), (14, "good")),
    decimals=0,
)
SHARE = ValueFormat(
    "percentunit",
    thresholds=((None, "quiet"), (0, "bad"), (0.95, "warn"), (0.99, "good")),
    decimals=1,
    minimum=0,
    maximum=1,
)
MINUTES = ValueFormat("suffix:min", decimals=0)
RESULT = ValueFormat(texts=value_mappings.RESULTS, text_above=value_mappings.OTHER_ERROR)

NAME = Column("lock_name", "Lock", link=("Lock details", DETAIL_URL), filterable=True)
ACCOUNT = Column("account", "Account", width=110, filterable=True)
ID = Column("lock_id", "ID", hidden=True)


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        uid="tedee-locks",
        title="Tedee: locks",
        description="Locks that are not secured or have a problem, all locks, alerts, and how the locks are used.",
        time_range="24h",
        variables=variables.with_common_variables(
            variables.missing(q.accounts_without_data()), variables.locks(), variables.shown(listed_locks(), "lock_id")
        ),
        alerts=q.started_alerts(ALERT_MATCHERS),
        groups=[
            PanelGroup([*counts(), all_locks(), alerts(), recent_changes(), counts_over_time()]),
            PanelGroup([batteries()], "Batteries", folded=True),
            PanelGroup([use_by_hour(), use_by_lock(LISTED).span(12).height(HOURS_HEIGHT)], "Use", folded=True),
            PanelGroup(
                [availability_by_lock(), availability_by_bridge(), firmware_versions()],
                "Availability and firmware",
                folded=True,
            ),
        ],
    )


def listed_locks() -> str:
    """Return an expression for the locks in the tables: what the variable `lock` selects, or a limited list of ids."""
    selected = 'label_replace(vector(0), "lock_id", "$lock", "", "")'
    too_many = f"count({q.series(catalogue.LOCK_REVISION, q.LOCKS)}) > {MAX_ROWS}"
    attention = q.attention(q.LOCKS, "by (lock_id)")
    battery = f"min by (lock_id) ({q.series(catalogue.LOCK_BATTERY_LEVEL, q.LOCKS)})"
    connected = f"min by (lock_id) ({q.series(catalogue.LOCK_CONNECTED, q.LOCKS)})"
    first = " or ".join(
        [
            f"topk({MAX_IDS // 2}, {attention})",
            f"bottomk({MAX_IDS // 4}, {battery})",
            f"bottomk({MAX_IDS // 4}, avg_over_time(({connected})[{AVAILABILITY_DAYS}d:12h]))",
        ]
    )
    first = f"({first})"
    return f"{selected} unless on () {too_many} or {first} and on () {too_many}"


def counts() -> list[stat.Panel]:
    """Return the panels with the current numbers of locks, accounts and alerts."""
    return [
        count_panel(
            "Not secured",
            "Locks that are not confirmed locked with a closed door, including offline locks. A door without a sensor "
            "counts as closed; locks without a bridge are not counted. Here and in the next five panels, 0 is shown as "
            "`no data` if an account is not reported.",
            q.unless_unknown(q.not_secured_count(q.LOCKS)),
            "warn",
        ),
        count_panel(
            "Unlocked",
            "Locks that are unlocked or pulled. Lock them in the Tedee app or on site.",
            q.unless_unknown(q.count_locks(q.unlocked(q.LOCKS), q.series(catalogue.LOCK_STATE, q.LOCKS))),
            "warn",
        ),
        count_panel(
            "Open doors",
            "Locks whose sensor reports an open door. There is no data if no door sensor reports.",
            q.unless_unknown(q.sum_of_locks(catalogue.LOCK_DOOR_OPEN, q.LOCKS)),
            "warn",
        ),
        count_panel(
            "Jammed or unknown",
            "Locks whose last state change failed, or that are semi-locked, uncalibrated or in an unknown state. Check "
            "that the door is closed, then operate the lock again. Calibrate it in the Tedee app if the app asks for "
            "it.",
            q.unless_unknown(q.count_locks(q.jammed_or_unknown(q.LOCKS), q.series(catalogue.LOCK_STATE, q.LOCKS))),
            "bad",
        ),
        count_panel(
            "Offline",
            "Locks that are not connected to their bridge; their state is unknown. Check the power and network of the "
            "bridge and the battery of the lock.",
            q.unless_unknown(q.sum_of_others(catalogue.LOCK_CONNECTED, q.LOCKS)),
            "bad",
        ),
        count_panel(
            "Low batteries",
            f"Locks with a battery level of {LOW_BATTERY} % or less that are not charging. Charge the lowest first.",
            q.unless_unknown(q.count_locks(q.low_battery(q.LOCKS), q.series(catalogue.LOCK_BATTERY_LEVEL, q.LOCKS))),
            "warn",
        ),
        count_panel(
            "Accounts without data",
            "Accounts that were reported before but whose locks are not reported now. The other numbers do not include "
            "their locks. The exporter dashboard shows the cause.",
            f"count(group by (account) ({q.last_requests_remaining(q.MISSING_ACCOUNTS)}))"
            f" or 0 * count({q.series(catalogue.UP, q.ACCOUNTS)})",
            "bad",
        ),
        count_panel(
            "Active alerts",
            "Alerts that are firing; the table below lists them. `no rules` means that Prometheus has no results of "
            "the alerting rules.",
            q.alert_count(ALERT_MATCHERS),
            "bad",
            no_value="no rules",
        ),
    ]


def count_panel(
    title: str, description: str, expression: str, severity: str, *, no_value: str = "no data"
) -> stat.Panel:
    """Build a panel with a number that has the given severity above 0."""
    value_format = ValueFormat(COUNT_UNIT, thresholds=((None, "quiet"), (0, "good"), (1, severity)), no_value=no_value)
    return stat_panel(title, description, expression, value_format).span(6)


def all_locks() -> table.Panel:
    """Return the table of all locks."""
    return table_panel(
        "Locks",
        "The selected locks: jammed or unknown, unlocked or open, offline, low battery, others; each by last change. "
        "The name links to the lock's details." + LISTED,
        [
            replace(NAME, min_width=125),
            ACCOUNT,
            Column(
                "state",
                "State",
                STATE_OR_FAILURE,
                cell=COLOURED_CELL,
                width=110,
                filterable=True,
            ),
            Column("door", "Door", DOOR, cell=COLOURED_CELL, width=100, filterable=True),
            Column("battery", "Battery", BATTERY, cell=COLOURED_CELL, width=75),
            Column("connection", "Connection", CONNECTION, cell=COLOURED_CELL, width=120, filterable=True),
            Column("charging", "Charging", ValueFormat(texts=value_mappings.CHARGING), width=80),
            Column("changed", "Last change", LAST_CHANGE, width=140),
            Column("firmware_version", "Firmware", width=95),
            Column("update", "Update", UPDATE, cell=COLOURED_CELL, width=85),
            ID,
        ],
        {
            "state": states(q.SHOWN_LOCKS),
            "door": q.door_states(q.SHOWN_LOCKS),
            "battery": q.lowest(catalogue.LOCK_BATTERY_LEVEL, q.SHOWN_LOCKS),
            "charging": q.lowest(catalogue.LOCK_CHARGING, q.SHOWN_LOCKS),
            "connection": q.connections(q.SHOWN_LOCKS),
            "changed": q.last_changes(q.SHOWN_LOCKS),
            "name": q.or_hint(names(q.SHOWN_LOCKS), "lock_name"),
            "update": q.highest(catalogue.LOCK_FIRMWARE_UPDATE_AVAILABLE, q.SHOWN_LOCKS),
            "attention": q.attention(q.SHOWN_LOCKS, f"by {q.BY_ID}"),
        },
        [("Value #changed", True), ("Value #attention", True)],
    ).height(10)


def alerts() -> table.Panel:
    """Return the table of firing alerts."""
    device, account = Column("device", "Device", width=250), Column("account", "Account", width=200)
    return alert_table(ALERT_MATCHERS, device, account).height(7)


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
                Column("changed", "Last change", ValueFormat("dateTimeFromNow"), width=140),
                replace(NAME, min_width=100, filterable=False),
                replace(ACCOUNT, filterable=False),
                Column("state", "State", STATE_OR_FAILURE, cell=COLOURED_CELL, width=105),
                ID,
            ],
            {
                "changed": f"{changes} * 1000",
                "name": f"{q.lock_names(q.LOCKS)} {of_those}",
                "state": f"({states(q.LOCKS)}) {of_those}",
            },
            [("Value #changed", True)],
        )
        .span(12)
        .height(9)
    )


def counts_over_time() -> timeseries.Panel:
    """Return the panel with the numbers of locks over time."""
    battery = q.series(catalogue.LOCK_BATTERY_LEVEL, q.LOCKS)
    charging = q.series(catalogue.LOCK_CHARGING, q.LOCKS)
    return (
        line_panel(
            "Lock status over time",
            "Number of locks in each condition, every few minutes; short openings and jams are included. Check a lock "
            "whose line never returns to 0. Locks that go offline at the same time usually share a bridge or a "
            "network.",
            {
                "not locked": q.sum_of_others(catalogue.LOCK_LOCKED, q.LOCKS),
                "door open": q.sum_of_locks(catalogue.LOCK_DOOR_OPEN, q.LOCKS, "$__interval"),
                "offline": q.sum_of_others(catalogue.LOCK_CONNECTED, q.LOCKS),
                "jammed": q.sum_of_locks(catalogue.LOCK_JAMMED, q.LOCKS, "$__interval"),
                "low battery": f"sum(max by {q.BY_ID} ({battery} <= bool {LOW_BATTERY} unless {charging} == 1))",
            },
            COUNT,
            steps=True,
        )
        .axis_soft_max(AXIS_OF_EVENTS)
        .interval(MIN_WINDOW)
        .max_data_points(MAX_POINTS)
        .span(12)
        .height(9)
    )


def batteries() -> table.Panel:
    """Return the list of batteries that need a charge first."""
    level = q.lowest(catalogue.LOCK_BATTERY_LEVEL, q.SHOWN_LOCKS)
    return table_panel(
        "Next batteries to charge",
        f"Days until each battery reaches {EMPTY} %, fewest first; then batteries without a trend, lowest level first."
        + LISTED,
        [
            NAME,
            replace(ACCOUNT, width=200),
            Column("days", "Days left", DAYS_LEFT, cell=COLOURED_CELL, width=200),
            Column("battery", "Battery", BATTERY, cell=COLOURED_CELL, width=200),
            ID,
        ],
        {
            "battery": q.with_names(level, q.SHOWN_LOCKS),
            "days": f"{q.days_until(EMPTY, q.SHOWN_LOCKS)} or on {q.BY_ID} {q.NO_TREND} + 0 * {level}",
        },
        [("Value #battery", False), ("Value #days", False)],
    ).height(10)


def use_by_hour() -> table.Panel:
    """Return the table of state changes by day and hour."""
    changes = f"sum({q.state_changes(q.LOCKS, '1h', offset=' offset -1h')})"
    return hours_panel(
        "State changes by hour",
        f"State changes of all selected locks in each hour of the last {HEATMAP_DAYS} days, in the time zone of the "
        "dashboard. Regular changes at unusual hours may need an explanation.",
        changes,
        # With "@ end()", there is a row for every hour of the day, however short the history is.
        f"group(last_over_time({q.series(catalogue.BUILD_INFO, q.EXPORTERS)}[{HEATMAP_DAYS}d] @ end()))",
        HEATMAP_DAYS,
    )


def use_by_lock(note: str = "") -> table.Panel:
    """Return the table of the use of each lock."""
    unlocked = f"(1 - {q.lowest(catalogue.LOCK_LOCKED, q.SHOWN_LOCKS)})[$__range:1m]"
    opened = f"({q.highest(catalogue.LOCK_DOOR_OPEN, q.SHOWN_LOCKS)})[$__range:1m]"
    return table_panel(
        "Use by lock",
        "State changes, minutes not locked and minutes with an open door in the time range of the dashboard. Times "
        "without data are not counted." + note,
        [
            replace(NAME, min_width=120, filterable=False),
            replace(ACCOUNT, filterable=False),
            Column("changes", "Changes", COUNT, width=90),
            Column("unlocked", "Not locked", MINUTES, width=90),
            Column("opened", "Door open", MINUTES, width=90),
            ID,
        ],
        {
            "changes": q.with_recent_names(q.state_changes(q.SHOWN_LOCKS, "$__range"), q.SHOWN_LOCKS),
            "unlocked": q.with_recent_names(f"sum_over_time({unlocked})", q.SHOWN_LOCKS),
            "opened": q.with_recent_names(f"sum_over_time({opened})", q.SHOWN_LOCKS),
        },
        [("Value #changes", True)],
    ).height(10)


def availability_by_lock() -> table.Panel:
    """Return the list of locks by the share of time in which they were connected."""
    return (
        table_panel(
            "Availability by lock",
            f"Share of the last {AVAILABILITY_DAYS} days in which each lock was connected to its bridge, lowest first. "
            "Times without data are not counted." + LISTED,
            [
                replace(NAME, min_width=130),
                replace(ACCOUNT, filterable=False),
                Column("share", "Available", SHARE, cell=COLOURED_CELL, width=90),
                ID,
            ],
            {"share": q.with_recent_names(q.availability(AVAILABILITY_DAYS), q.SHOWN_LOCKS)},
            [("Value #share", False)],
        )
        .span(9)
        .height(10)
    )


def availability_by_bridge() -> table.Panel:
    """Return the list of bridges by the share of time in which their locks were connected."""
    bridges = q.bridges_of_locks(q.SHOWN_LOCKS)
    by = q.BRIDGE_ID
    named = q.series(catalogue.LOCK_INFO, f'{q.SHOWN_LOCKS}, bridge_name!=""')
    # A bridge of another account, whose locks are shared with this one, has no name.
    unnamed = q.series(catalogue.LOCK_INFO, f'{q.SHOWN_LOCKS}, bridge_id!="", bridge_name=""')
    names = f'{named} or label_replace({unnamed}, "bridge_name", "$1", "bridge_id", "(.+)")'
    return (
        table_panel(
            "Availability by bridge",
            f"Average of the locks of each bridge over {AVAILABILITY_DAYS} days, lowest first. If it is low for all "
            "locks of a bridge, check the network of the bridge." + LISTED,
            [
                Column("bridge_name", "Bridge", min_width=100),
                replace(ACCOUNT, filterable=False),
                Column("locks", "Locks", COUNT, width=60),
                Column("share", "Available", SHARE, cell=COLOURED_CELL, width=90),
            ],
            {
                "share": f"avg by {by} ({q.availability(AVAILABILITY_DAYS)} * on {q.BY_ID} group_right () {bridges})",
                "locks": f"count by {by} ({bridges})",
                "name": f"topk by {by} (1, group by (account, bridge_id, bridge_name) ({names}))",
            },
            [("Value #share", False)],
        )
        .span(9)
        .height(10)
    )


def firmware_versions() -> table.Panel:
    """Return the numbers of locks by firmware version."""
    info = q.device_names(catalogue.LOCK_INFO, q.LOCKS, q.BY_ID, "firmware_version")
    available = q.highest(catalogue.LOCK_FIRMWARE_UPDATE_AVAILABLE, q.LOCKS)
    return (
        table_panel(
            "Firmware versions",
            "Locks by firmware version, and how many of them have an update available. Install updates in the Tedee "
            "app.",
            [
                Column("firmware_version", "Firmware", min_width=95),
                Column("locks", "Locks", COUNT, width=60),
                Column("updates", "Updates", COUNT, width=80),
            ],
            {
                "locks": f"count by (firmware_version) ({info})",
                "updates": f"sum by (firmware_version) ({available} * on {q.BY_ID} group_right () {info})",
            },
            [("Value #locks", True)],
        )
        .span(6)
        .height(10)
    )


def states(matchers: str) -> str:
    """Return an expression for the state of each lock, or for the failure of its last state change."""
    result = q.series(catalogue.LOCK_STATE_CHANGE_RESULT, matchers)
    return f"min by {q.BY_ID} (-clamp_max({result} > 0, {-ERROR_VALUE})) or {q.lock_states(matchers)}"


def names(matchers: str) -> str:
    """Return an expression for name and firmware of each lock, including the locks of accounts without data.

    A new lock has a name before its firmware is known.
    """
    info = f"group by (account, lock_id, lock_name, firmware_version) ({q.series(catalogue.LOCK_INFO, matchers)})"
    others = f"{q.series(catalogue.LOCK_REVISION, matchers)} or {q.missing_locks()}"
    return f"topk by {q.BY_ID} (1, {info} or on {q.BY_ID} group by (account, lock_id, lock_name) ({others}))"
