"""Exporter: syncs with Tedee, requests, scrapes by Prometheus, and the processes."""

from dataclasses import replace

from grafana_foundation_sdk.builders import stat, table, timeseries

from exporter.metrics import catalogue
from exporter.tedee.endpoint import ACTIVITIES, DEVICES, DOOR_SENSORS, SYNC
from exporter.tedee.errors import REASONS

from . import queries as q
from . import value_mappings, variables
from .alert_table import alert_table
from .colours import MAX_SERIES
from .dashboard import Dashboard, PanelGroup
from .panels import (
    COLOURED_CELL,
    Column,
    ValueFormat,
    bar_panel,
    legend_with_sums,
    line_panel,
    stat_panel,
    table_panel,
)

SERIES_LIMIT = f" At most {MAX_SERIES} accounts are shown, those with the oldest data."


def highest(metric: catalogue.AnyMetric, matchers: str = q.ACCOUNTS) -> str:
    """Return an expression for the value of each account, the highest if several exporters report the account."""
    return f"max by (account) ({q.series(metric, matchers)})"


def lowest(metric: catalogue.AnyMetric, matchers: str = q.ACCOUNTS) -> str:
    """Return an expression for the value of each account, the lowest if several exporters report the account."""
    return f"min by (account) ({q.series(metric, matchers)})"


def increase_of_seen(metric: catalogue.AnyMetric, labels: str) -> str:
    """Return an expression for the increase of a counter by labels, without the series that were never above 0.

    The exporter reports every reason of a failure from its start.
    """
    counter = q.series(metric, q.ACCOUNTS)
    return f"sum by ({labels}) (increase({counter}[$__interval]) and {counter} > 0)"


LAST_SYNCS = (
    f"max by (account) ({q.series(catalogue.LAST_SYNC, q.ACCOUNTS)} or last_over_time("
    f"{q.series(catalogue.LAST_SYNC, q.MISSING_ACCOUNTS)}[{q.EXPORTER_LOOKBACK}:{q.EXPORTER_LOOKBACK_STEP}]))"
)
"""Expression for the time of each account's last sync, even if no exporter reports the account now."""
SYNC_STATUSES = (
    f"{highest(catalogue.UP)}"
    f" or {value_mappings.NO_DATA} * group by (account) ({q.last_requests_remaining(q.MISSING_ACCOUNTS)})"
)
"""Expression for `tedee_up` of each account, or NO_DATA if no exporter reports the account now."""
SHOWN = f"bottomk({MAX_SERIES}, {LAST_SYNCS} or 0 * {highest(catalogue.UP)})"
ALERT_MATCHERS = f'{q.ANY_ALERT}, account=~"$account|", lock_id="", bridge_id="", keypad_id="", door_sensor_id=""'
"""Alerts about accounts and exporters. Other dashboards have those about devices."""
ACCOUNT_LEGEND = "{{account}}"
INSTANCE_LEGEND = "{{instance}}"

SECONDS = ValueFormat("s", decimals=0)
AXIS_SECONDS = ValueFormat("suffix:s", decimals=0)
"""Seconds on an axis. With Grafana's unit, a tick at 100 seconds would have the text "1.67 mins"."""
AXIS_OF_SECONDS = 60
"""Minimum length of an axis of seconds."""
COUNT = ValueFormat("none", decimals=0, minimum=0)


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        uid="tedee-exporter",
        title="Tedee: exporter",
        description="Syncs with Tedee, API requests, scrapes by Prometheus, and the exporter processes.",
        time_range="6h",
        variables=variables.with_common_variables(
            variables.missing(q.accounts_without_data()), variables.shown(SHOWN, "account")
        ),
        alerts=q.started_alerts(ALERT_MATCHERS),
        alert_toggle=False,
        groups=[
            PanelGroup([*current_values(), accounts(), alerts()]),
            PanelGroup([*syncs(), *requests()], "Syncs with Tedee"),
            PanelGroup(processes(), "Scrapes and processes"),
        ],
    )


def current_values() -> list[stat.Panel]:
    """Return the first line of panels, with the current values."""
    up = q.series("up", q.EXPORTERS)
    return [
        value_panel(
            "Exporters down",
            "Exporters that Prometheus cannot scrape. Check that the exporter is running and that Prometheus can reach "
            "its port.",
            f"count({q.of_exporters(f'{up} == 0', lookback=q.EXPORTER_LOOKBACK)})"
            f" or 0 * count({q.of_exporters(up, lookback=q.EXPORTER_LOOKBACK)})",
            ValueFormat("none", thresholds=((None, "quiet"), (0, "good"), (1, "bad")), no_value="no data"),
        ),
        value_panel(
            "Failing accounts",
            "Accounts whose last sync failed, whose data is stale, or whose exporter is down. The table below lists "
            "them. The exporter's status page and log show the cause and what to do.",
            f"count(({SYNC_STATUSES}) < 1) or 0 * count({q.series(catalogue.UP, q.ACCOUNTS)})",
            ValueFormat("none", thresholds=((None, "quiet"), (0, "good"), (1, "bad")), no_value="no data"),
        ),
        value_panel(
            "Oldest data",
            "Highest data age of all accounts. It is normally below 20 seconds. By default, the locks of an account "
            "are no longer reported after 5 minutes.",
            f"clamp_min(max(time() - ({LAST_SYNCS})), 0)",
            ValueFormat(
                "s",
                thresholds=((None, "quiet"), (0, "good"), (60, "warn"), (300, "bad")),
                decimals=0,
                no_value="no data",
            ),
        ),
        value_panel(
            "Failed syncs, last hour",
            "Syncs that failed in the last hour. A few failures are normal; the reasons are shown below.",
            f"sum(increase({q.series(catalogue.SYNC_FAILURES, q.ACCOUNTS)}[1h]))",
            ValueFormat(
                "none",
                thresholds=((None, "quiet"), (0, "good"), (1, "warn"), (10, "bad")),
                decimals=0,
                no_value="no data",
            ),
        ),
        value_panel(
            "Fewest requests left",
            "Lowest number of requests that an account has left in the exporter's hourly share. At 0, the exporter "
            "waits. Possible causes are restarts without a state file and a second exporter for the same user.",
            f"min({q.series(catalogue.API_REQUESTS_REMAINING, q.ACCOUNTS)})",
            ValueFormat(
                "none",
                thresholds=((None, "quiet"), (0, "bad"), (10, "warn"), (50, "good")),
                decimals=0,
                no_value="no data",
            ),
        ),
        value_panel(
            "API version",
            "Whether Tedee supports the API version in use. If not, update the exporter or set `api.version` before "
            "Tedee removes the version.",
            f"min({q.series(catalogue.API_VERSION_SUPPORTED, q.ACCOUNTS)})",
            ValueFormat(texts=value_mappings.VERSIONS, no_value="no data"),
        ),
        value_panel(
            "Configuration",
            "Result of the last load of the configuration. If it was rejected, the exporter uses the previous one but "
            "cannot restart. The log and `--config.check` show the errors.",
            f"min({q.series(catalogue.CONFIG_RELOAD_SUCCESSFUL, q.EXPORTERS)})",
            ValueFormat(texts=value_mappings.CONFIGURATIONS, no_value="no data"),
        ),
        value_panel(
            "State file or database",
            "Whether all exporters record their requests. If one cannot use its database, it requests nothing; without "
            "its state file, its first sync after a restart is delayed by 31 seconds and no data is served until then. "
            "The log shows the cause.",
            f"min({q.series(catalogue.STATE_USABLE, q.EXPORTERS)}) or"
            f" {value_mappings.NO_STATE} * group({q.series(catalogue.BUILD_INFO, q.EXPORTERS)})",
            ValueFormat(texts=value_mappings.STATE_STORES, no_value="no data"),
        ),
    ]


def value_panel(title: str, description: str, expression: str, value_format: ValueFormat) -> stat.Panel:
    """Build a panel of the first line."""
    return stat_panel(title, description, expression, value_format).span(6)


def accounts() -> table.Panel:
    """Return the table of accounts."""
    supported = f"min by (account, version) ({q.series(catalogue.API_VERSION_SUPPORTED, q.ACCOUNTS)})"
    return table_panel(
        "Accounts",
        "Syncs of each account: failing accounts first, then those with the oldest data. `no data` means that no "
        "exporter reports the account.",
        [
            Column("account", "Account", min_width=150),
            Column("up", "Syncs", ValueFormat(texts=value_mappings.ACCOUNTS), cell=COLOURED_CELL, width=90),
            Column("age", "Data age", SECONDS, width=100),
            Column("next", "Next sync in", SECONDS, width=110),
            Column("left", "Requests left", COUNT, width=110),
            Column("locks", "Locks", COUNT, width=70),
            Column("version", "API version", width=100),
            Column(
                "supported", "API support", ValueFormat(texts=value_mappings.VERSIONS), cell=COLOURED_CELL, width=150
            ),
            Column("expiry", "Credential expiry", ValueFormat("dateTimeFromNow"), width=140),
        ],
        {
            "up": q.or_hint(SYNC_STATUSES, "account"),
            "age": f"time() - {LAST_SYNCS}",
            "next": f"{lowest(catalogue.NEXT_SYNC)} - time()",
            "left": lowest(catalogue.API_REQUESTS_REMAINING),
            "locks": highest(catalogue.LOCK_COUNT),
            "supported": f"bottomk by (account) (1, {supported})",
            "expiry": f"{lowest(catalogue.CREDENTIALS_EXPIRY)} * 1000",
        },
        [("account", False), ("Value #age", True), ("Value #up", False)],
    ).height(6)


def alerts() -> table.Panel:
    """Return the table of firing alerts that are not about a device."""
    account, instance = Column("account", "Account", width=200), Column("instance", "Instance", width=300)
    return alert_table(ALERT_MATCHERS, account, instance).height(5)


def syncs() -> list[timeseries.Panel]:
    """Return the panels about the syncs."""
    buckets = f"sum by (le) (rate({q.series(catalogue.SYNC_DURATION, q.ACCOUNTS, '_bucket')}[$__rate_interval]))"
    duration, count = (
        f"sum(rate({q.series(catalogue.SYNC_DURATION, q.ACCOUNTS, suffix)}[$__rate_interval]))"
        for suffix in ("_sum", "_count")
    )
    return [
        line_panel(
            "Data age",
            "Time since the last successful sync of each account. It normally varies between 0 and 20 seconds and "
            "rises while syncs fail." + SERIES_LIMIT,
            {ACCOUNT_LEGEND: f"time() - {highest(catalogue.LAST_SYNC, q.SHOWN_ACCOUNTS)}"},
            replace(AXIS_SECONDS, minimum=0),
        )
        .axis_soft_max(AXIS_OF_SECONDS)
        .span(12),
        bar_panel(
            "Failed syncs by reason",
            "Syncs that failed, by reason. The troubleshooting page of the documentation explains each reason.",
            increase_of_seen(catalogue.SYNC_FAILURES, "reason"),
            "{{reason}}",
            known=REASONS,
            no_data="no failures, or no data",
        )
        .legend(legend_with_sums())
        .span(12),
        line_panel(
            "Sync duration",
            "Time from the request to the response or failure: percentiles and average. If it approaches the time-out "
            "of 10 seconds, check the network.",
            {
                "50th percentile": f"histogram_quantile(0.5, {buckets})",
                "90th percentile": f"histogram_quantile(0.9, {buckets})",
                "99th percentile": f"histogram_quantile(0.99, {buckets})",
                "average": f"{duration} / {count}",
            },
            ValueFormat("s", minimum=0),
        ).span(12),
        line_panel(
            "Time until next sync",
            "Time until the next sync of each account: normally up to 20 seconds, after failures up to 5 minutes or as "
            "long as Tedee requests. A negative value means that the exporter is overloaded." + SERIES_LIMIT,
            {ACCOUNT_LEGEND: f"{lowest(catalogue.NEXT_SYNC, q.SHOWN_ACCOUNTS)} - time()"},
            AXIS_SECONDS,
        )
        .axis_soft_max(AXIS_OF_SECONDS)
        .span(12),
    ]


def requests() -> list[timeseries.Panel]:
    """Return the panels about the requests to Tedee."""
    return [
        line_panel(
            "Requests left",
            "Requests that each account has left in the exporter's hourly share. At 0, the account waits."
            + SERIES_LIMIT,
            {ACCOUNT_LEGEND: lowest(catalogue.API_REQUESTS_REMAINING, q.SHOWN_ACCOUNTS)},
            COUNT,
            steps=True,
        ).span(8),
        bar_panel(
            "Requests by status code",
            "Requests to Tedee, by endpoint and HTTP status code. If there was no response, the failure reason is "
            "shown instead.",
            increase_of_seen(catalogue.API_REQUESTS, "endpoint, code"),
            "{{endpoint}} {{code}}",
            known=[f"{endpoint} 200" for endpoint in (SYNC, DEVICES, DOOR_SENSORS, ACTIVITIES)],
        ).span(8),
        bar_panel(
            "Rejected values by field",
            "Values in Tedee's responses that could not be used, by field; their samples are absent. An occasional "
            "battery level is normal during a firmware update. Please report other frequent rejections.",
            increase_of_seen(catalogue.REJECTED_VALUES, "field"),
            "{{field}}",
            no_data="no rejected values, or no data",
        ).span(8),
    ]


def processes() -> list[timeseries.Panel | table.Panel]:
    """Return the panels about scrapes and processes."""
    cpu_seconds = q.series("process_cpu_seconds_total", q.EXPORTERS)
    oldest_sync = f"min by (instance, job) ({q.series(catalogue.LAST_SYNC, q.ACCOUNTS)})"
    sent = f"increase({q.series(catalogue.API_REQUESTS, q.ACCOUNTS)}[1h])"
    return [
        line_panel(
            "Samples per scrape",
            "Samples in each scrape: about 14 per lock, and about 20 more with events. The number changes if locks or "
            "other devices are added or removed.",
            {INSTANCE_LEGEND: q.of_exporters(q.series("scrape_samples_scraped", q.EXPORTERS))},
            COUNT,
            steps=True,
        ).span(6),
        line_panel(
            "Scrape duration",
            "Duration of each scrape. Responses are rendered in advance: more than 0.1 seconds indicates a slow "
            "network or an overloaded machine.",
            {INSTANCE_LEGEND: q.of_exporters(q.series("scrape_duration_seconds", q.EXPORTERS))},
            ValueFormat("s", minimum=0),
        ).span(6),
        line_panel(
            "Memory usage",
            "Resident memory of the process. It depends on the number of locks and should be stable. Please report a "
            "rise over several days.",
            {INSTANCE_LEGEND: q.of_exporters(q.series("process_resident_memory_bytes", q.EXPORTERS))},
            ValueFormat("bytes", minimum=0),
        ).span(6),
        line_panel(
            "CPU usage",
            "Share of one CPU core that the process uses: a few percent with 5,000 locks. Please report much higher "
            "values.",
            {INSTANCE_LEGEND: q.of_exporters(f"rate({cpu_seconds}[$__rate_interval])")},
            ValueFormat("percentunit", minimum=0),
        ).span(6),
        table_panel(
            "Exporters",
            "Each exporter: the age of the oldest data that it serves, the requests that it sent in the last hour, and "
            "whether it can use its state file or database. Of several replicas, one sends the requests of an account, "
            "and all serve its data.",
            [
                Column("up", "Scrape", ValueFormat(texts=value_mappings.SCRAPES), cell=COLOURED_CELL, width=70),
                Column("instance", "Instance", min_width=150),
                Column("job", "Job", width=120),
                Column("age", "Data age", SECONDS, width=85),
                Column("requests", "Requests", COUNT, width=90),
                Column(
                    "state",
                    "State",
                    ValueFormat(texts=value_mappings.STATE_STORES, no_value="none"),
                    cell=COLOURED_CELL,
                    width=100,
                ),
                Column("version", "Version", width=80),
                Column("python_version", "Python", width=75),
                Column("started", "Started", ValueFormat("dateTimeFromNow"), width=130),
                Column("loaded", "Config loaded", ValueFormat("dateTimeFromNow"), width=130),
            ],
            {
                "up": q.of_exporters(q.series("up", q.EXPORTERS), lookback=q.EXPORTER_LOOKBACK),
                "age": f"time() - {oldest_sync}",
                "requests": f"sum by (instance, job) ({sent})",
                "state": f"min by (instance, job) ({q.series(catalogue.STATE_USABLE, q.EXPORTERS)})",
                "version": f"group by (instance, job, version, python_version) "
                f"({q.series(catalogue.BUILD_INFO, q.EXPORTERS)})",
                "started": times(q.of_exporters(q.series("process_start_time_seconds", q.EXPORTERS))),
                "loaded": times(q.series(catalogue.CONFIG_RELOAD_SUCCESS_TIMESTAMP, q.EXPORTERS)),
            },
            [("instance", False)],
        )
        .span(24)
        .height(6),
    ]


def times(expression: str) -> str:
    """Return an expression for the times of each exporter in milliseconds, as Grafana expects them."""
    return f"max by (instance, job) ({expression}) * 1000"
