"""Locks overview: is everything locked and closed, right now?"""

from dataclasses import replace

from grafana_foundation_sdk.builders import stat, table, timeseries

from exporter.metrics import catalogue
from exporter.presentation import JAMMED, LOW_BATTERY, Display
from exporter.tedee.models import DoorState, LockState

from . import queries as q
from . import variables, words
from .board import Board, Section
from .panels import BAR, PAINTED, Column, Reading, lines, sheet, tile

MOST_ROWS = 500
"""Locks in the table: those that need attention before the others."""
LATEST = 20
"""Changes that are lately."""

NEED_ATTENTION = f"topk({MOST_ROWS}, {q.attention(q.LOCKS, 'by (lock_id)')})"
TO_DETAIL = (
    "/d/tedee-lock?${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${account:queryparam}"
    "&var-lock=${__data.fields.Id}&${__url_time_range}"
)

JAM, ERROR = -1, -2
"""Stand for a state in the table, as on the status page: a jam, or another error, is more than where the bolt is."""
ENDINGS = {JAM: words.RESULTS[JAMMED], ERROR: words.SOME_ERROR}
STATE = Reading(words=words.STATES, steps=((None, "quiet"), (0, "bad")))
"""A code that nobody knows is none to be trusted."""

COUNT = "none"
"""The unit of what has none."""

POINTS = 200
"""Of a line through counts: each point counts hundreds of locks, where there are so many."""
BATTERY = Reading(
    "percent", steps=((None, "quiet"), (0, "bad"), (LOW_BATTERY + 1, "good")), decimals=0, least=0, most=100
)
RESULT = Reading(words=words.RESULTS, beyond=words.SOME_ERROR)

NAME = Column("lock_name", "Lock", width=220, link=("Show this lock", TO_DETAIL))
ACCOUNT = Column("account", "Account", width=140)
ID = Column("lock_id", "Id", width=90)


def counted(title: str, advice: str, locks: str, among: str, tone: str) -> stat.Panel:
    """How many locks something is the matter with; nothing is known where there are none that could say so."""
    reading = Reading(COUNT, steps=((None, "quiet"), (0, "good"), (1, tone)), unsaid="not known")
    return tile(title, advice, q.count(locks, among), reading).span(3)


def board() -> Board:
    """The dashboard."""
    return Board(
        uid="tedee-locks",
        title="Tedee: locks",
        description="Is everything locked and closed, right now? Then every lock, and what changed lately.",
        span="24h",
        variables=variables.chain(variables.locks(), variables.shown(NEED_ATTENTION, "lock_id")),
        alerts=q.alerts('account=~"$account|", lock_id=~"$lock|"'),
        sections=[Section([*answers(), every_lock(), changes(), history()])],
    )


def answers() -> list[stat.Panel]:
    """The big answers."""
    return [
        tile(
            "Locked and closed?",
            "How many locks are not known to be locked with their door closed: unlocked, open, on their way, offline, "
            "with a sensor that cannot tell, or without any word of theirs. The table has them at its top. Doors "
            "without a sensor count as closed; locks without a bridge are not counted, since they are never heard of. "
            "`not known`: the exporter, or an account of it, is silent; see the exporter's dashboard.",
            q.not_safe(q.LOCKS),
            Reading(
                "suffix:not",
                {0: Display("all of them", "good")},
                steps=((None, "quiet"), (1, "warn")),
                unsaid="not known",
            ),
        ).span(6),
        counted(
            "Unlocked",
            "Locks whose bolt is back. Lock them in Tedee's app, or go and look.",
            q.unlocked(q.LOCKS),
            q.of(catalogue.LOCK_STATE, q.LOCKS),
            "warn",
        ),
        counted(
            "Doors open",
            "Locks whose sensor says that the door stands open. Somebody has to go and close it. `not known`: no door "
            "has a sensor, or none is heard of.",
            q.open_doors(q.LOCKS),
            q.with_sensor(q.LOCKS),
            "warn",
        ),
        counted(
            "Jammed or unknown",
            "Locks whose last turn failed, or that are half locked, uncalibrated or in a state that nobody knows. Go "
            "and see whether the door is shut, then turn the lock again; calibrate it in Tedee's app if that says so.",
            q.jammed(q.LOCKS),
            q.of(catalogue.LOCK_STATE, q.LOCKS),
            "bad",
        ),
        counted(
            "Offline",
            "Locks that their bridge does not reach: nobody knows whether they are locked. See whether the bridge has "
            "power and network, and whether the lock's battery is empty.",
            q.offline(q.LOCKS),
            q.of(catalogue.LOCK_CONNECTED, q.LOCKS),
            "bad",
        ),
        counted(
            "Low batteries",
            f"Locks with {LOW_BATTERY} % or less that are not being charged. Charge them, those with the least first.",
            q.low(q.LOCKS),
            q.of(catalogue.LOCK_BATTERY_LEVEL, q.LOCKS),
            "bad",
        ),
        tile(
            "Silent accounts",
            "Accounts that were heard of before and of whose locks nothing is known now: they are in none of the "
            "numbers beside this. The exporter's dashboard says why.",
            f"count({q.silent()}) or 0 * count({q.accounts()})",
            Reading(COUNT, steps=((None, "quiet"), (0, "good"), (1, "bad")), unsaid="not known"),
        ).span(3),
    ]


def every_lock() -> table.Panel:
    """The table of the locks."""
    return sheet(
        "Every lock",
        "All chosen locks, those that need attention first: what is jammed, unknown, offline or low, then what is "
        f"not known to be locked and closed, then the others by name. Of more than {MOST_ROWS} the first {MOST_ROWS}: "
        "choose an account or locks above to see others. A lock's name leads to its details.",
        [
            NAME,
            ACCOUNT,
            Column("state", "State", replace(STATE, words={**words.STATES, **ENDINGS}), PAINTED, 130),
            Column("door", "Door", Reading(words=words.DOORS), PAINTED, 120),
            Column("battery", "Battery", BATTERY, BAR),
            Column("charging", "Charging", Reading(words=words.CHARGING), width=100),
            Column("connection", "Connection", Reading(words=words.CONNECTIONS), PAINTED, 110),
            Column("changed", "Last change", Reading("dateTimeFromNow"), width=150),
            Column("firmware_version", "Firmware", width=120),
            Column("update", "Update", Reading(words=words.UPDATES), width=140),
            ID,
        ],
        {
            "state": state(q.SHOWN_LOCKS),
            "door": q.door(q.SHOWN_LOCKS),
            "battery": q.now(catalogue.LOCK_BATTERY_LEVEL, q.SHOWN_LOCKS),
            "charging": q.now(catalogue.LOCK_CHARGING, q.SHOWN_LOCKS),
            "connection": q.now(catalogue.LOCK_CONNECTED, q.SHOWN_LOCKS),
            "changed": f"{q.latest(catalogue.LOCK_LAST_STATE_CHANGE, q.SHOWN_LOCKS)} * 1000",
            "name": names(q.SHOWN_LOCKS),
            "update": q.latest(catalogue.LOCK_FIRMWARE_UPDATE_AVAILABLE, q.SHOWN_LOCKS),
            "attention": q.attention(q.SHOWN_LOCKS, f"by {q.BY_ID}"),
        },
        [("lock_name", False), ("Value #attention", True)],
    ).height(14)


def changes() -> table.Panel:
    """What changed lately."""
    latest = f"topk({LATEST}, {q.latest(catalogue.LOCK_LAST_STATE_CHANGE, q.LOCKS)})"
    of_those = f"and on {q.BY_ID} {latest}"
    return (
        sheet(
            "What changed lately",
            f"The {LATEST} locks whose state changed last, when, and what came of it. A lock that you did not expect "
            "to see here was turned by somebody: Tedee's app tells by whom.",
            [
                Column("changed", "When", Reading("dateTimeFromNow"), width=150),
                NAME,
                ACCOUNT,
                Column("state", "Now", STATE, PAINTED, 130),
                Column("result", "How it ended", RESULT, PAINTED, 130),
                ID,
            ],
            {
                "changed": f"{latest} * 1000",
                "name": f"{q.names(q.LOCKS)} {of_those}",
                "state": f"({q.state(q.LOCKS)}) {of_those}",
                "result": f"{q.latest(catalogue.LOCK_STATE_CHANGE_RESULT, q.LOCKS)} {of_those}",
            },
            [("Value #changed", True)],
        )
        .span(14)
        .height(10)
    )


def history() -> timeseries.Panel:
    """How the big answers came about."""
    asked = {
        "not locked": (catalogue.LOCK_STATE, f"!= bool {LockState.LOCKED.value}"),
        "with door open": (catalogue.LOCK_DOOR_STATE, f"== bool {DoorState.OPENED.value}"),
        "offline": (catalogue.LOCK_CONNECTED, "== bool 0"),
    }
    counts = {legend: q.how_many(metric, q.SHOWN_LOCKS, what) for legend, (metric, what) in asked.items()}
    low = q.count(q.low(q.SHOWN_LOCKS), q.of(catalogue.LOCK_BATTERY_LEVEL, q.SHOWN_LOCKS))
    return (
        lines(
            "How many, over time",
            "How many of the locks in the table were so. A line that never comes back to 0 is a lock to look after; "
            "many that go offline at once share a bridge or a network.",
            {**counts, "with low battery": low},
            Reading(COUNT, decimals=0, least=0),
        )
        .max_data_points(POINTS)
        .span(10)
        .height(10)
    )


def state(those: str) -> str:
    """The state of each lock, or how its last change went wrong."""
    result = q.of(catalogue.LOCK_STATE_CHANGE_RESULT, those)
    return f"min by {q.BY_ID} (-clamp_max({result} > 0, {-ERROR})) or {q.state(those)}"


def names(those: str) -> str:
    """One name and one firmware of each lock; what is known of a lock at first is its revision."""
    info = f"group by (account, lock_id, lock_name, firmware_version) ({q.of(catalogue.LOCK_INFO, those)})"
    return f"topk by {q.BY_ID} (1, {info} or on {q.BY_ID} {q.names(those)})"
