"""The exporter: does it hear from Tedee, and does Prometheus hear from it?"""

from grafana_foundation_sdk.builders import stat, table, timeseries

from exporter.metrics import catalogue
from exporter.tedee.errors import REASONS

from . import queries as q
from . import variables, words
from .board import Board, Section
from .colours import FEW
from .panels import PAINTED, Column, Reading, bars, lines, sheet, tile

SEVERAL = f" Of more than {FEW} accounts, the {FEW} with the oldest data are shown."

MOST_ACCOUNTS = 100
"""In the table: those that fail before the others."""


def newest(metric: catalogue.Metric, those: str = q.ACCOUNTS) -> str:
    """An account's value; of two exporters that know the account, the later or better one."""
    return f"max by (account) ({q.of(metric, those)})"


def worst(metric: catalogue.Metric) -> str:
    """An account's value; of two exporters that know the account, the lower one."""
    return f"min by (account) ({q.of(metric, q.ACCOUNTS)})"


LAST_SYNCS = (
    f"max by (account) ({q.of(catalogue.LAST_SYNC, q.ACCOUNTS)}"
    f" or last_over_time({q.of(catalogue.LAST_SYNC, q.ACCOUNTS)}[{q.EXPORTER_MEMORY}:{q.RARELY}]))"
    f" and on (account) ({q.accounts()})"
)
"""When each account last heard from Tedee, those included of which nothing is heard any more."""
STANDINGS = f"{newest(catalogue.UP)} or {words.SILENT} * group by (account) ({q.accounts()})"
"""How the syncs of each account go, those included."""
OLDEST = f"bottomk({FEW}, {LAST_SYNCS} or 0 * group by (account) ({q.accounts()}))"
LISTED = f"bottomk({MOST_ACCOUNTS}, {STANDINGS})"
BY_ACCOUNT = "{{account}}"
BY_INSTANCE = "{{instance}}"

SECONDS = Reading("s", decimals=0)
COUNT = Reading("none", decimals=0, least=0)


def board() -> Board:
    """The dashboard."""
    return Board(
        uid="tedee-exporter",
        title="Tedee: exporter",
        description="Does the exporter hear from Tedee, and does Prometheus hear from the exporter?",
        span="6h",
        variables=variables.chain(variables.shown(OLDEST, "account")),
        alerts=q.alerts('account=~"$account|", lock_id=""'),
        sections=[
            Section([*answers(), accounts()]),
            Section([*syncs(), *requests()], "Syncs with Tedee"),
            Section(program(), "Scrapes by Prometheus, and the program"),
        ],
    )


def answers() -> list[stat.Panel]:
    """The big answers."""
    up = q.of("up", q.EXPORTERS)
    return [
        answer(
            "Exporters down",
            "Exporters that Prometheus cannot scrape. See whether the program runs, and whether Prometheus reaches "
            "its port.",
            f"count({q.ours(f'{up} == 0', within=q.EXPORTER_MEMORY)})"
            f" or 0 * count({q.ours(up, within=q.EXPORTER_MEMORY)})",
            Reading("none", steps=((None, "quiet"), (0, "good"), (1, "bad")), unsaid="not known"),
        ),
        answer(
            "Accounts failing",
            "Accounts whose last sync failed, whose data is too old, or whose exporter is not heard. The table below "
            "has them; the exporter's status page and its log say what Tedee answered and what to do.",
            f"count(({STANDINGS}) < 1) or 0 * count({q.accounts()})",
            Reading("none", steps=((None, "quiet"), (0, "good"), (1, "bad")), unsaid="not known"),
        ),
        answer(
            "Oldest data",
            "Age of the oldest account's data. Usual are 20 seconds; from 5 minutes on an account's locks are no "
            "longer served, since nobody knows what the doors did.",
            f"clamp_min(max(time() - ({LAST_SYNCS})), 0)",
            Reading(
                "s", steps=((None, "quiet"), (0, "good"), (60, "warn"), (300, "bad")), decimals=0, unsaid="none yet"
            ),
        ),
        answer(
            "Failures in the last hour",
            "Syncs that brought nothing usable. A few are the network's; many have their reason below.",
            f"sum(increase({q.of(catalogue.SYNC_FAILURES, q.ACCOUNTS)}[1h]))",
            Reading(
                "none", steps=((None, "quiet"), (0, "good"), (1, "warn"), (10, "bad")), decimals=0, unsaid="not known"
            ),
        ),
        answer(
            "Fewest requests left",
            "Requests that the tightest account has left of the exporter's share of the hour. At 0 the exporter "
            "waits. Look for what else uses them up: restarts without a state file, or a second exporter.",
            f"min({q.of(catalogue.API_REQUESTS_REMAINING, q.ACCOUNTS)})",
            Reading(
                "none", steps=((None, "quiet"), (0, "bad"), (10, "warn"), (50, "good")), decimals=0, unsaid="not known"
            ),
        ),
        answer(
            "Tedee's API",
            "Whether Tedee still speaks the API version in use. If it no longer lists it, update the exporter or set "
            "api.version before it is switched off.",
            f"min({q.of(catalogue.API_VERSION_SUPPORTED, q.ACCOUNTS)})",
            Reading(words=words.VERSIONS, unsaid="not known"),
        ),
        answer(
            "Configuration",
            "Whether the configuration was last loaded well. Refused: the exporter goes on with the one it had, and "
            "its next start will fail; its log says what is wrong, and so does --config.check.",
            f"min({q.of(catalogue.CONFIG_RELOAD_SUCCESSFUL, q.EXPORTERS)})",
            Reading(words=words.CONFIGURATIONS, unsaid="not known"),
        ),
        answer(
            "State file",
            "Whether calls are written down. Not usable: a restart has to wait out 20 seconds and knows no data; the "
            "log says why.",
            f"min({q.of(catalogue.STATE_FILE_USABLE, q.EXPORTERS)})",
            Reading(words=words.STATE_FILES, unsaid="none"),
        ),
    ]


def answer(title: str, description: str, expression: str, reading: Reading) -> stat.Panel:
    """One of them."""
    return tile(title, description, expression, reading).span(3)


def accounts() -> table.Panel:
    """Every account."""
    listed = f"and on (account) {LISTED}"
    supported = f"min by (account, version) ({q.of(catalogue.API_VERSION_SUPPORTED, q.ACCOUNTS)})"
    return sheet(
        "Accounts",
        "How each account's syncs go: those that fail first, then the oldest data. `silent`: its exporter is not "
        "heard. Credentials without a date do not expire by themselves; where one is near, somebody has to sign in "
        f"again. Of more than {MOST_ACCOUNTS} accounts the first {MOST_ACCOUNTS}.",
        [
            Column("account", "Account"),
            Column("up", "Syncs", Reading(words=words.ACCOUNTS), PAINTED, 110),
            Column("age", "Age of data", SECONDS),
            Column("next", "Next sync in", SECONDS),
            Column("left", "Requests left", COUNT),
            Column("locks", "Locks", COUNT),
            Column("version", "API version"),
            Column("supported", "Supported", Reading(words=words.VERSIONS), PAINTED, 150),
            Column("expiry", "Credentials expire", Reading("dateTimeFromNow")),
        ],
        {
            "up": LISTED,
            "age": f"time() - ({LAST_SYNCS} {listed})",
            "next": f"{newest(catalogue.NEXT_SYNC)} - time() {listed}",
            "left": f"{worst(catalogue.API_REQUESTS_REMAINING)} {listed}",
            "locks": f"{newest(catalogue.LOCKS)} {listed}",
            "supported": f"bottomk by (account) (1, {supported}) {listed}",
            "expiry": f"{worst(catalogue.CREDENTIALS_EXPIRY)} * 1000 {listed}",
        },
        [("account", False), ("Value #age", True), ("Value #up", False)],
    ).height(8)


def syncs() -> list[timeseries.Panel]:
    """What comes of the calls."""
    buckets = f"sum by (le) (rate({q.of(catalogue.SYNC_DURATION, q.ACCOUNTS, '_bucket')}[$__rate_interval]))"
    taken, calls = (
        f"sum(rate({q.of(catalogue.SYNC_DURATION, q.ACCOUNTS, suffix)}[$__rate_interval]))"
        for suffix in ("_sum", "_count")
    )
    return [
        lines(
            "Age of the data",
            "Seconds since each account's last successful sync. A saw of some 20 seconds is as it should be; a line "
            "that climbs is an account that fails." + SEVERAL,
            {BY_ACCOUNT: f"time() - {newest(catalogue.LAST_SYNC, q.SHOWN_ACCOUNTS)}"},
            Reading("s", least=0),
        ).span(12),
        bars(
            "Failures by reason",
            "Syncs that brought nothing usable. auth, forbidden: make a new key. not_found: see the API version and "
            "the chosen locks. rate_limited: another program uses the same user. server: Tedee's. timeout, "
            "connection, tls, invalid_response: the network between.",
            f"sum by (reason) (increase({q.of(catalogue.SYNC_FAILURES, q.ACCOUNTS)}[$__rate_interval]))",
            "{{reason}}",
            known=REASONS,
        ).span(12),
        lines(
            "Duration of calls",
            "How long syncs take from sending to answer: of half of them, of nine in ten, of all but one in a "
            "hundred, and on average. Near the time-out (10 seconds) many will fail: look at the network.",
            {
                "half": f"histogram_quantile(0.5, {buckets})",
                "9 of 10": f"histogram_quantile(0.9, {buckets})",
                "99 of 100": f"histogram_quantile(0.99, {buckets})",
                "average": f"{taken} / {calls}",
            },
            Reading("s", least=0),
        ).span(12),
        lines(
            "Next sync",
            "Seconds until each account's next call may go out. Up to 20 are usual, more after failures: up to 5 "
            "minutes, or what Tedee asks for. Below 0 a call is overdue: the exporter has too much to do." + SEVERAL,
            {BY_ACCOUNT: f"{newest(catalogue.NEXT_SYNC, q.SHOWN_ACCOUNTS)} - time()"},
            Reading("s"),
        ).span(12),
    ]


def requests() -> list[timeseries.Panel]:
    """What Tedee is asked."""
    return [
        lines(
            "Requests left",
            "Requests that each account has left of the exporter's share of the hour. A line that falls to 0 will "
            "soon be an account that waits." + SEVERAL,
            {BY_ACCOUNT: f"min by (account) ({q.of(catalogue.API_REQUESTS_REMAINING, q.SHOWN_ACCOUNTS)})"},
            COUNT,
        ).span(8),
        bars(
            "Requests by answer",
            "Requests sent to Tedee, by endpoint and what came back. All but 200 is told by reason above.",
            f"sum by (endpoint, code) (increase({q.of(catalogue.API_REQUESTS, q.ACCOUNTS)}[$__rate_interval]))",
            "{{endpoint}} {{code}}",
            known=["my/lock/sync 200", "my/lock 200"],
        ).span(8),
        bars(
            "Values that could not be used",
            "Values of Tedee's answers that make no sense, by field: their samples are absent. A battery level now "
            "and then is a lock that updates; many of a field, and often, are worth a report.",
            f"sum by (field) (increase({q.of(catalogue.REJECTED_VALUES, q.ACCOUNTS)}[$__rate_interval]))",
            "{{field}}",
        ).span(8),
    ]


def program() -> list[timeseries.Panel | table.Panel]:
    """The program, and what Prometheus gets of it."""
    programs = {"instance": "Instance", "job": "Job", "version": "Version", "python_version": "Python"}
    return [
        lines(
            "Size of a scrape",
            "Samples that Prometheus gets at once: some ten a lock. More than that, or a jump, is a change of the "
            "fleet.",
            {BY_INSTANCE: q.ours(q.of("scrape_samples_scraped", q.EXPORTERS))},
            COUNT,
        ).span(8),
        lines(
            "Duration of a scrape",
            "How long Prometheus waits for its answer. It is ready before it is asked for: more than a tenth of a "
            "second is the network's, or a machine that has too much to do.",
            {BY_INSTANCE: q.ours(q.of("scrape_duration_seconds", q.EXPORTERS))},
            Reading("s", least=0),
        ).span(8),
        lines(
            "Memory",
            "Memory that the program has. It grows with the fleet and then stays; one that climbs for days is a leak "
            "and worth a report.",
            {BY_INSTANCE: q.ours(q.of("process_resident_memory_bytes", q.EXPORTERS))},
            Reading("bytes", least=0),
        ).span(8),
        lines(
            "Processor",
            "The part of one processor that the program uses: a few percent at 5,000 locks. Much more is worth a "
            "report.",
            {BY_INSTANCE: q.ours(f"rate({q.of('process_cpu_seconds_total', q.EXPORTERS)}[$__rate_interval])")},
            Reading("percentunit", least=0),
        ).span(8),
        sheet(
            "Versions",
            "What runs where, since when, and when its configuration was last loaded. Update those that are behind.",
            [
                *(Column(label, title) for label, title in programs.items()),
                Column("started", "Started", Reading("dateTimeFromNow")),
                Column("loaded", "Configuration loaded", Reading("dateTimeFromNow")),
            ],
            {
                "version": f"group by ({', '.join(programs)}) ({q.of(catalogue.BUILD_INFO, q.EXPORTERS)})",
                "started": by_target(q.ours(q.of("process_start_time_seconds", q.EXPORTERS))),
                "loaded": by_target(q.of(catalogue.CONFIG_RELOAD_SUCCESS_TIMESTAMP, q.EXPORTERS)),
            },
            [("instance", False)],
        )
        .span(16)
        .height(8),
    ]


def by_target(expression: str) -> str:
    """Moments of exporters, as Grafana takes moments."""
    return f"max by (instance, job) ({expression}) * 1000"
