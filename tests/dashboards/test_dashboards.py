"""Tests of the dashboards' JSON: import, variables, queries, panels, texts and colours.

They include the rules of Grafana's linter (grafana/dashboard-linter), which is not a Python package.
"""

import itertools
import json
import math
import operator
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import promql_parser as promql
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.generator import colours, dashboards, devices, value_mappings
from dashboards.generator.alert_table import anchors
from exporter.metrics.catalogue import CATALOGUE, LOCK_METRICS
from exporter.tedee.errors import REASONS
from exporter.tedee.events import EVENT_KINDS
from exporter.tedee.models import DoorState, LockState
from testing.program import ROOT

from .expected import DEVICE_ALERTS
from .grafana import FILES, load, panels, queries, rows_and_panels

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
UIDS = {
    "locks-overview.json": "tedee-locks",
    "lock-detail.json": "tedee-lock",
    "devices.json": "tedee-devices",
    "exporter.json": "tedee-exporter",
}
UNITS = {
    "none",
    "string",
    "percent",
    "percentunit",
    "s",
    "bytes",
    "dateTimeFromNow",
    "prefix:code ",
    "suffix:days",
    "suffix:min",
    "suffix:s",
}
"""Units of Grafana that the dashboards use."""

of_each_dashboard = pytest.mark.parametrize("name", FILES)
of_each_panel = pytest.mark.parametrize(
    "panel",
    [pytest.param(panel, id=f"{name}/{panel['title']}") for name in FILES for panel in panels(load(name))],
)
of_each_query = pytest.mark.parametrize(
    "query",
    [
        pytest.param(query, id=f"{name}/{title}/{query['refId']}")
        for name in FILES
        for title, query in queries(load(name))
    ],
)


# Generator


def test_committed_json_is_up_to_date() -> None:
    written = {path.name: path.read_text("utf-8") for path, _ in dashboards() if path.exists()}
    assert written == {path.name: dashboard.to_json() for path, dashboard in dashboards()}, "run make dashboards"
    assert set(written) == set(FILES)


SDK_DEFAULTS = ("auto", "auto_min", "auto_count", "repeatDirection")
"""Keys that the SDK sets without an effect, and the generator removes."""


@of_each_dashboard
def test_sdk_reads_the_json_without_loss(name: str) -> None:
    register_default_plugins()
    dashboard = load(name)
    # The SDK has no fields for the requirements, and for the options of Prometheus annotations.
    del dashboard["__requires"], dashboard["__elements"]
    for annotation in dashboard["annotations"]["list"]:
        assert all(annotation.pop(key) for key in ("target", "titleFormat", "textFormat", "tagKeys"))
    read = json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))
    for each in (*read["templating"]["list"], *rows_and_panels(read)):
        for key in SDK_DEFAULTS:
            each.pop(key, None)
    assert read == dashboard


@of_each_dashboard
def test_json_has_no_unused_keys(name: str) -> None:
    text = json.dumps(load(name))
    assert not [key for key in SDK_DEFAULTS if f'"{key}":' in text]


# Import


def test_uids_are_stable_and_titles_unique() -> None:
    assert {name: load(name)["uid"] for name in FILES} == UIDS
    assert len({load(name)["title"] for name in FILES}) == len(FILES)


@of_each_dashboard
def test_json_has_the_schema_of_grafana_10_4(name: str) -> None:
    dashboard = load(name)
    assert dashboard["schemaVersion"] == 39
    assert dashboard["editable"] is True
    assert "id" not in dashboard
    assert "__inputs" not in dashboard


@of_each_dashboard
def test_json_lists_its_requirements(name: str) -> None:
    dashboard = load(name)
    types = {panel["type"] for panel in rows_and_panels(dashboard)} - {"row"}
    required = {(each["type"], each["id"]) for each in dashboard["__requires"]}
    assert required == {("grafana", "grafana"), ("datasource", "prometheus"), *(("panel", each) for each in types)}
    assert dashboard["__elements"] == {}


@of_each_dashboard
def test_all_data_comes_from_the_selected_data_source(name: str) -> None:
    dashboard = load(name)
    with_source = [*panels(dashboard), *(target for panel in panels(dashboard) for target in panel["targets"])]
    with_source += dashboard["annotations"]["list"]
    with_source += [each for each in dashboard["templating"]["list"] if each["type"] == "query"]
    assert {json.dumps(each["datasource"]) for each in with_source} == {json.dumps(SOURCE)}


@of_each_dashboard
def test_dashboard_links_pass_on_variables(name: str) -> None:
    dashboard = load(name)
    assert "tedee" in dashboard["tags"]
    passed_on = "&".join(f"${{{variable}:queryparam}}" for variable in ("datasource", "job", "instance", "account"))
    others = [f"/d/{uid}?{passed_on}" for file, uid in UIDS.items() if file != name]
    internal = [link for link in dashboard["links"] if link["url"].startswith("/")]
    assert [link["url"] for link in internal] == others
    for link in internal:
        assert (link["type"], link["includeVars"], link["keepTime"]) == ("link", False, True)


def external_urls(name: str) -> set[str]:
    """Return the URLs of links to the documentation, without the parts that Grafana inserts."""
    dashboard = load(name)
    (help_text,) = (panel["options"]["content"] for panel in rows_and_panels(dashboard) if panel["type"] == "text")
    urls = re.findall(r"\]\((https:.*?)\)", help_text) + re.findall(r'"url": "(https:.*?)"', json.dumps(dashboard))
    return {url.split("#")[0] for url in urls}


@of_each_dashboard
def test_links_to_documentation_exist(name: str) -> None:
    urls = external_urls(name)
    repository = next(each for each in urls if "/blob/" not in each)
    pages = {url.removeprefix(f"{repository}/blob/main/") for url in urls - {repository}}
    assert {"docs/dashboards.md", "docs/runbooks.md", "docs/troubleshooting.md"} <= pages
    assert all((ROOT / page).is_file() for page in pages)


@of_each_dashboard
def test_last_row_is_help_and_folded(name: str) -> None:
    row = load(name)["panels"][-1]
    assert (row["type"], row["collapsed"]) == ("row", True)
    assert row["title"].startswith("Help")
    (panel,) = row["panels"]
    assert (panel["type"], panel["options"]["mode"]) == ("text", "markdown")


def test_alerts_link_to_their_runbooks() -> None:
    runbooks = (ROOT / "docs" / "runbooks.md").read_text("utf-8")
    headings = {heading: heading.lower() for heading in re.findall(r"(?m)^### (\w+)$", runbooks)}
    tables = [panel for name in FILES for panel in panels(load(name)) if panel["title"] == "Firing alerts"]
    assert len(tables) == len(FILES)
    for table in tables:
        assert mapped(table, "Runbook") == headings
        (links,) = properties(table, "Alert", "links")
        assert links[0]["url"].endswith("/docs/runbooks.md#${__data.fields.Runbook}")


@of_each_dashboard
def test_table_links_keep_the_time_range(name: str) -> None:
    for url in re.findall(r'"url": "(/.*?)"', json.dumps(load(name)["panels"])):  # without the documentation
        assert url.split("?")[0] in {f"/d/{uid}" for uid in UIDS.values()}
        assert "${__url_time_range}" in url


# Variables


@of_each_dashboard
def test_data_source_is_a_variable(name: str) -> None:
    source = load(name)["templating"]["list"][0]
    assert (source["type"], source["name"], source["label"]) == ("datasource", "datasource", "Data source")
    assert source["query"] == "prometheus"
    # Without a value, Grafana selects the first one by name.
    assert source["current"] == {"selected": False, "text": "default", "value": "default"}


@of_each_dashboard
def test_variables_are_multi_value_and_default_to_all(name: str) -> None:
    _, *variables = load(name)["templating"]["list"]
    for variable in variables:
        assert (variable["type"], variable["multi"], variable["includeAll"]) == ("query", True, True)
        assert variable["label"] == variable["name"].title()
        assert variable["current"] == {"text": ["All"], "value": ["$__all"], "selected": True}
        assert "options" not in variable
        assert variable["refresh"] == 2, "on every change of the time range"
        assert (variable.get("allValue"), variable.get("hide")) in [(".+", None), (None, 2)]


VARIABLES = {
    "devices.json": ["job", "instance", "account", "missing", "shown"],
    "exporter.json": ["job", "instance", "account", "missing", "shown"],
    "lock-detail.json": ["job", "instance", "account", "lock", "shown"],
    "locks-overview.json": ["job", "instance", "account", "missing", "lock", "shown"],
}
HIDDEN = {"missing", "shown"}


@of_each_dashboard
def test_variables_depend_on_the_variables_before_them(name: str) -> None:
    _, *variables = load(name)["templating"]["list"]
    assert [variable["name"] for variable in variables] == VARIABLES[name]
    for index, variable in enumerate(variables):
        used = set(re.findall(r"\$(\w+)", variable["query"]))
        before = set(VARIABLES[name][:index])
        assert before - HIDDEN <= used <= before
        assert (variable.get("hide") == 2) == (variable["name"] in HIDDEN)


# Queries

RATE_INTERVAL = timedelta(seconds=4321)
PROMETHEUS_SERIES = {"up", "ALERTS", "ALERTS_FOR_STATE", "scrape_samples_scraped", "scrape_duration_seconds"}
"""Series that Prometheus itself creates."""
RULES = "tedee:battery_percent:low"
"""Series of a recording rule. It has no labels of an exporter."""


def nodes(expression: str) -> list[promql.Expr]:
    found: list[promql.Expr] = []
    filled = expression.replace("$__rate_interval", f"{RATE_INTERVAL.seconds}s").replace("$__range", "1d")
    filled = filled.replace("$__interval", "5m")
    promql.walk(promql.parse(filled), found.append)
    return found


def selectors(expression: str) -> Iterator[tuple[set[str], dict[str, str]]]:
    """Yield (metrics, matched value by label) for each selector of an expression."""
    for node in nodes(expression):
        if isinstance(node, promql.VectorSelector):
            matchers = {each.name: each.value for each in node.matchers.matchers if each.op == promql.MatchOp.Re}
            yield {node.name} if node.name else set(matchers["__name__"].split("|")), matchers


def variable_queries() -> list[Any]:
    found = [(name, each) for name in FILES for each in load(name)["templating"]["list"] if each["type"] == "query"]
    return [pytest.param(each["query"], id=f"{name.removesuffix('.json')}/{each['name']}") for name, each in found]


@of_each_query
def test_selectors_match_selected_jobs_and_instances(query: Any) -> None:
    or_empty = "|" if "ALERTS" in query["expr"] else ""
    found = [matchers for metrics, matchers in selectors(query["expr"]) if metrics != {RULES}]
    assert found
    for matchers in found:
        assert matchers["job"] == f"$job{or_empty}"
        assert matchers["instance"] == f"$instance{or_empty}"


@of_each_dashboard
def test_selectors_match_selected_accounts_and_locks(name: str) -> None:
    names = {f"{metric.name}{suffix}": metric for metric in CATALOGUE for suffix in ("", "_bucket", "_sum", "_count")}
    used = [selector for _, query in queries(load(name)) for selector in selectors(query["expr"])]
    selects_locks = "lock" in VARIABLES[name]
    for metrics, matchers in used:
        for metric in metrics - PROMETHEUS_SERIES - {RULES}:
            if metric.startswith("process_"):
                continue
            labels = names[metric].labels
            assert (matchers.get("account") in {"$account", "$shown", "$missing"}) == ("account" in labels)
            matches_locks = matchers.get("lock_id") in {"$lock", "${shown:pipe}"}
            if names[metric] in LOCK_METRICS:
                assert matches_locks == selects_locks
            else:
                assert not matches_locks or (selects_locks and "lock_id" in labels)


def test_recording_rule_of_the_dashboards_exists() -> None:
    rules = yaml.safe_load((ROOT / "alerts" / "tedee.rules.yml").read_text("utf-8"))
    assert RULES in {rule.get("record") for group in rules["groups"] for rule in group["rules"]}


LONG_QUERIES = {("Locks", "attention"), ("Current values", "days"), ("Next batteries to charge", "days")}
"""The order of the locks and the battery forecast, which docs/dashboards.md explains."""


@of_each_dashboard
def test_queries_are_short(name: str) -> None:
    lengths = {(title, query["refId"]): len(query["expr"]) for title, query in queries(load(name))}
    assert {each: length for each, length in lengths.items() if length > 650 and each not in LONG_QUERIES} == {}


@of_each_panel
def test_rates_have_a_minimum_step(panel: Any) -> None:
    # Grafana assumes a scrape interval of 15 seconds: rates over one minute have no data if it is one minute.
    for target in panel["targets"]:
        if "$__rate_interval" in target["expr"]:
            assert target.get("interval") == "1m" or panel["interval"] in {"5m", "1h"}


@of_each_panel
def test_windows_of_a_step_have_a_minimum(panel: Any) -> None:
    if any("[$__interval]" in target["expr"] for target in panel["targets"]):
        assert panel["interval"] in {"2m", "5m", "1h"}


@pytest.mark.parametrize("query", variable_queries())
def test_variable_queries_use_existing_metrics(query: str) -> None:
    match = re.fullmatch(r"label_values\((.+), \w+\)|query_result\((.+)\)", query)
    assert match
    known = {metric.name for metric in CATALOGUE}
    assert all(metrics <= known | PROMETHEUS_SERIES for metrics, _ in selectors(match[1] or match[2]))


@pytest.mark.parametrize("query", variable_queries())
def test_variable_queries_do_not_read_all_lock_samples(query: str) -> None:
    match = re.fullmatch(r"label_values\((.+), \w+\)|query_result\((.+)\)", query)
    assert match
    for each in nodes(match[1] or match[2]):
        if isinstance(each, promql.MatrixSelector):
            assert not (each.vector_selector.name or "lock_").startswith("lock_")


@pytest.mark.parametrize("name", ["locks-overview.json", "lock-detail.json"])
def test_lock_variable_queries_a_single_metric(name: str) -> None:
    (variable,) = (each for each in load(name)["templating"]["list"] if each["name"] == "lock")
    query = re.fullmatch(r"query_result\((.+)\)", variable["query"])
    assert query
    assert {metric for metrics, _ in selectors(query[1]) for metric in metrics} == {"lock_revision"}


@of_each_query
def test_rates_use_the_rate_interval_of_grafana(query: Any) -> None:
    for call in nodes(query["expr"]):
        if isinstance(call, promql.Call) and call.func.name in {"rate", "irate"}:
            assert [each.range for each in call.args if isinstance(each, promql.MatrixSelector)] == [RATE_INTERVAL]


@of_each_query
def test_counters_are_only_used_in_rate_or_increase(query: Any) -> None:
    all_nodes = nodes(query["expr"])
    counters = {each.name for each in all_nodes if isinstance(each, promql.VectorSelector) and _is_counter(each.name)}
    in_rates = {
        argument.vector_selector.name
        for call in all_nodes
        if isinstance(call, promql.Call) and call.func.name in {"rate", "increase"}
        for argument in call.args
        if isinstance(argument, promql.MatrixSelector)
    }
    assert counters <= in_rates


def _is_counter(name: str | None) -> bool:
    return re.search("_(total|bucket|sum|count)$", name or "") is not None


@of_each_dashboard
def test_alert_annotation_matches_all_alerts(name: str) -> None:
    (annotation,) = load(name)["annotations"]["list"]
    matchers, earlier = (matchers for _, matchers in selectors(annotation["expr"]))
    assert matchers == earlier
    rules = yaml.safe_load((ROOT / "alerts" / "tedee.rules.yml").read_text("utf-8"))
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    assert alerts
    selected = {alert for alert in alerts | DEVICE_ALERTS if re.fullmatch(matchers["alertname"], alert)}
    assert selected == (DEVICE_ALERTS if name == "devices.json" else alerts | DEVICE_ALERTS)


@of_each_dashboard
def test_alert_annotation_marks_starts_only(name: str) -> None:
    # A region for the whole time would cover the charts. The offset is one step, whatever the time range is.
    (annotation,) = load(name)["annotations"]["list"]
    assert re.fullmatch(
        r"topk\(100, max by \(.*\) \((ALERTS{.*}) unless \1 offset \$__interval\)\)", annotation["expr"]
    )


@of_each_dashboard
def test_alert_query_is_in_both_annotation_fields(name: str) -> None:
    (annotation,) = load(name)["annotations"]["list"]
    assert annotation["target"] == {"refId": "Anno", "expr": annotation["expr"]}


@of_each_dashboard
def test_alert_text_has_account_lock_and_instance(name: str) -> None:
    (annotation,) = load(name)["annotations"]["list"]
    labels = set(re.findall(r"{{(\w+)}}", annotation["textFormat"]))
    assert labels == {"account", "lock_name", "instance"}
    assert all(label in annotation["expr"] for label in labels)


# Panels


@of_each_dashboard
def test_panel_titles_and_ids_are_unique(name: str) -> None:
    all_panels = list(rows_and_panels(load(name)))
    assert len({panel["title"] for panel in all_panels}) == len(all_panels)
    assert len({panel["id"] for panel in all_panels}) == len(all_panels)


@of_each_panel
def test_descriptions_are_one_to_three_sentences(panel: Any) -> None:
    assert len(panel["description"]) > 40
    assert panel["description"].endswith(".")
    assert len(re.findall(r"\.(?= |$)", panel["description"])) <= 3


@of_each_panel
def test_titles_are_not_questions(panel: Any) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z0-9, %]+", panel["title"])


@of_each_panel
def test_each_number_has_a_unit(panel: Any) -> None:
    fields = panel["fieldConfig"]
    units = [fields["defaults"]["unit"]]
    for override in fields["overrides"]:
        units += [each["value"] for each in override["properties"] if each["id"] == "unit"]
    assert set(units) <= UNITS
    if panel["type"] == "table" and panel["title"] not in HOURS:
        numbers = {name for name in _renamed(panel).values() if name.startswith("Value")}
        assert len(units) == 1 + len(numbers)


@of_each_dashboard
def test_panels_fill_the_grid_without_overlap_or_gap(name: str) -> None:
    dashboard = load(name)
    assert_filled(dashboard["panels"], 0)
    for row in dashboard["panels"]:
        if row.get("panels"):
            assert_filled(row["panels"], row["gridPos"]["y"] + 1)


def assert_filled(placed: Any, top: int) -> None:
    covered: dict[tuple[int, int], str] = {}
    for panel in placed:
        position = panel["gridPos"]
        for cell in itertools.product(
            range(position["x"], position["x"] + position["w"]), range(position["y"], position["y"] + position["h"])
        ):
            assert covered.setdefault(cell, panel["title"]) == panel["title"]
    bottom = max(y for _, y in covered) + 1
    assert set(covered) == set(itertools.product(range(24), range(top, bottom)))


NARROW_COLUMN = (1140 - 34) / 24
"""Pixels of a column of Grafana's grid in a window of 1140 pixels: a window of 1440 pixels next to Grafana's menu."""
PADDING = 26
"""Pixels of a panel's borders and of the scroll bar of a table."""
LETTER = 8.5
"""Pixels of a wide letter in a panel's title, which also has an icon with room around it."""


@of_each_panel
def test_titles_fit_in_a_narrow_window(panel: Any) -> None:
    assert LETTER * len(panel["title"]) + 60 <= NARROW_COLUMN * panel["gridPos"]["w"]


HOURS = {"State changes by hour", "Events by hour"}
"""Tables whose columns Grafana creates from the values."""


def _renamed(panel: Any) -> dict[str, str]:
    """Return the field of each column of a table, by title."""
    (organize,) = (each for each in panel["transformations"] if each["id"] == "organize")
    return {title: name for name, title in organize["options"]["renameByName"].items()}


def properties(table: Any, column: str, key: str) -> list[Any]:
    """Return the values of one property of a column, at most one."""
    (override,) = (each for each in table["fieldConfig"]["overrides"] if each["matcher"]["options"] == column)
    return [each["value"] for each in override["properties"] if each["id"] == key]


TABLES = [
    panel for name in FILES for panel in panels(load(name)) if panel["type"] == "table" and panel["title"] not in HOURS
]
of_each_table = pytest.mark.parametrize("table", [pytest.param(table, id=table["title"]) for table in TABLES])


@of_each_table
def test_columns_have_queries_and_queries_are_used(table: Any) -> None:
    queried = {target["refId"] for target in table["targets"]}
    columns = {name.removeprefix("Value #") for name in _renamed(table).values() if name.startswith("Value")}
    if len(table["targets"]) == 1:  # without the name of the query
        assert columns == {"Value"}
        return
    assert columns <= queried
    text = json.dumps(table["transformations"])
    labels = {name for name in _renamed(table).values() if not name.startswith("Value #")}
    for target in table["targets"]:
        grouped = re.findall(r"group by \((.*?)\)", target["expr"])
        provides_labels = labels & set(re.findall(r"\w+", " ".join(grouped)))
        assert target["refId"] in columns or f"Value #{target['refId']}" in text or provides_labels


@of_each_table
def test_sorted_columns_have_queries(table: Any) -> None:
    names = {"Value"} if len(table["targets"]) == 1 else {f"Value #{target['refId']}" for target in table["targets"]}
    for step in table["transformations"]:
        if step["id"] == "sortBy":
            (by,) = step["options"]["sort"]
            assert not by["field"].startswith("Value") or by["field"] in names


@of_each_table
def test_columns_fit_in_a_narrow_window(table: Any) -> None:
    flexible = 0
    total = 0
    for column in _renamed(table):
        if properties(table, column, "custom.hidden"):
            continue
        widths = properties(table, column, "custom.width")
        flexible += not widths
        # 150 is Grafana's minimum of a column without a width.
        total += (widths or properties(table, column, "custom.minWidth") or [150])[0]
    assert flexible == 1, "one column gets the remaining width"
    assert total <= NARROW_COLUMN * table["gridPos"]["w"] - PADDING


@of_each_table
def test_column_titles_fit_their_widths(table: Any) -> None:
    for column in _renamed(table):
        for width in properties(table, column, "custom.width"):
            icon = 20 if properties(table, column, "custom.filterable") else 0
            assert 7 * len(column) + 12 + icon <= width, column


@of_each_table
def test_hidden_columns_are_hidden_in_all_versions(table: Any) -> None:
    for column in _renamed(table):
        before_12_2 = properties(table, column, "custom.hidden")
        later = properties(table, column, "custom.hideFrom")
        assert (before_12_2, later) in [([], []), ([True], [{"viz": True, "legend": False, "tooltip": False}])]


@of_each_table
def test_columns_of_links_exist(table: Any) -> None:
    used = re.findall(r"\${__data\.fields\.(\w+)}", json.dumps(table))
    assert set(used) <= set(_renamed(table))


@of_each_table
def test_missing_values_of_tables_have_no_colour(table: Any) -> None:
    for column in _renamed(table):
        for thresholds in properties(table, column, "thresholds"):
            assert thresholds["steps"][0] == {"value": None, "color": colours.TRANSPARENT}


@of_each_table
def test_column_overrides_match_existing_columns(table: Any) -> None:
    titles = set(_renamed(table))
    assert {override["matcher"]["options"] for override in table["fieldConfig"]["overrides"]} == titles


def test_lock_table_has_the_required_columns() -> None:
    (table,) = (table for table in TABLES if table["title"] == "Locks")
    required = ["Lock", "State", "Door", "Battery", "Connection", "Charging", "Last change", "Firmware"]
    assert set(required) <= set(_renamed(table))


def test_properties_table_has_all_labels_of_lock_info() -> None:
    (table,) = (table for table in TABLES if table["title"] == "Properties")
    (info,) = (metric for metric in LOCK_METRICS if metric.name == "lock_info")
    assert set(info.labels) <= set(_renamed(table).values())


@of_each_dashboard
def test_documentation_lists_all_panels(name: str) -> None:
    dashboard = load(name)
    page = (ROOT / "docs" / "dashboards.md").read_text("utf-8")
    (section,) = re.findall(rf"(?ms)^## {dashboard['title']}$(.*?)^## ", page)
    first_column = "\n".join(re.findall(r"(?m)^\| (.*?) \|", section))
    documented = set(re.split(r"\n|; |, (?=[A-Z])", first_column)) - {"panel"}
    assert documented == {panel["title"] for panel in panels(dashboard)}


# Texts and colours


def mapped(panel: Any, column: str | None) -> dict[str, str]:
    """Return the text of each mapped number of a panel, or of a column of a table."""
    fields = panel["fieldConfig"]
    if column is None:
        mappings = fields["defaults"]["mappings"]
    else:
        (override,) = (each for each in fields["overrides"] if each["matcher"]["options"] == column)
        (mappings,) = (each["value"] for each in override["properties"] if each["id"] == "mappings")
    return {
        number: result["text"]
        for mapping in mappings
        if mapping["type"] == "value"
        for number, result in mapping["options"].items()
    }


STATE_TEXTS = {str(code.value): code.text for code in LockState}
DOOR_TEXTS = {str(code.value): code.text for code in DoorState}
CONNECTION_TEXTS = {"1": "connected", "0": "offline", "-1": "no bridge"}


@pytest.mark.parametrize(
    ("file", "title", "column", "expected"),
    [
        ("locks-overview.json", "Locks", "State", {**STATE_TEXTS, "-1": "jammed", "-2": "error"}),
        ("locks-overview.json", "Locks", "Door", DOOR_TEXTS),
        ("locks-overview.json", "Locks", "Connection", CONNECTION_TEXTS),
        ("locks-overview.json", "Recent changes", "State", {**STATE_TEXTS, "-1": "jammed", "-2": "error"}),
        ("devices.json", "Bridges", "Connection", CONNECTION_TEXTS),
        ("devices.json", "Bridge connection over time", None, {"1": "connected", "0": "offline"}),
        ("lock-detail.json", "Current values", "State", STATE_TEXTS),
        ("lock-detail.json", "Current values", "Door", DOOR_TEXTS),
        ("lock-detail.json", "Current values", "Connection", CONNECTION_TEXTS),
        ("lock-detail.json", "State over time", None, STATE_TEXTS),
        ("lock-detail.json", "Door over time", None, DOOR_TEXTS),
        ("lock-detail.json", "Connection over time", None, {"1": "connected", "0": "offline"}),
    ],
)
def test_codes_have_the_texts_of_the_exporter(
    file: str, title: str, column: str | None, expected: dict[str, str]
) -> None:
    (panel,) = (panel for panel in panels(load(file)) if panel["title"] == title)
    assert mapped(panel, column) == expected


def all_mappings() -> Iterator[Any]:
    for name in FILES:
        for panel in panels(load(name)):
            location = f"{name.removesuffix('.json')}/{panel['title']}"
            if found := panel["fieldConfig"]["defaults"].get("mappings"):
                yield pytest.param(found, id=location)
            for override in panel["fieldConfig"]["overrides"]:
                for each in override["properties"]:
                    if each["id"] == "mappings":
                        yield pytest.param(each["value"], id=f"{location}/{override['matcher']['options']}")


KINDS = (
    value_mappings.STATES,
    value_mappings.DOORS,
    value_mappings.CONNECTIONS,
    value_mappings.RESULTS,
    value_mappings.CHARGING,
    value_mappings.UPDATING,
    value_mappings.EVENTS,
    value_mappings.UPDATES,
    value_mappings.ACCOUNTS,
    value_mappings.SCRAPES,
    value_mappings.VERSIONS,
    value_mappings.CONFIGURATIONS,
    value_mappings.STATE_STORES,
    value_mappings.ALERT_SEVERITIES,
    anchors(),
)
SPECIAL_VALUES = {"-1", "-2", "90", "999"}
"""Mapped numbers that are not codes, such as -1 for missing data."""


@pytest.mark.parametrize("mappings", list(all_mappings()))
def test_value_mappings_are_complete(mappings: Any) -> None:
    texts = {
        number: (result["text"], result["color"])
        for mapping in mappings
        if mapping["type"] == "value"
        for number, result in mapping["options"].items()
        if number not in SPECIAL_VALUES
    }
    kinds = [
        {str(code): (each.text, colours.SEVERITY_COLOURS[each.severity]) for code, each in kind.items()}
        for kind in KINDS
    ]
    complete = [{code: each for code, each in kind.items() if code not in SPECIAL_VALUES} for kind in kinds]
    assert texts in [*complete, {}]
    for mapping in mappings:
        if mapping["type"] == "range":
            assert mapping["options"]["to"] is None
            assert mapping["options"]["result"]["color"] == colours.SEVERITY_COLOURS["bad"]


def panels_of(kind: str) -> list[Any]:
    return [
        pytest.param(panel, id=f"{name}/{panel['title']}")
        for name in FILES
        for panel in panels(load(name))
        if kind in {panel["type"], panel["fieldConfig"]["defaults"].get("custom", {}).get("drawStyle")}
    ]


@pytest.mark.parametrize("panel", panels_of("stat"))
def test_missing_values_have_a_neutral_colour(panel: Any) -> None:
    config = panel["fieldConfig"]["defaults"]
    assert config["noValue"]
    base, *_ = config["thresholds"]["steps"]
    # Grafana uses the colour of the base threshold for missing data.
    assert (base["value"], base["color"]) == (None, colours.SEVERITY_COLOURS["quiet"])


@pytest.mark.parametrize("panel", panels_of("stat"))
def test_stat_panels_have_one_value(panel: Any) -> None:
    # Several values in a panel are too small to read: locks are the rows of a table.
    (target,) = panel["targets"]
    assert re.match(r"\(?(count|sum|min|max|clamp_min\(max)\(", target["expr"])


# No npm package has Grafana's state timeline, so these rules are not checked in pictures.


@pytest.mark.parametrize("panel", panels_of("state-timeline"))
def test_timelines_show_texts_instead_of_thresholds(panel: Any) -> None:
    # With the mode "thresholds", Grafana merges all values between two thresholds, and the text is the threshold:
    # https://github.com/grafana/grafana/issues/40661
    config = panel["fieldConfig"]["defaults"]
    assert config["color"]["mode"] == "fixed"
    # With several thresholds, the legend shows the thresholds.
    assert [step["color"] for step in config["thresholds"]["steps"]] == [config["color"]["fixedColor"]]


@pytest.mark.parametrize("panel", panels_of("state-timeline"))
def test_timelines_have_a_text_for_every_code(panel: Any) -> None:
    codes = {
        "lock_state": set(STATE_TEXTS),
        "lock_door_state": set(DOOR_TEXTS),
        "lock_connected": {"0", "1"},
        "tedee_bridge_connected": {"0", "1"},
    }
    (metric,) = codes.keys() & set(re.findall(r"\b\w+", panel["targets"][0]["expr"]))
    assert codes[metric] <= set(mapped(panel, None))


@pytest.mark.parametrize("panel", [*panels_of("line"), *panels_of("bars")])
def test_graphs_without_data_have_words(panel: Any) -> None:
    # "No data" is Grafana's text if the option is not set.
    texts = {
        None,
        "no failures, or no data",
        "no rejected values, or no data",
        "no events, or events are not enabled",
        "no wrong PINs, or events are not enabled",
    }
    assert panel["fieldConfig"]["defaults"].get("noValue") in texts


@pytest.mark.parametrize("panel", panels_of("line"))
def test_counts_are_lines_with_steps(panel: Any) -> None:
    config = panel["fieldConfig"]["defaults"]
    if config["unit"] in {"none", "percent"}:
        assert config["custom"]["lineInterpolation"] == "stepAfter"


@pytest.mark.parametrize("panel", panels_of("line"))
def test_axes_of_seconds_have_no_minutes(panel: Any) -> None:
    # Grafana would divide an axis of a few minutes at "1.67 mins".
    if panel["title"] in {"Data age", "Time until next sync"}:
        config = panel["fieldConfig"]["defaults"]
        assert (config["unit"], config["custom"]["axisSoftMax"]) == ("suffix:s", 60)


@pytest.mark.parametrize("panel", panels_of("bars"))
def test_bars_span_at_least_five_minutes(panel: Any) -> None:
    assert panel["interval"] in {"5m", "1h"}
    assert panel["fieldConfig"]["defaults"]["decimals"] == 0


@pytest.mark.parametrize("panel", panels_of("bars"))
def test_axes_of_empty_bars_are_short(panel: Any) -> None:
    assert panel["fieldConfig"]["defaults"]["custom"]["axisSoftMax"] == 5


def test_each_reason_has_a_distinct_colour() -> None:
    (panel,) = (panel for panel in panels(load("exporter.json")) if panel["title"] == "Failed syncs by reason")
    found = {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
    }
    assert set(found) == set(REASONS)
    assert len(set(found.values())) == len(REASONS)


def test_sources_of_events_with_a_colour_exist() -> None:
    assert set(devices.SOURCES) <= {kind.source for kind in EVENT_KINDS.values()}
    assert len(devices.SOURCES) == len(colours.LINE_COLOURS)


def test_each_severity_has_a_colour() -> None:
    assert {display.severity for kind in KINDS for display in kind.values()} <= set(colours.SEVERITY_COLOURS)


VISION_TYPES = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
"""Matrices for linear red, green and blue (Machado, Oliveira and Fernandes, 2009)."""
MIN_AREA_DISTANCE = 10.0
"""Distance in CIE L*a*b*. A just noticeable difference is 2.3."""


def lab(colour: str, vision: str) -> tuple[float, float, float]:
    """Return a colour in CIE L*a*b* as it is perceived with a type of colour vision."""
    shares = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    light = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    r, g, b = (min(1.0, max(0.0, sum(map(operator.mul, row, light)))) for row in VISION_TYPES[vision])
    x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089
    x, y, z = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("vision", VISION_TYPES)
def test_severity_colours_are_distinct(vision: str) -> None:
    for one, other in itertools.combinations(colours.SEVERITY_COLOURS.values(), 2):
        assert math.dist(lab(one, vision), lab(other, vision)) > MIN_AREA_DISTANCE, (one, other)


GRAFANA_PALETTE = {
    "10.4 to 11, dark": ("#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C"),
    "10.4 to 11, light": ("#56A64B", "#E0B400", "#5794F2", "#FA6400", "#E02F44"),
    "12, dark": ("#73BF69", "#F2CC0C", "#5794F2", "#FF9830", "#F2495C"),
    "12, light": ("#56A64B", "#E0B400", "#3274D9", "#FF780A", "#E02F44"),
}
"""First colours of palette-classic, by version and theme (@grafana/data 10.4.19, 11.6.16 and 12.4.10)."""
MIN_LINE_DISTANCE = 5.0


@pytest.mark.parametrize("vision", VISION_TYPES)
@pytest.mark.parametrize("theme", GRAFANA_PALETTE)
def test_palette_colours_are_distinct(theme: str, vision: str) -> None:
    palette = GRAFANA_PALETTE[theme]
    assert len(palette) == colours.MAX_SERIES
    for one, other in itertools.combinations(palette, 2):
        assert math.dist(lab(one, vision), lab(other, vision)) > MIN_LINE_DISTANCE, (one, other)


@of_each_panel
def test_panels_use_only_the_defined_colours(panel: Any) -> None:
    defined = {*colours.SEVERITY_COLOURS.values(), *colours.LINE_COLOURS, colours.TRANSPARENT}
    used = re.findall(r'"(?:color|fixedColor)": "(.*?)"', json.dumps(panel))
    assert set(used) <= defined
