"""Devices: bridges, keypads, door sensors, gates, and the events of the locks."""

from dataclasses import dataclass, replace

from grafana_foundation_sdk.builders import stat, statetimeline, table, timeseries

from exporter.metrics import catalogue
from exporter.metrics.catalogue import AnyMetric
from exporter.tedee.endpoint import ACTIVITIES

from . import queries as q
from . import value_mappings, variables
from .alert_table import alert_table
from .colours import MAX_SERIES
from .dashboard import Dashboard, PanelGroup
from .overview import (
    ACCOUNT,
    AVAILABILITY_DAYS,
    CONNECTION,
    COUNT,
    COUNT_UNIT,
    DETAIL_URL,
    LAST_CHANGE,
    SHARE,
    UPDATE,
    count_panel,
)
from .panels import (
    COLOURED_CELL,
    Column,
    ValueFormat,
    bar_panel,
    legend_with_sums,
    line_panel,
    stat_panel,
    table_panel,
    timeline_panel,
)
from .value_mappings import LOW_ACCESSORY_BATTERY, Display

MAX_ACCESSORIES = 500
"""If there are at most as many keypads and door sensors, the tables list all of them."""
MAX_IDS = 40
"""Keypads and door sensors each that the tables list otherwise: those with the lowest batteries."""
LISTED = f" If there are more than {MAX_ACCESSORIES}, the {MAX_IDS} with the lowest level are listed."
MAX_BRIDGES = 10
"""If there are more bridges, the timeline has only those that were offline."""
MAX_ROWS = 50
"""Rows of tables of events by lock."""
DAY = "1d"

ALERT_MATCHERS = 'alertname=~"Tedee(Bridge|Keypad|Door(Sensor|Open)|Wrong|Event|Device).+", account=~"$account|"'
"""Alerts about the devices and events on this dashboard."""

OLD_DATA = 1_800
"""Seconds after which the data of devices are old: three fetches at the default interval."""
WRONG_PINS = 'event=~"wrong_pin|unauthorized_pin"'
OPEN_TOO_LONG = 'event="door_open_too_long"'
SOURCES = ("device", "app", "auto", "button", "manual", "pin", "keypad", "fingerprint", "homekit")
"""Sources of events that get fixed colours, the most frequent ones."""
FIRST_EVENT = " The first event of a kind at a lock is not counted, since its series begins with it."

BATTERY = ValueFormat(
    "percent",
    {q.NO_LEVEL: Display("no level")},
    thresholds=((None, "quiet"), (0, "bad"), (LOW_ACCESSORY_BATTERY + 1, "good")),
    decimals=0,
    minimum=0,
    maximum=100,
)
LEVEL_CHANGE = replace(LAST_CHANGE, texts={q.NO_CHANGE: Display("over 30 days ago")})
EVENTS = replace(COUNT, texts={q.NO_CHANGE: value_mappings.NO_VALUE})
"""Numbers of events, and no number in a row that has a text only."""
LOCK = Column("lock_name", "Lock", min_width=110, link=("Lock details", DETAIL_URL))
LOCK_ID = Column("lock_id", "ID", hidden=True)


@dataclass(frozen=True)
class Accessories:
    """A kind of device that belongs to a lock and has a battery."""

    words: str
    """Name of several, such as `keypads`."""
    name: Column
    info: AnyMetric
    level: AnyMetric
    level_changed: AnyMetric
    by: str
    """Labels that identify a device."""
    shown: str
    """Matchers of the devices that are shown."""


KEYPADS = Accessories(
    "keypads",
    Column("keypad_name", "Keypad", min_width=125),
    catalogue.KEYPAD_INFO,
    catalogue.KEYPAD_BATTERY,
    catalogue.KEYPAD_BATTERY_CHANGE,
    q.KEYPAD_ID,
    q.SHOWN_KEYPADS,
)
DOOR_SENSORS = Accessories(
    "door sensors",
    Column("door_sensor_name", "Door sensor", min_width=125),
    catalogue.DOOR_SENSOR_INFO,
    catalogue.DOOR_SENSOR_BATTERY,
    catalogue.DOOR_SENSOR_BATTERY_CHANGE,
    q.DOOR_SENSOR_ID,
    q.SHOWN_DOOR_SENSORS,
)


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        uid="tedee-devices",
        title="Tedee: devices",
        description="Bridges, keypads, door sensors and gates, their batteries and connections, and the events of the "
        "locks.",
        time_range="24h",
        variables=variables.with_common_variables(
            variables.missing(q.accounts_without_data()), variables.shown(listed_accessories(), "device_id")
        ),
        alerts=q.started_alerts(ALERT_MATCHERS),
        groups=[
            PanelGroup([*counts(), bridges(), keypads(), door_sensors(), alerts()]),
            PanelGroup([events_by_source(), event_numbers(), wrong_pins(), doors_open_too_long()], "Events"),
            PanelGroup(
                [*batteries(), bridge_connections(), bridge_availability()], "Batteries and availability", folded=True
            ),
            PanelGroup([gates()], "Other devices", folded=True),
        ],
    )


def listed_accessories() -> str:
    """Return an expression for the ids in the tables: all, or those of the accessories with the lowest batteries."""
    keypads, sensors = (q.series(metric, q.ACCOUNTS) for metric in (catalogue.KEYPAD_INFO, catalogue.DOOR_SENSOR_INFO))
    too_many = f"count({keypads} or {sensors}) > {MAX_ACCESSORIES}"
    lowest = " or ".join(
        f'label_join(bottomk({MAX_IDS}, min by ({label}) ({q.series(level, q.ACCOUNTS)})), "device_id", "", "{label}")'
        for level, label in (
            (catalogue.KEYPAD_BATTERY, "keypad_id"),
            (catalogue.DOOR_SENSOR_BATTERY, "door_sensor_id"),
        )
    )
    everything = 'label_replace(vector(0), "device_id", ".+", "", "")'
    return f"{everything} unless on () {too_many} or group by (device_id) ({lowest}) and on () {too_many}"


def counts() -> list[stat.Panel]:
    """Return the panels with the current numbers of devices, and of events of the last day."""
    connected = f"min by {q.BRIDGE_ID} ({q.series(catalogue.BRIDGE_CONNECTED, q.ACCOUNTS)})"
    response = q.series(catalogue.LAST_RESPONSE, f'{q.ACCOUNTS}, endpoint!="{ACTIVITIES.path}"')
    permitted = q.series(catalogue.EVENTS_PERMITTED, q.ACCOUNTS)
    return [
        count_panel(
            "Bridges offline",
            "Bridges that are not connected to Tedee; all of their locks are offline too. Check the power and the "
            "network of the bridge. 0 is shown as `no data` if an account is not reported.",
            q.unless_unknown(f"sum(1 - {connected})"),
            "bad",
        ),
        count_panel(
            "Low keypad batteries",
            f"Keypads with a battery level of {LOW_ACCESSORY_BATTERY} % or less. Replace their batteries: without the "
            "keypad, PINs and fingerprints do not open the door. Keypads without a level are not counted.",
            low_batteries(KEYPADS),
            "bad",
        ),
        count_panel(
            "Low door sensor batteries",
            f"Door sensors with a battery level of {LOW_ACCESSORY_BATTERY} % or less. Replace their batteries: "
            "otherwise an open door is no longer detected. Door sensors without a level are not counted.",
            low_batteries(DOOR_SENSORS),
            "bad",
        ),
        stat_panel(
            "Device data age",
            "Highest time since the last successful fetch of devices of all accounts. By default, they are fetched "
            "every 10 minutes, and no longer reported after 30 minutes without a success.",
            f"max(time() - max by (account, endpoint) ({response}))",
            ValueFormat(
                "s",
                thresholds=((None, "quiet"), (0, "good"), (OLD_DATA * 2 // 3, "warn"), (OLD_DATA, "bad")),
                decimals=0,
                no_value="no data",
            ),
        ).span(6),
        events_panel(
            "Wrong PINs, last day",
            "PINs in the last 24 hours that were wrong, or not permitted at that time. `not enabled` means that the "
            "exporter does not count events: set `events.enabled`.",
            WRONG_PINS,
        ),
        events_panel(
            "Doors open too long",
            "Doors in the last 24 hours that were open for longer than the limit in the Tedee app.",
            OPEN_TOO_LONG,
        ),
        stat_panel(
            "Events not permitted",
            "Accounts whose key may not read the activity log. Create a key with the scope `DeviceActivity.Read` in "
            "the Tedee portal.",
            f"sum(1 - min by (account) ({permitted}))"
            f" or {value_mappings.NOT_ENABLED} * group({q.series(catalogue.UP, q.ACCOUNTS)})",
            ValueFormat(
                COUNT_UNIT,
                value_mappings.EVENTS,
                thresholds=((None, "quiet"), (0, "good"), (1, "bad")),
                no_value="no data",
            ),
        ).span(6),
        count_panel(
            "Active alerts",
            "Alerts about devices and events that are firing; the table below lists them. `no rules` means that "
            "Prometheus has no results of the alerting rules.",
            q.alert_count(ALERT_MATCHERS),
            "bad",
            no_value="no rules",
        ),
    ]


def low_batteries(kind: Accessories) -> str:
    """Return an expression for the number of low batteries."""
    level = f"min by {kind.by} ({q.series(kind.level, q.ACCOUNTS)})"
    return q.unless_unknown(f"sum({level} <= bool {LOW_ACCESSORY_BATTERY})")


def events_panel(title: str, description: str, matcher: str) -> stat.Panel:
    """Build a panel with the number of events of the last day, or a word if there are none."""
    refused = f"{q.series(catalogue.EVENTS_PERMITTED, q.ACCOUNTS)} == 0"
    return stat_panel(
        title,
        description,
        f"sum({q.events(f'{q.ACCOUNTS}, {matcher}', DAY, q.BY_ID)})"
        f" or {value_mappings.NOT_PERMITTED} * group({refused})"
        f" or {value_mappings.NOT_ENABLED} * group({q.series(catalogue.UP, q.ACCOUNTS)})",
        ValueFormat(
            COUNT_UNIT,
            value_mappings.EVENTS,
            thresholds=((None, "quiet"), (0, "good"), (0.5, "warn")),
            decimals=0,
            no_value="no data",
        ),
    ).span(6)


def bridges() -> table.Panel:
    """Return the table of bridges."""
    by = q.BRIDGE_ID
    of_locks = q.bridges_of_locks(q.ACCOUNTS)
    offline = f"(1 - {q.lowest(catalogue.LOCK_CONNECTED, q.ACCOUNTS)})"
    labels = ("bridge_name", "serial_number", "firmware_version", "wifi_firmware_version")
    return table_panel(
        "Bridges",
        "All bridges, offline ones first, with the numbers of their locks. If a bridge is offline, all of its locks "
        "are. If only some locks are offline, check their batteries and their distance to the bridge.",
        [
            Column("bridge_name", "Bridge", min_width=125),
            ACCOUNT,
            Column("connected", "Connection", CONNECTION, cell=COLOURED_CELL, width=110),
            Column("locks", "Locks", COUNT, width=70),
            Column(
                "offline",
                "Locks offline",
                replace(COUNT, thresholds=((None, "quiet"), (0, "good"), (1, "bad"))),
                cell=COLOURED_CELL,
                width=110,
            ),
            Column("updating", "Updating", ValueFormat(texts=value_mappings.UPDATING), cell=COLOURED_CELL, width=80),
            Column("firmware_version", "Firmware", width=95),
            Column("wifi_firmware_version", "Wi-Fi firmware", width=115),
            Column("update", "Update", UPDATE, cell=COLOURED_CELL, width=85),
            Column("serial_number", "Serial number", width=120),
        ],
        {
            "name": q.or_hint(q.device_names(catalogue.BRIDGE_INFO, q.ACCOUNTS, by, *labels), "bridge_name"),
            "connected": f"min by {by} ({q.series(catalogue.BRIDGE_CONNECTED, q.ACCOUNTS)})",
            "updating": f"max by {by} ({q.series(catalogue.BRIDGE_UPDATING, q.ACCOUNTS)})",
            "locks": f"count by {by} ({of_locks})",
            "offline": f"sum by {by} ({offline} * on {q.BY_ID} group_right () {of_locks})",
            "update": f"max by {by} ({q.series(catalogue.BRIDGE_FIRMWARE_UPDATE_AVAILABLE, q.ACCOUNTS)})",
        },
        [("bridge_name", False), ("Value #connected", False)],
    ).height(6)


def keypads() -> table.Panel:
    """Return the table of keypads."""
    return accessories(
        KEYPADS,
        "Keypads",
        "All keypads, the lowest battery first; the level is updated when the keypad is used. Tedee omits a level that "
        "has not changed for 30 days, for example of a keypad that is not used.",
    )


def door_sensors() -> table.Panel:
    """Return the table of door sensors."""
    return accessories(
        DOOR_SENSORS,
        "Door sensors",
        "All door sensors, the lowest battery first. Tedee omits a level that has not changed for 30 days.",
    )


def accessories(kind: Accessories, title: str, description: str) -> table.Panel:
    """Build a table of keypads or door sensors."""
    info, by = q.series(kind.info, kind.shown), kind.by
    name = kind.name.source
    names = q.device_names(kind.info, kind.shown, by, name, "model", "serial_number", "firmware_version")
    paired = q.device_names(kind.info, f'{kind.shown}, lock_id!=""', by, "lock_id")
    changed = f"1000 * max by {by} ({q.series(kind.level_changed, kind.shown)})"
    return table_panel(
        title,
        description + LISTED,
        [
            kind.name,
            ACCOUNT,
            replace(LOCK, min_width=None, width=150, no_label="not paired"),
            Column("level", "Battery", BATTERY, cell=COLOURED_CELL, width=85),
            Column("changed", "Level changed", LEVEL_CHANGE, width=140),
            Column("model", "Model", width=100),
            Column("firmware_version", "Firmware", width=95),
            Column("serial_number", "Serial number", width=120),
            LOCK_ID,
        ],
        {
            "name": f'{names} or on () label_replace(vector(-1), "{name}", "none, or no data", "", "")',
            "level": q.battery_levels(kind.level, kind.info, kind.shown, by),
            "changed": f"{changed} or {q.NO_CHANGE} * group by {by} ({info})",
            "lock": f"{paired} * on {q.BY_ID} group_left (lock_name) {q.lock_names(q.ACCOUNTS)}",
        },
        [(name, False), ("Value #level", False)],
    ).height(7)


def alerts() -> table.Panel:
    """Return the table of firing alerts."""
    device, account = Column("device", "Device", width=250), Column("account", "Account", width=200)
    return alert_table(ALERT_MATCHERS, device, account).height(5)


def events_by_source(matchers: str = q.ACCOUNTS) -> timeseries.Panel:
    """Return the panel with the events over time."""
    return (
        bar_panel(
            "Events by source",
            "Events of the locks by how they were operated; `device` stands for what a lock itself reports, such as an "
            "opened door. Locks deliver events late and in batches." + FIRST_EVENT,
            f"sum by (source) ({q.events(matchers, '$__interval')}) > 0",
            "{{source}}",
            known=SOURCES,
            width="1h",
            no_data="no events, or events are not enabled",
        )
        .legend(legend_with_sums())
        .span(14)
        .height(10)
    )


def event_numbers(matchers: str = q.ACCOUNTS) -> table.Panel:
    """Return the table of the numbers of events."""
    return (
        table_panel(
            "Events by kind",
            "Numbers of events in the time range of the dashboard, by what happened and how the lock was operated."
            + FIRST_EVENT,
            [
                Column("event", "Event", min_width=120),
                Column("source", "Source", width=95),
                Column("number", "Number", EVENTS, width=80),
            ],
            {
                "number": or_reason(
                    f"sum by (event, source) ({q.events(matchers, '$__range')}) > 0", "event", "no events", matchers
                )
            },
            [("Value #number", True)],
        )
        .span(10)
        .height(10)
    )


def wrong_pins() -> table.Panel:
    """Return the table of wrong PINs."""
    return events_by_lock(
        "Wrong PINs by lock",
        "PINs in the time range of the dashboard that were wrong, or not permitted at that time, by lock.",
        WRONG_PINS,
        "no wrong PINs",
    )


def doors_open_too_long() -> table.Panel:
    """Return the table of doors that were open for too long."""
    return events_by_lock(
        "Doors open too long by lock",
        "How often in the time range of the dashboard a door was open for longer than the limit in the Tedee app.",
        OPEN_TOO_LONG,
        "no such event",
    )


def events_by_lock(title: str, description: str, matcher: str, none: str) -> table.Panel:
    """Build a table of the number of events of each lock that has some."""
    number = q.events(f"{q.ACCOUNTS}, {matcher}", "$__range", q.BY_ID)
    revision = q.series(catalogue.LOCK_REVISION, q.ACCOUNTS)
    names = f"topk by {q.BY_ID} (1, group by (account, lock_id, lock_name) ({revision}))"
    return (
        table_panel(
            title,
            description + f" At most {MAX_ROWS} locks are listed.",
            [
                replace(LOCK, min_width=130),
                replace(ACCOUNT, filterable=False),
                Column("number", "Number", EVENTS, width=80),
                LOCK_ID,
            ],
            {
                "number": or_reason(
                    f"topk({MAX_ROWS}, {number} > 0) * on {q.BY_ID} group_left (lock_name) {names}",
                    "lock_name",
                    none,
                    q.ACCOUNTS,
                )
            },
            [("Value #number", True)],
        )
        .span(12)
        .height(7)
    )


def or_reason(expression: str, label: str, none: str, matchers: str) -> str:
    """Add a series with a text in one label, and the value NO_CHANGE, if an expression for events has no result."""
    events = q.series(catalogue.LOCK_EVENTS, matchers)
    return (
        f"{expression}"
        f' or on () label_replace({q.NO_CHANGE} * group({events}), "{label}", "{none}", "", "")'
        f' or on () label_replace(vector({q.NO_CHANGE}), "{label}", "events not enabled or not permitted", "", "")'
    )


def batteries() -> list[timeseries.Panel]:
    """Return the panels with the battery levels over time."""
    return [
        battery_panel(KEYPADS, "Keypad batteries over time"),
        battery_panel(DOOR_SENSORS, "Door sensor batteries over time"),
    ]


def battery_panel(kind: Accessories, title: str) -> timeseries.Panel:
    """Build a panel with the battery levels of keypads or door sensors over time."""
    level, by, name = q.series(kind.level, q.ACCOUNTS), kind.by, kind.name.source
    lowest = f"bottomk({MAX_SERIES}, min by {by} ({level} @ end()))"
    named = f"min by ({by[1:-1]}, {name}) ({level} and on {by} {lowest})"
    return line_panel(
        title,
        f"Battery levels of the {MAX_SERIES} {kind.words} with the lowest level at the end of the time range; "
        f"{LOW_ACCESSORY_BATTERY} % and less is low. The level changes in steps, since Tedee receives it rarely.",
        {f"{{{{{name}}}}} · {{{{account}}}}": f"bottomk by {by} (1, {named})"},
        replace(BATTERY, texts={}),
        steps=True,
    ).span(12)


def bridge_connections() -> statetimeline.Panel:
    """Return the timeline of the connections of bridges."""
    by = q.BRIDGE_ID
    series = q.series(catalogue.BRIDGE_CONNECTED, q.ACCOUNTS)
    shown = (
        f"{series} unless on () count(group by {by} ({series} @ end())) > {MAX_BRIDGES}"
        f" or min_over_time({series}[$__range] @ end()) == 0"
    )
    return timeline_panel(
        "Bridge connection over time",
        "Connection of the bridges to Tedee over time, as of each fetch: every 10 minutes by default. If there are "
        f"more than {MAX_BRIDGES} bridges, only those that were offline in the time range are shown.",
        f"bottomk by {by} (1, min by (account, bridge_id, bridge_name) ({series} and on {by} ({shown})))",
        ValueFormat(texts=value_mappings.CONNECTIONS),
        "{{bridge_name}} · {{account}}",
    ).span(14)


def bridge_availability() -> table.Panel:
    """Return the list of bridges by the share of time in which they were connected."""
    by = q.BRIDGE_ID
    connected = f"min by {by} ({q.series(catalogue.BRIDGE_CONNECTED, q.ACCOUNTS)})"
    names = q.device_names(catalogue.BRIDGE_INFO, q.ACCOUNTS, by, "bridge_name")
    return (
        table_panel(
            "Availability of bridges",
            f"Share of the last {AVAILABILITY_DAYS} days in which each bridge was connected to Tedee, lowest first. "
            "Times without data are not counted.",
            [
                Column("bridge_name", "Bridge", min_width=120),
                replace(ACCOUNT, filterable=False),
                Column("share", "Available", SHARE, cell=COLOURED_CELL, width=90),
            ],
            {
                "share": f"avg_over_time(({connected})[{AVAILABILITY_DAYS}d:10m])"
                f" * on {by} group_left (bridge_name) {names}"
            },
            [("Value #share", False)],
        )
        .span(10)
        .height(8)
    )


def gates() -> table.Panel:
    """Return the table of gates and dry contacts."""
    by = "(account, device_id)"

    def joined(expression: str, label: str, source: str) -> str:
        return f'label_join({expression}, "{label}", "", "{source}")'

    kinds = ((catalogue.GATE_INFO, "gate"), (catalogue.DRY_CONTACT_INFO, "dry_contact"))
    infos = " or ".join(
        joined(joined(q.series(info, q.ACCOUNTS), "device_id", f"{kind}_id"), "device_name", f"{kind}_name")
        for info, kind in kinds
    )
    labels = "account, device_id, device_name, model, serial_number, firmware_version"
    connected = joined(q.series(catalogue.GATE_CONNECTED, q.ACCOUNTS), "device_id", "gate_id")
    return table_panel(
        "Gates and dry contacts",
        "All gates and dry contacts. Tedee asks a gate for its connection about once a day; dry contacts report none.",
        [
            Column("device_name", "Device", min_width=125),
            ACCOUNT,
            Column(
                "connected", "Connection", replace(CONNECTION, no_value="not reported"), cell=COLOURED_CELL, width=110
            ),
            Column("model", "Model", width=110),
            Column("firmware_version", "Firmware", width=110),
            Column("serial_number", "Serial number", width=130),
        ],
        {
            "name": f"topk by {by} (1, group by ({labels}) ({infos}))"
            ' or on () label_replace(vector(-1), "device_name", "none, or no data", "", "")',
            "connected": f"min by {by} ({connected})",
        },
        [("device_name", False)],
    ).height(7)
