"""PromQL: whose series a query takes, and what is asked of more than one panel.

Where two exporters tell of one lock, it is one lock, and the lower of two states counts: of "locked" and "unlocked", of
"closed" and "opened" it is the one to worry about.
"""

from exporter.metrics import catalogue
from exporter.metrics.catalogue import Metric
from exporter.tedee.models import DoorState, LockState
from exporter.web.status import LOW_BATTERY

from .words import DOORS, STATES, of_tone

EXPORTERS = 'job=~"$job", instance=~"$instance"'
ACCOUNTS = f'{EXPORTERS}, account=~"$account"'
LOCKS = f'{ACCOUNTS}, lock_id=~"$lock"'
SHOWN_ACCOUNTS = f'{EXPORTERS}, account=~"$shown"'
SHOWN_LOCKS = f'{ACCOUNTS}, lock_id=~"$shown"'

EACH_LOCK = "by (account, lock_id, lock_name)"
BY_ID = "(account, lock_id)"
"""Two metrics of one lock meet by these: its name may change while one looks."""

MOST_ALERTS = 100
"""On one time axis."""

MEMORY = "6h"
"""How long an account or a lock of which nothing is heard any more can still be chosen."""


def of(metric: Metric | str, those: str, suffix: str = "") -> str:
    """The series of a metric that belong to those: one of the selections above."""
    return f"{metric if isinstance(metric, str) else metric.name}{suffix}{{{those}}}"


def known(those: str) -> str:
    """Something of every lock, whatever is known of it."""
    return f'{{__name__=~"{catalogue.LOCK_INFO.name}|{catalogue.LOCK_REVISION.name}", {those}}}'


def watched(those: str) -> str:
    """Something of every lock that has a bridge, and can be heard of."""
    return f'{{__name__=~"{catalogue.LOCK_CONNECTED.name}|{catalogue.LOCK_STATE.name}", {those}}}'


def now(metric: Metric, those: str) -> str:
    """A value of each lock."""
    return f"min {EACH_LOCK} ({of(metric, those)})"


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
    fine = "".join(f" != {code}" for code, said in STATES.items() if said.tone != "bad")
    return f"{of(catalogue.LOCK_STATE_CHANGE_RESULT, those)} > 0 or {of(catalogue.LOCK_STATE, those)}{fine}"


def offline(those: str) -> str:
    """Locks without a connection to their bridge."""
    return f"{of(catalogue.LOCK_CONNECTED, those)} == 0"


def low(those: str) -> str:
    """Locks that want their battery charged."""
    low_level = f"{of(catalogue.LOCK_BATTERY_LEVEL, those)} <= {LOW_BATTERY}"
    return f"{low_level} unless {of(catalogue.LOCK_CHARGING, those)} == 1"


def attention(those: str, by: str) -> str:
    """Of each lock: 2 where something is wrong, 1 where something is open, 0 where neither is known to be."""
    wrong = " or ".join([jammed(those), offline(those), f"({low(those)})"])
    return (
        f"2 * group {by} ({wrong})"
        f" or group {by} ({unlocked(those)} or {open_doors(those)})"
        f" or 0 * group {by} ({known(those)})"
    )


def count(locks: str, among: str) -> str:
    """How many locks: 0 only where there are any that could be counted, else nothing."""
    return f"count(group by {BY_ID} ({locks})) or 0 * count({among})"


def how_many(metric: Metric, those: str, what: str) -> str:
    """How many locks have a value that is `what`; in one go, for queries that look at each of many moments."""
    return f"sum(max by {BY_ID} ({of(metric, those)} {what}))"


def not_safe(those: str) -> str:
    """How many locks are not known to be locked and closed; nothing where it may be none and not all is known."""
    locked = f"min by {BY_ID} ({of(catalogue.LOCK_STATE, those)}) == {LockState.LOCKED.value}"
    door = is_one_of(catalogue.LOCK_DOOR_STATE, those, [DoorState.OPENED.value, DoorState.DISCONNECTED.value])
    return (
        f"count(group by {BY_ID} ({watched(those)}) unless on {BY_ID} ({locked} unless on {BY_ID} ({door})))"
        f" or 0 * count({watched(those)}) unless on () ({silent()})"
    )


def silent() -> str:
    """Accounts that spoke within the hour and of whose locks nothing is known now."""
    heard = f"group by (account) (last_over_time({of(catalogue.UP, ACCOUNTS)}[1h]))"
    return f"{heard} unless on (account) {of(catalogue.LOCKS, ACCOUNTS)}"


def alerts(those: str) -> str:
    """Alerts that fire; those that are about nothing in particular have empty labels."""
    series = f'ALERTS{{alertname=~"Tedee.*", alertstate="firing", job=~"$job|", instance=~"$instance|", {those}}}'
    return f"topk({MOST_ALERTS}, max by (alertname, severity, account, lock_name, instance) ({series}))"


def ours(expression: str, within: str = "") -> str:
    """Of the metrics that every target has, those of Tedee exporters: now, or of those that were `within` a time."""
    exporters = of(catalogue.BUILD_INFO, EXPORTERS)
    return f"{expression} and on (job, instance) {f'last_over_time({exporters}[{within}])' if within else exporters}"


def days_until(percent: int, those: str) -> str:
    """Days until a battery is down to so many percent, as it has been emptying for three days.

    Steadily: lower now than a day and a half ago, and lower then than almost three days ago. One that was charged or
    changed meanwhile has no trend, and no more has one that was not watched for so long.
    """
    battery = of(catalogue.LOCK_BATTERY_LEVEL, those)

    def ago(hours: int) -> str:
        return f"max by {BY_ID} (last_over_time({battery}[6h] offset {hours}h))"

    level = now(catalogue.LOCK_BATTERY_LEVEL, those)
    a_day = f"-86400 * deriv((max by {BY_ID} ({battery}))[3d:1h]) > 0"
    return (
        f"clamp_min(({level} - {percent}) / on {BY_ID} group_left () ({a_day}), 0)"
        f" unless on {BY_ID} {of(catalogue.LOCK_CHARGING, those)} == 1"
        f" and on {BY_ID} (max by {BY_ID} ({battery}) < {ago(36)} < {ago(66)})"
    )
