"""PromQL: whose series a query takes, and what is asked of more than one panel.

Where two exporters tell of one lock, it is one lock. Of what they say that counts which is to worry about: any other
state before "locked", any other state of the door before "closed" and "not paired", "offline" before "connected", the
lower charge of the battery.
"""

from exporter.metrics import catalogue
from exporter.metrics.catalogue import Metric
from exporter.presentation import LOW_BATTERY
from exporter.tedee.models import DoorState, LockState

from .words import DOORS, STATES, of_tone

EXPORTERS = 'job=~"$job", instance=~"$instance"'
ACCOUNTS = f'{EXPORTERS}, account=~"$account"'
LOCKS = f'{ACCOUNTS}, lock_id=~"$lock"'
SHOWN_ACCOUNTS = f'{EXPORTERS}, account=~"$shown"'
SHOWN_LOCKS = f'{ACCOUNTS}, lock_id=~"$shown"'

BY_ID = "(account, lock_id)"
"""What a lock is told by, and its metrics meet by: its name may change while one looks, and two exporters may for a
while have different ones."""

MOST_ALERTS = 100
"""On one time axis."""

NOT_KNOWN = -1
"""Stands for what is not known of a lock that is known."""

LOCK_MEMORY = "6h:30m"
"""How long a lock of which nothing is heard any more can still be chosen. It is looked for every half hour: to go
through all samples of thousands of locks would take Prometheus most of a second, at each refresh."""
ACCOUNT_MEMORY = "1d"
"""How long an account is missed whose exporter Prometheus no longer knows."""
EXPORTER_MEMORY = "7d"
"""How long an exporter that is down is known for one, and its accounts are missed."""
RARELY = "10m"
"""How closely so long a time is looked at."""

CHARGED = 2
"""Percent: a battery that is fuller than a day before by more than that was charged or changed."""
LONG, LONG_FALL = 14, 3
"""Days over which a battery has a trend, less than the fifteen that Prometheus keeps by default, and how many percent
it has to fall in them. Less is told only by who has watched for so long."""
SHORT, SHORT_FALL = 3, 2
"""The same for a battery that empties fast, and is watched since lately or was charged."""
MOST_DAYS = 90
"""Farther ahead nobody can tell."""


def of(metric: Metric | str, those: str, suffix: str = "") -> str:
    """The series of a metric that belong to those: one of the selections above."""
    return f"{metric if isinstance(metric, str) else metric.name}{suffix}{{{those}}}"


def known(those: str) -> str:
    """Something of every lock, whatever is known of it."""
    return f'{{__name__=~"{catalogue.LOCK_INFO.name}|{catalogue.LOCK_REVISION.name}", {those}}}'


def watched(those: str) -> str:
    """Something of every lock that has a bridge, and can be heard of."""
    return f'{{__name__=~"{catalogue.LOCK_CONNECTED.name}|{catalogue.LOCK_STATE.name}", {those}}}'


def kept(series: str) -> str:
    """Series of locks as they are now, and as they were of those of which nothing is heard any more."""
    return f"({series} or last_over_time({series}[{LOCK_MEMORY}]))"


def now(metric: Metric, those: str) -> str:
    """A value of each lock; of two, the lower."""
    return f"min by {BY_ID} ({of(metric, those)})"


def latest(metric: Metric, those: str) -> str:
    """A value of each lock; of two, the higher."""
    return f"max by {BY_ID} ({of(metric, those)})"


def state(those: str) -> str:
    """The state of each lock; of two, the one that is not locked."""
    return f"max by {BY_ID} ({_not_locked(those)}) or {latest(catalogue.LOCK_STATE, those)}"


def door(those: str) -> str:
    """The state of each door; of two, the one that is not closed."""
    return f"max by {BY_ID} ({_not_closed(those)}) or {latest(catalogue.LOCK_DOOR_STATE, those)}"


def names(those: str) -> str:
    """One name of each lock."""
    return f"topk by {BY_ID} (1, {_all_names(known(those))})"


def names_kept(those: str) -> str:
    """One name of each lock, those included of which nothing is heard any more: the name of now, or else the last."""
    last = _all_names(f"last_over_time({known(those)}[{LOCK_MEMORY}])")
    return f"topk by {BY_ID} (1, {_all_names(known(those))} or on {BY_ID} {last})"


def _all_names(series: str) -> str:
    return f"group by (account, lock_id, lock_name) ({series})"


def named(expression: str, those: str) -> str:
    """Values of locks, with their names."""
    return f"({expression}) * on {BY_ID} group_left (lock_name) {names(those)}"


def of_each(expression: str, those: str) -> str:
    """Values of locks, with their names, and NOT_KNOWN for each lock that has none."""
    all_names = names_kept(those)
    return f"({expression} or on {BY_ID} {NOT_KNOWN} * {all_names}) * on {BY_ID} group_left (lock_name) {all_names}"


def is_one_of(metric: Metric, those: str, codes: list[int]) -> str:
    """The locks that have one of the codes."""
    return " or ".join(f"{of(metric, those)} == {code}" for code in codes)


def unlocked(those: str) -> str:
    """Locks whose bolt is back, and which say so."""
    return is_one_of(catalogue.LOCK_STATE, those, of_tone(STATES, "warn"))


def open_doors(those: str) -> str:
    """Locks whose door stands open."""
    return is_one_of(catalogue.LOCK_DOOR_STATE, those, of_tone(DOORS, "warn"))


def jammed(those: str) -> str:
    """Locks that did not do what they were told, or of whose bolt nobody knows where it is: new codes included."""
    fine = "".join(f" != {code}" for code, said in STATES.items() if said.severity != "bad")
    return f"{of(catalogue.LOCK_STATE_CHANGE_RESULT, those)} > 0 or {of(catalogue.LOCK_STATE, those)}{fine}"


def offline(those: str) -> str:
    """Locks without a connection to their bridge."""
    return f"{of(catalogue.LOCK_CONNECTED, those)} == 0"


def low(those: str) -> str:
    """Locks that want their battery charged."""
    low_level = f"{of(catalogue.LOCK_BATTERY_LEVEL, those)} <= {LOW_BATTERY}"
    return f"{low_level} unless {of(catalogue.LOCK_CHARGING, those)} == 1"


def attention(those: str, by: str) -> str:
    """Of each lock: 2 where something is wrong, 1 where it is not known to be locked and closed, else 0."""
    wrong = " or ".join([jammed(those), offline(those), f"({low(those)})"])
    return f"2 * group {by} ({wrong}) or group {by} ({unsafe(those)}) or 0 * group {by} ({known(those)})"


def count(locks: str, among: str) -> str:
    """How many locks: 0 only where there are any that could be counted, else nothing."""
    return f"count(group by {BY_ID} ({locks})) or 0 * count({among})"


def how_many(metric: Metric, those: str, what: str) -> str:
    """How many locks have a value that is `what`; in one go, for queries that look at each of many moments."""
    return f"sum(max by {BY_ID} ({of(metric, those)} {what}))"


def unsafe(those: str) -> str:
    """Locks that are not known to be locked with their door closed. A door without a sensor counts as closed."""
    silent_locks = f"{watched(those)} unless on {BY_ID} {of(catalogue.LOCK_STATE, those)}"
    return f"{_not_locked(those)} or {_not_closed(those)} or {offline(those)} or {silent_locks}"


def _not_locked(those: str) -> str:
    return f"{of(catalogue.LOCK_STATE, those)} != {LockState.LOCKED.value}"


def _not_closed(those: str) -> str:
    return f"{with_sensor(those)} != {DoorState.CLOSED.value}"


def with_sensor(those: str) -> str:
    """The doors that have a sensor."""
    return f"{of(catalogue.LOCK_DOOR_STATE, those)} != {DoorState.NOT_PAIRED.value}"


def not_safe(those: str) -> str:
    """How many locks are not known to be locked and closed; nothing where it may be none and not all is known."""
    return f"{count(unsafe(those), watched(those))} unless on () ({silent()})"


def accounts(those: str = ACCOUNTS) -> str:
    """Something of every account: those that an exporter has, and those of an exporter that is not heard any more.

    An exporter that is heard has told of all its accounts: one that it no longer speaks of was removed. Its requests
    left are what it tells of each from the first moment on.
    """
    told = of(catalogue.API_REQUESTS_REMAINING, those)
    return (
        f"{told}"
        f" or last_over_time({told}[{ACCOUNT_MEMORY}]) unless on (job, instance) {of(catalogue.BUILD_INFO, EXPORTERS)}"
        f" or last_over_time({told}[{EXPORTER_MEMORY}:{RARELY}]) and on (job, instance) {of('up', EXPORTERS)} == 0"
    )


def silent() -> str:
    """Accounts of whose locks nothing is known now. What another exporter tells of is known."""
    return f"group by (account) ({accounts()}) unless on (account) {of(catalogue.LOCKS, ACCOUNTS)}"


def alerts(those: str) -> str:
    """Alerts that fire; those that are about nothing in particular have empty labels."""
    series = f'ALERTS{{alertname=~"Tedee.*", alertstate="firing", job=~"$job|", instance=~"$instance|", {those}}}'
    return f"topk({MOST_ALERTS}, max by (alertname, severity, account, lock_name, instance) ({series}))"


def ours(expression: str, within: str = "") -> str:
    """Of the metrics that every target has, those of Tedee exporters: now, or of those that were `within` a time."""
    exporters = of(catalogue.BUILD_INFO, EXPORTERS)
    return f"{expression} and on (job, instance) {f'last_over_time({exporters}[{within}])' if within else exporters}"


def days_until(percent: int, those: str) -> str:
    """Days until a battery is down to so many percent, as it has been emptying; MOST_DAYS where it is that or more.

    Levels are whole percents: the trend is taken over as long as Prometheus remembers, or over a few days where the
    battery falls fast. One that was charged or changed meanwhile has no trend over that time, and one that was not
    watched for some days has none at all.
    """
    battery = of(catalogue.LOCK_BATTERY_LEVEL, those)
    level = now(catalogue.LOCK_BATTERY_LEVEL, those)

    def trend(days: int) -> str:
        higher = f"{level} - min by {BY_ID} ({battery} offset 1d)"
        return f"deriv(({level})[{days}d:1h]) unless max_over_time(({higher})[{days}d:1h]) > {CHARGED}"

    def fell(days: int, percents: int) -> str:
        return f"max_over_time(({level})[{days}d:1h]) - {level} >= {percents}"

    def watched_for(days: int) -> str:
        return f"group by {BY_ID} (last_over_time({battery}[12h] offset {24 * days - 12}h))"

    long = f"({trend(LONG)}) and ({fell(LONG, LONG_FALL)} or {watched_for(LONG)})"
    short = f"({trend(SHORT)}) and {fell(SHORT, SHORT_FALL)}"
    # Slower than by one percent in all that time nobody can tell.
    a_day = f"clamp_min(-86400 * ({long} or {short}), 1 / {LONG})"
    return (
        f"clamp(({level} - {percent}) / ({a_day}), 0, {MOST_DAYS})"
        f" unless on {BY_ID} {of(catalogue.LOCK_CHARGING, those)} == 1"
        f" and on {BY_ID} {watched_for(SHORT)}"
    )
