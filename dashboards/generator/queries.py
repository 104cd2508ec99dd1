"""PromQL expressions that several panels use.

If two exporters report the same lock, it counts once, with the value that needs more attention: any other state before
"locked", any other door state before "closed" and "not paired", "offline" before "connected", the lower battery level.
"""

from exporter.metrics import catalogue
from exporter.metrics.catalogue import AnyMetric
from exporter.tedee.models import DoorState, LockState

from .value_mappings import LOW_BATTERY, STATES, codes_with_severity

EXPORTERS = 'job=~"$job", instance=~"$instance"'
ACCOUNTS = f'{EXPORTERS}, account=~"$account"'
LOCKS = f'{ACCOUNTS}, lock_id=~"$lock"'
SHOWN_ACCOUNTS = f'{EXPORTERS}, account=~"$shown"'
# Without the format, Grafana would escape the value that stands for all locks. Ids need no escaping.
SHOWN_LOCKS = f'{ACCOUNTS}, lock_id=~"${{shown:pipe}}"'
MISSING_ACCOUNTS = f'{EXPORTERS}, account=~"$missing"'
"""Accounts whose locks no exporter reports. The hidden variable `missing` has their names."""
# The ids of devices are unique among all kinds of devices.
SHOWN_KEYPADS = f'{ACCOUNTS}, keypad_id=~"${{shown:pipe}}"'
SHOWN_DOOR_SENSORS = f'{ACCOUNTS}, door_sensor_id=~"${{shown:pipe}}"'
MISSING_LOCKS = f'{MISSING_ACCOUNTS}, lock_id=~"$lock"'

BY_ID = "(account, lock_id)"
"""Labels that identify a lock. `lock_name` is not one of them: it changes, and two exporters may report different
names for a while."""

MAX_ALERTS = 100
"""Alerts on one time axis, and in one table."""
ALERT_LABELS = "alertname, severity, account, lock_name, bridge_name, keypad_name, door_sensor_name, instance"
ALERT_DEVICE = '"device", "", "lock_name", "bridge_name", "keypad_name", "door_sensor_name"'
"""Arguments of `label_join` for a label with the name of an alert's device. An alert has at most one of these names."""

ANY_ALERT = 'alertname=~"Tedee.*"'

RULES = "tedee:battery_percent:low"
"""Series of a recording rule, which is present if Prometheus evaluates the exporter's rules."""

NO_BRIDGE = -1
"""Connection of a lock that is reported without `lock_connected`."""
NO_CHANGE = -1
"""Time of the last change of a lock that does not report it. Grafana cannot sort rows that lack the value."""
NO_TREND = 999
"""Days of a battery without a forecast, so that these batteries are sorted after the others."""

LOCK_LOOKBACK = "6h:30m"
"""How long a lock remains selectable after its last sample. The resolution of half an hour keeps the query cheap:
reading all samples of thousands of locks would take Prometheus most of a second on each refresh."""
ACCOUNT_LOOKBACK = "1d"
"""How long an account is listed after its exporter was removed from Prometheus."""
EXPORTER_LOOKBACK = "7d"
"""How long an exporter that is down, and its accounts, are listed."""
EXPORTER_LOOKBACK_STEP = "10m"
"""Resolution of subqueries over EXPORTER_LOOKBACK."""

CHARGED_RISE = 2
"""Percent. A battery whose level rose by more within a day was charged or replaced."""
FAST_TREND_DAYS, FAST_TREND_FALL = 1, 10
"""Days of the trend of a battery that discharges very fast, and the percents by which the level must fall within them.
It takes precedence over the other trends, which would show such a battery too late."""
LONG_TREND_DAYS, LONG_TREND_FALL = 14, 3
"""Days of a battery's long trend, and the percents by which the level must fall within them unless the history covers
all of them. 14 days are less than the 15 days that Prometheus retains by default."""
SHORT_TREND_DAYS, SHORT_TREND_FALL = 3, 2
"""The trend for a battery that discharges fast and has a short history, or was charged recently."""
NO_LEVEL = 999
"""Battery level of an accessory whose level Tedee omits, so that it is sorted after the others."""
MAX_DAYS = 90
"""Limit of the forecast in days."""


def series(metric: AnyMetric | str, matchers: str, suffix: str = "") -> str:
    """Return a selector for a metric with the given label matchers, such as LOCKS."""
    return f"{metric if isinstance(metric, str) else metric.name}{suffix}{{{matchers}}}"


def lock_series(matchers: str) -> str:
    """Return a selector for at least one series of each lock."""
    return f'{{__name__=~"{catalogue.LOCK_INFO.name}|{catalogue.LOCK_REVISION.name}", {matchers}}}'


def with_recent(selector: str) -> str:
    """Return an expression for the current value of each series, or its last value within LOCK_LOOKBACK."""
    return f"({selector} or last_over_time({selector}[{LOCK_LOOKBACK}]))"


def lowest(metric: AnyMetric, matchers: str) -> str:
    """Return an expression for the value of each lock, the lowest if several exporters report the lock."""
    return f"min by {BY_ID} ({series(metric, matchers)})"


def highest(metric: AnyMetric, matchers: str) -> str:
    """Return an expression for the value of each lock, the highest if several exporters report the lock."""
    return f"max by {BY_ID} ({series(metric, matchers)})"


def lock_states(matchers: str) -> str:
    """Return an expression for the state of each lock. If exporters disagree, a state other than locked wins."""
    return f"max by {BY_ID} ({_not_locked(matchers)}) or {highest(catalogue.LOCK_STATE, matchers)}"


def door_states(matchers: str) -> str:
    """Return an expression for the state of each door. If exporters disagree, a state other than closed wins."""
    return f"max by {BY_ID} ({_not_closed(matchers)}) or {highest(catalogue.LOCK_DOOR_STATE, matchers)}"


def connections(matchers: str) -> str:
    """Return an expression for the connection of each lock that is reported now, or NO_BRIDGE."""
    connected = lowest(catalogue.LOCK_CONNECTED, matchers)
    return f"{connected} or {NO_BRIDGE} * group by {BY_ID} ({series(catalogue.LOCK_REVISION, matchers)})"


def last_changes(matchers: str) -> str:
    """Return an expression for the time of each lock's last change in milliseconds, or NO_CHANGE."""
    changed = series(catalogue.LOCK_LAST_STATE_CHANGE, matchers)
    known = f"{series(catalogue.LOCK_REVISION, matchers)} or {missing_locks()}"
    return f"1000 * max by {BY_ID} ({changed}) or {NO_CHANGE} * group by {BY_ID} ({known})"


def missing_locks() -> str:
    """Return an expression for the locks of the accounts without data, from their last samples."""
    return f"last_over_time({series(catalogue.LOCK_REVISION, MISSING_LOCKS)}[{LOCK_LOOKBACK}])"


def lock_names(matchers: str) -> str:
    """Return an expression for one series with the name of each lock."""
    return f"topk by {BY_ID} (1, {_all_names(lock_series(matchers))})"


def recent_lock_names(matchers: str) -> str:
    """Return an expression for one series with the newest name of each lock of the last LOCK_LOOKBACK."""
    recent = _all_names(f"last_over_time({lock_series(matchers)}[{LOCK_LOOKBACK}])")
    return f"topk by {BY_ID} (1, {_all_names(lock_series(matchers))} or on {BY_ID} {recent})"


def _all_names(selector: str) -> str:
    return f"group by (account, lock_id, lock_name) ({selector})"


def with_names(expression: str, matchers: str) -> str:
    """Add the label `lock_name` to an expression for values of locks. Locks that are not reported now are left out."""
    return f"({expression}) * on {BY_ID} group_left (lock_name) {lock_names(matchers)}"


def with_recent_names(expression: str, matchers: str) -> str:
    """Add the label `lock_name` to an expression for values of locks, from the last LOCK_LOOKBACK."""
    return f"({expression}) * on {BY_ID} group_left (lock_name) {recent_lock_names(matchers)}"


def or_hint(expression: str, label: str) -> str:
    """Add a series that has a hint in one label, and the value -1, if the expression has no result."""
    return f'{expression} or on () label_replace(vector(-1), "{label}", "no data: see Help", "", "")'


def with_code(metric: AnyMetric, matchers: str, codes: list[int]) -> str:
    """Return an expression for the locks whose value is one of the codes."""
    return " or ".join(f"{series(metric, matchers)} == {code}" for code in codes)


def unlocked(matchers: str) -> str:
    """Return an expression for the locks that are unlocked or pulled."""
    return with_code(catalogue.LOCK_STATE, matchers, codes_with_severity(STATES, "warn"))


def jammed_or_unknown(matchers: str) -> str:
    """Return an expression for the locks whose last state change failed or whose state is not known.

    Codes that are not in the exporter's list are included.
    """
    not_bad = "".join(f" != {code}" for code, display in STATES.items() if display.severity != "bad")
    failed = f"{series(catalogue.LOCK_STATE_CHANGE_RESULT, matchers)} > 0"
    return f"{failed} or {series(catalogue.LOCK_STATE, matchers)}{not_bad}"


def offline(matchers: str) -> str:
    """Return an expression for the locks that are not connected to their bridge."""
    return f"{series(catalogue.LOCK_CONNECTED, matchers)} == 0"


def low_battery(matchers: str) -> str:
    """Return an expression for the locks with a low battery that is not charging."""
    low = f"{series(catalogue.LOCK_BATTERY_LEVEL, matchers)} <= {LOW_BATTERY}"
    return f"{low} unless {series(catalogue.LOCK_CHARGING, matchers)} == 1"


def attention(matchers: str, by: str) -> str:
    """Return an expression for how much attention each lock needs, from 0 to 4.

    4: the lock jammed, or its state is not known; 3: it is not locked or its door is not closed; 2: it is offline;
    1: its battery is low. A lock has the highest of its levels.
    """
    no_state = f"{series(catalogue.LOCK_CONNECTED, matchers)} == 1 unless on {BY_ID} {_any_state(matchers)}"
    levels = {
        4: f"{jammed_or_unknown(matchers)} or {no_state} or {missing_locks()}",
        3: f"{_not_locked(matchers)} or {_not_closed(matchers)}",
        2: offline(matchers),
        1: low_battery(matchers),
        0: series(catalogue.LOCK_REVISION, matchers),
    }
    return " or ".join(f"{level} * group {by} ({locks})" for level, locks in levels.items())


def count_locks(locks: str, among: str) -> str:
    """Return an expression for the number of locks: 0 only if there are locks in `among`, otherwise no data."""
    return f"count(group by {BY_ID} ({locks})) or 0 * count({among})"


def unless_unknown(count: str) -> str:
    """Restrict an expression for a number of locks: it has no data if it is 0 but some accounts have no data."""
    return f"({count}) > (0 * count({last_requests_remaining(MISSING_ACCOUNTS)}) or vector(-1))"


def sum_of_locks(metric: AnyMetric, matchers: str, window: str = "") -> str:
    """Return an expression for the number of locks whose value is 1, at any time in the window if there is one."""
    selector = series(metric, matchers)
    return f"sum(max by {BY_ID} ({f'max_over_time({selector}[{window}])' if window else selector}))"


def sum_of_others(metric: AnyMetric, matchers: str) -> str:
    """Return an expression for the number of locks whose value is 0."""
    return f"sum(1 - {lowest(metric, matchers)})"


def not_secured_count(matchers: str) -> str:
    """Return an expression for the number of locks that are not confirmed locked with a closed door.

    A door without a sensor counts as closed.
    """
    bridged = series(catalogue.LOCK_CONNECTED, matchers)
    locked = f"min by {BY_ID} ({series(catalogue.LOCK_STATE, matchers)} == bool {LockState.LOCKED.value}) == 1"
    secured = f"({locked} unless on {BY_ID} {_not_closed(matchers)})"
    return f"count(group by {BY_ID} ({bridged}) unless {secured}) or 0 * count({bridged})"


def _any_state(matchers: str) -> str:
    return series(catalogue.LOCK_STATE, matchers)


def _not_locked(matchers: str) -> str:
    return f"{series(catalogue.LOCK_STATE, matchers)} != {LockState.LOCKED.value}"


def _not_closed(matchers: str) -> str:
    sensors = f"{series(catalogue.LOCK_DOOR_STATE, matchers)} != {DoorState.NOT_PAIRED.value}"
    return f"{sensors} != {DoorState.CLOSED.value}"


def last_requests_remaining(matchers: str) -> str:
    """Return an expression for at least one series of each account that was reported within EXPORTER_LOOKBACK."""
    remaining = series(catalogue.API_REQUESTS_REMAINING, matchers)
    return f"last_over_time({remaining}[{EXPORTER_LOOKBACK}:{EXPORTER_LOOKBACK_STEP}])"


def accounts(matchers: str = ACCOUNTS) -> str:
    """Return an expression for at least one series of each account, even if its exporter is down.

    An account that a running exporter no longer reports was removed and is not included. `tedee_api_requests_remaining`
    is used because the exporter reports it for each account from its start.
    """
    remaining = series(catalogue.API_REQUESTS_REMAINING, matchers)
    running = series(catalogue.BUILD_INFO, EXPORTERS)
    down = f"{series('up', EXPORTERS)} == 0"
    return (
        f"{remaining}"
        f" or last_over_time({remaining}[{ACCOUNT_LOOKBACK}]) unless on (job, instance) {running}"
        f" or {last_requests_remaining(matchers)} and on (job, instance) {down}"
    )


def accounts_without_data() -> str:
    """Return an expression for the accounts whose locks no exporter reports."""
    return f"group by (account) ({accounts()}) unless on (account) {series(catalogue.LOCK_COUNT, ACCOUNTS)}"


def availability(days: int) -> str:
    """Return an expression for the share of the last days in which each lock was connected, if it was reported."""
    connected = lowest(catalogue.LOCK_CONNECTED, SHOWN_LOCKS)
    return f"avg_over_time(({connected})[{days}d:10m])"


def firing_alerts(matchers: str) -> str:
    """Return an expression for the alerts that are firing. A label that an alert does not have matches as empty."""
    return f"max by ({ALERT_LABELS}) ({_alerts(matchers)})"


def started_alerts(matchers: str) -> str:
    """Return an expression for the alerts that began to fire since the step before, for marks on a time axis.

    A mark for the whole time would cover the charts: a low battery fires for weeks.
    """
    firing = _alerts(matchers)
    return f"topk({MAX_ALERTS}, max by ({ALERT_LABELS}) ({firing} unless {firing} offset $__interval))"


def alert_starts(matchers: str, label: str) -> str:
    """Return an expression for the time in milliseconds since which the condition of each firing alert is true.

    If there is none, the label of the only series is a text, which depends on whether Prometheus evaluates the rules.
    """
    starts = series("ALERTS_FOR_STATE", _alert_matchers(matchers))
    # The other labels are equal.
    firing = 'ALERTS{alertstate="firing", job=~"$job|", instance=~"$instance|"}'
    return (
        f"topk({MAX_ALERTS}, 1000 * max by (alertname, severity, account, device, instance)"
        f" (label_join({starts} and ignoring (alertstate) {firing}, {ALERT_DEVICE})))"
        f' or on () label_replace(0 * max({RULES}) + {NO_CHANGE}, "{label}", "no alert is firing", "", "")'
        f' or on () label_replace(vector({NO_CHANGE}), "{label}", "no rules: see Help", "", "")'
    )


def alert_count(matchers: str) -> str:
    """Return an expression for the number of alerts that are firing. It has no data without the alerting rules."""
    return f"count({firing_alerts(matchers)}) or 0 * count({RULES})"


def _alerts(matchers: str) -> str:
    return f'ALERTS{{alertstate="firing", {_alert_matchers(matchers)}}}'


def _alert_matchers(matchers: str) -> str:
    return f'job=~"$job|", instance=~"$instance|", {matchers}'


def of_exporters(expression: str, lookback: str = "") -> str:
    """Restrict an expression for a metric of every target, such as `up`, to exporters.

    With `lookback`, targets that were exporters within that time are included.
    """
    exporters = series(catalogue.BUILD_INFO, EXPORTERS)
    return (
        f"{expression} and on (job, instance) {f'last_over_time({exporters}[{lookback}])' if lookback else exporters}"
    )


def days_until(percent: int, matchers: str) -> str:
    """Return an expression for the days until a battery reaches a level if it discharges as before, at most MAX_DAYS.

    Levels are whole percents, so the trend is taken over LONG_TREND_DAYS, or less if the battery discharges fast. There
    is no trend over a time in which the battery was charged or replaced. A lock with a history of less than
    SHORT_TREND_DAYS has one only if it discharges very fast.
    """
    battery = series(catalogue.LOCK_BATTERY_LEVEL, matchers)
    level = lowest(catalogue.LOCK_BATTERY_LEVEL, matchers)

    def trend(days: int) -> str:
        rise = f"{level} - min by {BY_ID} ({battery} offset 1d)"
        return f"deriv(({level})[{days}d:1h]) unless max_over_time(({rise})[{days}d:1h]) > {CHARGED_RISE}"

    def fell(days: int, percents: int) -> str:
        return f"max_over_time(({level})[{days}d:1h]) - {level} >= {percents}"

    def has_history(days: int) -> str:
        return f"group by {BY_ID} (last_over_time({battery}[12h] offset {24 * days - 12}h))"

    long_known = f"({fell(LONG_TREND_DAYS, LONG_TREND_FALL)} or {has_history(LONG_TREND_DAYS)})"
    long = f"({trend(LONG_TREND_DAYS)}) and {long_known}"
    short = f"({trend(SHORT_TREND_DAYS)}) and {fell(SHORT_TREND_DAYS, SHORT_TREND_FALL)}"
    fast = f"({trend(FAST_TREND_DAYS)}) and {fell(FAST_TREND_DAYS, FAST_TREND_FALL)}"
    slower = f"({long} or {short}) and on {BY_ID} {has_history(SHORT_TREND_DAYS)}"
    # Less than one percent in LONG_TREND_DAYS cannot be measured.
    percent_per_day = f"clamp_min(-86400 * ({fast} or {slower}), 1 / {LONG_TREND_DAYS})"
    return (
        f"clamp(({level} - {percent}) / ({percent_per_day}), 0, {MAX_DAYS})"
        f" unless on {BY_ID} {series(catalogue.LOCK_CHARGING, matchers)} == 1"
    )


def state_changes(matchers: str, window: str, offset: str = "") -> str:
    """Return an expression for the state changes of each lock in a window.

    Each exporter counts them since its own start: the highest number is right if several report the lock.
    """
    increase = f"increase({series(catalogue.LOCK_STATE_CHANGES, matchers)}[{window}]{offset})"
    return f"max by {BY_ID} (sum without (lock_name) ({increase}))"


EVENT_LABELS = "(account, lock_id, event, source)"
BRIDGE_ID, KEYPAD_ID, DOOR_SENSOR_ID = "(account, bridge_id)", "(account, keypad_id)", "(account, door_sensor_id)"
"""Labels that identify a device. The name is not one of them, as with locks."""


def events(matchers: str, window: str, by: str = EVENT_LABELS, offset: str = "") -> str:
    """Return an expression for the number of events in a window, the highest if several exporters report the lock.

    A lock has a series for each of its names, which are added. `increase` does not count the first event of a series.
    """
    increase = f"increase({series(catalogue.LOCK_EVENTS, matchers)}[{window}]{offset})"
    return f"max by {by} (sum without (lock_name{EXTRA_LABELS[by]}) ({increase}))"


EXTRA_LABELS = {EVENT_LABELS: "", BY_ID: ", event, source"}
"""Labels to add up before the highest value of several exporters is chosen."""


def device_names(info: AnyMetric, matchers: str, by: str, *labels: str) -> str:
    """Return an expression for one series of each device, with the given labels of its info."""
    return f"topk by {by} (1, group by ({by[1:-1]}, {', '.join(labels)}) ({series(info, matchers)}))"


def battery_levels(level: AnyMetric, info: AnyMetric, matchers: str, by: str) -> str:
    """Return an expression for the battery level of each accessory, or NO_LEVEL if Tedee omits it."""
    return f"min by {by} ({series(level, matchers)}) or {NO_LEVEL} * group by {by} ({series(info, matchers)})"


def bridges_of_locks(matchers: str) -> str:
    """Return an expression for one series of each lock that has a bridge, with its id."""
    info = series(catalogue.LOCK_INFO, f'{matchers}, bridge_id!=""')
    return f"topk by {BY_ID} (1, group by (account, lock_id, bridge_id) ({info}))"


def accessory_batteries(level: AnyMetric, info: AnyMetric, by: str) -> str:
    """Return an expression for the lowest battery level of each lock's keypads or door sensors, or NO_LEVEL."""
    of_locks = f"topk by {by} (1, group by ({by[1:-1]}, lock_id) ({series(info, SHOWN_LOCKS)}))"
    levels = f"min by {by} ({series(level, ACCOUNTS)})"
    return (
        f"min by {BY_ID} ({levels} * on {by} group_right () {of_locks})"
        f" or {NO_LEVEL} * group by {BY_ID} ({series(info, SHOWN_LOCKS)})"
    )
