"""Lost if these fail: dashboards that import anywhere, show what they say, and follow the rules of Grafana's linter.

The linter (grafana/dashboard-linter) is a Go program that cannot be had here; its rules are written out instead.
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

from dashboards.generator import boards, colours, words
from exporter.metrics.catalogue import CATALOGUE, LOCK_METRICS
from exporter.tedee.errors import REASONS
from exporter.tedee.models import DoorState, LockState
from tests.program import ROOT

from .grafana import FILES, load, panels, queries

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
UIDS = {"locks-overview.json": "tedee-locks", "lock-detail.json": "tedee-lock", "exporter.json": "tedee-exporter"}
UNITS = {
    "none",
    "string",
    "percent",
    "percentunit",
    "s",
    "bytes",
    "dateTimeFromNow",
    "prefix:code ",
    "suffix:not",
    "suffix:days",
}
"""Those of Grafana's that are used here."""

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


# As code


def test_the_json_is_what_the_code_writes() -> None:
    written = {path.name: path.read_text("utf-8") for path, _ in boards() if path.exists()}
    assert written == {path.name: registry.json() for path, registry in boards()}, "run make dashboards"
    assert set(written) == set(FILES)


@of_each_dashboard
def test_the_sdk_reads_back_every_word(name: str) -> None:
    register_default_plugins()
    said = load(name)
    for annotation in said["annotations"]["list"]:
        # The SDK has no model for what is Prometheus' own in an annotation.
        assert all(annotation.pop(key) for key in ("target", "titleFormat", "textFormat", "tagKeys"))
    read = json.loads(json.dumps(Dashboard.from_json(said), cls=JSONEncoder))
    assert read == said


# Importable


def test_each_dashboard_has_a_name_and_an_address_that_stay() -> None:
    assert {name: load(name)["uid"] for name in FILES} == UIDS
    assert len({load(name)["title"] for name in FILES}) == len(FILES)


@of_each_dashboard
def test_grafana_from_10_4_on_can_read_it(name: str) -> None:
    dashboard = load(name)
    assert dashboard["schemaVersion"] == 39
    assert dashboard["editable"] is False, "it is changed where it is written"
    assert "id" not in dashboard
    assert "__inputs" not in dashboard


@of_each_dashboard
def test_all_data_comes_from_the_chosen_source(name: str) -> None:
    dashboard = load(name)
    asking = [*panels(dashboard), *(target for panel in panels(dashboard) for target in panel["targets"])]
    asking += dashboard["annotations"]["list"]
    asking += [each for each in dashboard["templating"]["list"] if each["type"] == "query"]
    assert {json.dumps(each["datasource"]) for each in asking} == {json.dumps(SOURCE)}


@of_each_dashboard
def test_the_dashboards_lead_to_each_other_and_keep_what_is_chosen_but_the_lock(name: str) -> None:
    dashboard = load(name)
    assert "tedee" in dashboard["tags"]
    kept = "&".join(f"${{{variable}:queryparam}}" for variable in ("datasource", "job", "instance", "account"))
    others = [f"/d/{uid}?{kept}" for file, uid in UIDS.items() if file != name]
    assert [link["url"] for link in dashboard["links"]] == others
    for link in dashboard["links"]:
        assert (link["type"], link["includeVars"], link["keepTime"]) == ("link", False, True)


@of_each_dashboard
def test_links_out_of_tables_keep_the_time_range(name: str) -> None:
    for url in re.findall(r'"url": "(/.*?)"', json.dumps(load(name)["panels"])):
        assert url.split("?")[0] in {f"/d/{uid}" for uid in UIDS.values()}
        assert "${__url_time_range}" in url


# Variables


@of_each_dashboard
def test_the_source_is_a_variable(name: str) -> None:
    source = load(name)["templating"]["list"][0]
    assert (source["type"], source["name"], source["label"]) == ("datasource", "datasource", "Data source")
    assert source["query"] == "prometheus"


@of_each_dashboard
def test_variables_have_many_values_or_all_and_none_written_down(name: str) -> None:
    _, *variables = load(name)["templating"]["list"]
    for variable in variables:
        assert (variable["type"], variable["multi"], variable["includeAll"]) == ("query", True, True)
        assert variable["label"] == variable["name"].title()
        assert variable["current"] == {"text": ["All"], "value": ["$__all"], "selected": True}
        assert "options" not in variable
        assert variable["refresh"] == 2, "on every change of the time range"
        assert (variable.get("allValue"), variable.get("hide")) in [(".+", None), (None, 2)]


@of_each_dashboard
def test_each_variable_takes_its_values_from_the_ones_before(name: str) -> None:
    _, *variables = load(name)["templating"]["list"]
    names = [variable["name"] for variable in variables]
    expected = ["job", "instance", "account"] + (["lock"] if name != "exporter.json" else [])
    assert names == [*expected, "shown"]
    for index, variable in enumerate(variables):
        asked = set(re.findall(r"\$(\w+)", variable["query"]))
        # The locks of an account, wherever they are: each is asked for by all that was chosen before.
        assert asked == set(names[:index])


# Queries

RATE_INTERVAL = timedelta(seconds=4321)
FOREIGN = {"up", "ALERTS", "scrape_samples_scraped", "scrape_duration_seconds"}
"""Series that Prometheus itself makes."""


def nodes(expression: str) -> list[promql.Expr]:
    found: list[promql.Expr] = []
    filled = expression.replace("$__rate_interval", f"{RATE_INTERVAL.seconds}s").replace("$__range", "1d")
    promql.walk(promql.parse(filled), found.append)
    return found


def selectors(expression: str) -> Iterator[tuple[set[str], dict[str, str]]]:
    """(metrics, matched value by label) of all that an expression selects."""
    for node in nodes(expression):
        if isinstance(node, promql.VectorSelector):
            matchers = {each.name: each.value for each in node.matchers.matchers if each.op == promql.MatchOp.Re}
            yield {node.name} if node.name else set(matchers["__name__"].split("|")), matchers


def variable_queries() -> list[Any]:
    found = [(name, each) for name in FILES for each in load(name)["templating"]["list"] if each["type"] == "query"]
    return [pytest.param(each["query"], id=f"{name.removesuffix('.json')}/{each['name']}") for name, each in found]


@of_each_query
def test_each_selector_is_of_the_chosen_jobs_and_instances(query: Any) -> None:
    empty_is_right = "|" if "ALERTS" in query["expr"] else ""
    found = list(selectors(query["expr"]))
    assert found
    for _, matchers in found:
        assert matchers["job"] == f"$job{empty_is_right}"
        assert matchers["instance"] == f"$instance{empty_is_right}"


@of_each_query
def test_each_selector_is_of_the_chosen_accounts_and_locks_where_the_metric_has_them(query: Any) -> None:
    names = {f"{metric.name}{suffix}": metric for metric in CATALOGUE for suffix in ("", "_bucket", "_sum", "_count")}
    for metrics, matchers in selectors(query["expr"]):
        for metric in metrics - FOREIGN:
            if metric.startswith("process_"):
                continue
            labels = names[metric].labels
            assert (matchers.get("account") in {"$account", "$shown"}) == ("account" in labels)
            assert (matchers.get("lock_id") in {"$lock", "$shown"}) == ("lock_id" in labels)


@pytest.mark.parametrize("query", variable_queries())
def test_each_variable_asks_for_what_there_is(query: str) -> None:
    match = re.fullmatch(r"label_values\((.+), \w+\)|query_result\((.+)\)", query)
    assert match
    known = {metric.name for metric in CATALOGUE}
    assert all(metrics <= known | FOREIGN for metrics, _ in selectors(match[1] or match[2]))


@pytest.mark.parametrize("query", variable_queries())
def test_no_variable_goes_through_all_samples_of_thousands_of_locks(query: str) -> None:
    match = re.fullmatch(r"label_values\((.+), \w+\)|query_result\((.+)\)", query)
    assert match
    for each in nodes(match[1] or match[2]):
        if isinstance(each, promql.MatrixSelector):
            assert not (each.vector_selector.name or "lock_").startswith("lock_")


@pytest.mark.parametrize("name", ["locks-overview.json", "lock-detail.json"])
def test_the_locks_to_choose_from_are_asked_for_by_one_metric(name: str) -> None:
    (variable,) = (each for each in load(name)["templating"]["list"] if each["name"] == "lock")
    query = re.fullmatch(r"query_result\((.+)\)", variable["query"])
    assert query
    assert {metric for metrics, _ in selectors(query[1]) for metric in metrics} == {"lock_revision"}


@of_each_query
def test_rates_are_taken_over_the_interval_that_grafana_reckons(query: Any) -> None:
    for call in nodes(query["expr"]):
        if isinstance(call, promql.Call) and call.func.name in {"rate", "irate"}:
            assert [each.range for each in call.args if isinstance(each, promql.MatrixSelector)] == [RATE_INTERVAL]


@of_each_query
def test_counters_are_never_shown_as_they_are(query: Any) -> None:
    everything = nodes(query["expr"])
    counters = {each.name for each in everything if isinstance(each, promql.VectorSelector) and _counts(each.name)}
    taken = {
        argument.vector_selector.name
        for call in everything
        if isinstance(call, promql.Call) and call.func.name in {"rate", "increase"}
        for argument in call.args
        if isinstance(argument, promql.MatrixSelector)
    }
    assert counters <= taken


def _counts(name: str | None) -> bool:
    return re.search("_(total|bucket|sum|count)$", name or "") is not None


@of_each_dashboard
def test_the_alerts_are_ours(name: str) -> None:
    (annotation,) = load(name)["annotations"]["list"]
    ((_, matchers),) = selectors(annotation["expr"])
    rules = yaml.safe_load((ROOT / "alerts" / "tedee.rules.yml").read_text("utf-8"))
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    assert alerts
    assert all(re.fullmatch(matchers["alertname"], alert) for alert in alerts)


@of_each_dashboard
def test_each_grafana_finds_the_alerts_where_it_looks_for_them(name: str) -> None:
    (annotation,) = load(name)["annotations"]["list"]
    assert annotation["target"] == {"refId": "Anno", "expr": annotation["expr"]}


@of_each_dashboard
def test_an_alert_says_what_it_is_about_also_where_that_is_no_lock(name: str) -> None:
    (annotation,) = load(name)["annotations"]["list"]
    said = set(re.findall(r"{{(\w+)}}", annotation["textFormat"]))
    assert said == {"account", "lock_name", "instance"}
    assert all(label in annotation["expr"] for label in said)


# Panels


@of_each_dashboard
def test_panels_are_told_apart(name: str) -> None:
    everything = load(name)["panels"]
    assert len({panel["title"] for panel in everything}) == len(everything)
    assert len({panel["id"] for panel in everything}) == len(everything)


@of_each_panel
def test_each_panel_says_what_it_shows_in_whole_sentences(panel: Any) -> None:
    assert len(panel["description"]) > 40
    assert panel["description"].endswith(".")


@of_each_panel
def test_each_number_has_a_unit(panel: Any) -> None:
    fields = panel["fieldConfig"]
    units = [fields["defaults"]["unit"]]
    for override in fields["overrides"]:
        units += [each["value"] for each in override["properties"] if each["id"] == "unit"]
    assert set(units) <= UNITS
    if panel["type"] == "table":
        numbers = {name for name in _renamed(panel).values() if name.startswith("Value #")}
        assert len(units) == 1 + len(numbers)


@of_each_dashboard
def test_panels_fill_the_grid_without_overlap_or_gap(name: str) -> None:
    covered: dict[tuple[int, int], str] = {}
    for panel in load(name)["panels"]:
        place = panel["gridPos"]
        for cell in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        ):
            assert covered.setdefault(cell, panel["title"]) == panel["title"]
    bottom = max(y for _, y in covered) + 1
    assert set(covered) == set(itertools.product(range(24), range(bottom)))


def _renamed(panel: Any) -> dict[str, str]:
    """Title to field of each column of a table."""
    (organize,) = (each for each in panel["transformations"] if each["id"] == "organize")
    return {title: name for name, title in organize["options"]["renameByName"].items()}


TABLES = [panel for name in FILES for panel in panels(load(name)) if panel["type"] == "table"]
of_each_table = pytest.mark.parametrize("table", [pytest.param(table, id=table["title"]) for table in TABLES])


@of_each_table
def test_each_column_has_a_query_and_each_query_a_use(table: Any) -> None:
    asked = {target["refId"] for target in table["targets"]}
    columns = {name.removeprefix("Value #") for name in _renamed(table).values() if name.startswith("Value #")}
    assert columns <= asked
    text = json.dumps(table["transformations"])
    labels = {name for name in _renamed(table).values() if not name.startswith("Value #")}
    for target in table["targets"]:
        grouped = re.findall(r"group by \((.*?)\)", target["expr"])
        gives_labels = labels & set(re.findall(r"\w+", " ".join(grouped)))
        assert target["refId"] in columns or f"Value #{target['refId']}" in text or gives_labels


@of_each_table
def test_what_is_said_of_a_column_is_said_of_one_that_is_there(table: Any) -> None:
    titles = set(_renamed(table))
    assert {override["matcher"]["options"] for override in table["fieldConfig"]["overrides"]} == titles


def test_the_table_of_the_locks_has_what_was_asked_for() -> None:
    (table,) = (table for table in TABLES if table["title"] == "Every lock")
    asked = ["Lock", "State", "Door", "Battery", "Connection", "Charging", "Last change", "Firmware"]
    assert set(asked) <= set(_renamed(table))


def test_the_facts_have_every_label_of_the_info() -> None:
    (table,) = (table for table in TABLES if table["title"] == "Facts")
    (info,) = (metric for metric in LOCK_METRICS if metric.name == "lock_info")
    assert set(info.labels) <= set(_renamed(table).values())


# Words and colours


def mapped(panel: Any, column: str | None) -> dict[str, str]:
    """Number to word, as a panel, or a column of a table, has them."""
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


STATE_WORDS = {str(code.value): code.text for code in LockState}
DOOR_WORDS = {str(code.value): code.text for code in DoorState}
NOT_KNOWN = {"-1": "not known"}


@pytest.mark.parametrize(
    ("file", "title", "column", "expected"),
    [
        ("locks-overview.json", "Every lock", "State", {**STATE_WORDS, "-1": "jammed", "-2": "with an error"}),
        ("locks-overview.json", "Every lock", "Door", DOOR_WORDS),
        ("locks-overview.json", "Every lock", "Connection", {"1": "connected", "0": "offline"}),
        ("locks-overview.json", "What changed lately", "Now", STATE_WORDS),
        ("lock-detail.json", "State", None, STATE_WORDS | NOT_KNOWN),
        ("lock-detail.json", "State over time", None, STATE_WORDS),
        ("lock-detail.json", "Door", None, DOOR_WORDS | NOT_KNOWN),
        ("lock-detail.json", "Door over time", None, DOOR_WORDS),
    ],
)
def test_each_code_is_said_in_the_exporters_words(
    file: str, title: str, column: str | None, expected: dict[str, str]
) -> None:
    (panel,) = (panel for panel in panels(load(file)) if panel["title"] == title)
    assert mapped(panel, column) == expected


def all_mappings() -> Iterator[Any]:
    for name in FILES:
        for panel in panels(load(name)):
            where = f"{name.removesuffix('.json')}/{panel['title']}"
            if found := panel["fieldConfig"]["defaults"].get("mappings"):
                yield pytest.param(found, id=where)
            for override in panel["fieldConfig"]["overrides"]:
                for each in override["properties"]:
                    if each["id"] == "mappings":
                        yield pytest.param(each["value"], id=f"{where}/{override['matcher']['options']}")


KINDS = (
    words.STATES,
    words.DOORS,
    words.CONNECTIONS,
    words.RESULTS,
    words.CHARGING,
    words.UPDATES,
    words.ACCOUNTS,
    words.VERSIONS,
    words.CONFIGURATIONS,
    words.STATE_FILES,
)
STAND_INS = {"-1", "-2", "90"}
"""Not codes, but numbers that stand for something else, such as `not known`."""


@pytest.mark.parametrize("mappings", list(all_mappings()))
def test_where_one_code_has_words_all_of_its_kind_have_them_and_their_colours(mappings: Any) -> None:
    said = {
        number: (result["text"], result["color"])
        for mapping in mappings
        if mapping["type"] == "value"
        for number, result in mapping["options"].items()
        if number not in STAND_INS
    }
    kinds = [{str(code): (each.text, colours.TONES[each.severity]) for code, each in kind.items()} for kind in KINDS]
    whole = [{code: each for code, each in kind.items() if code not in STAND_INS} for kind in kinds]
    assert said in [*whole, {"0": ("all of them", colours.TONES["good"])}, {}]
    for mapping in mappings:
        if mapping["type"] == "range":
            assert mapping["options"]["to"] is None
            assert mapping["options"]["result"]["color"] == colours.TONES["bad"]


def panels_of(kind: str) -> list[Any]:
    return [
        pytest.param(panel, id=f"{name}/{panel['title']}")
        for name in FILES
        for panel in panels(load(name))
        if kind in {panel["type"], panel["fieldConfig"]["defaults"].get("custom", {}).get("drawStyle")}
    ]


@pytest.mark.parametrize("panel", panels_of("stat"))
def test_what_is_not_known_is_neither_good_nor_bad(panel: Any) -> None:
    config = panel["fieldConfig"]["defaults"]
    assert config["noValue"]
    base, *_ = config["thresholds"]["steps"]
    # Grafana has no other colour for no data.
    assert (base["value"], base["color"]) == (None, colours.TONES["quiet"])


@pytest.mark.parametrize("panel", panels_of("stat"))
def test_a_value_of_one_of_several_locks_has_the_locks_name(panel: Any) -> None:
    if "lock_name" in panel["targets"][0]["expr"]:
        assert panel["targets"][0]["legendFormat"] == "{{lock_name}} · {{account}}"
        assert panel["options"]["textMode"] == "value_and_name"
        assert mapped(panel, None)["-1"] == panel["fieldConfig"]["defaults"]["noValue"]


@pytest.mark.parametrize("panel", panels_of("state-timeline"))
def test_the_legend_of_a_timeline_has_words(panel: Any) -> None:
    # Of several steps Grafana lists the numbers at which they begin instead.
    assert len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) == 1


@pytest.mark.parametrize("panel", panels_of("bars"))
def test_bars_are_wide_enough_to_count_each_event_about_once_and_in_whole_numbers(panel: Any) -> None:
    assert panel["interval"] == "5m"
    assert panel["fieldConfig"]["defaults"]["decimals"] == 0


def test_each_reason_has_a_colour_of_its_own() -> None:
    (panel,) = (panel for panel in panels(load("exporter.json")) if panel["title"] == "Failures by reason")
    found = {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
    }
    assert set(found) == set(REASONS)
    assert len(set(found.values())) == len(REASONS)


def test_each_tone_of_the_status_page_has_a_colour() -> None:
    everything = (words.STATES, words.DOORS, words.CONNECTIONS, words.RESULTS, words.CHARGING, words.UPDATES)
    assert {said.severity for each in everything for said in each.values()} <= set(colours.TONES)


EYES = {
    "all colours": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "no green": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "no blue": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
"""What eyes make of linear red, green and blue (Machado, Oliveira and Fernandes, 2009)."""
SEEN_AT_A_GLANCE = 10.0
"""Distance in CIE L*a*b*; one sees 2.3 if one looks closely."""


def seen(colour: str, eyes: str) -> tuple[float, float, float]:
    """A colour as L*a*b* of what is seen of it."""
    shares = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    light = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    r, g, b = (min(1.0, max(0.0, sum(map(operator.mul, row, light)))) for row in EYES[eyes])
    x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089
    x, y, z = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("eyes", EYES)
def test_tones_are_told_apart_by_eyes_that_see(eyes: str) -> None:
    for one, other in itertools.combinations(colours.TONES.values(), 2):
        assert math.dist(seen(one, eyes), seen(other, eyes)) > SEEN_AT_A_GLANCE, (one, other)


GRAFANAS_PALETTE = {
    "10.4 to 11, dark": ("#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C"),
    "10.4 to 11, light": ("#56A64B", "#E0B400", "#5794F2", "#FA6400", "#E02F44"),
    "12, dark": ("#73BF69", "#F2CC0C", "#5794F2", "#FF9830", "#F2495C"),
    "12, light": ("#56A64B", "#E0B400", "#3274D9", "#FF780A", "#E02F44"),
}
"""The beginning of palette-classic, by version and theme (@grafana/data 10.4.19, 11.6.16 and 12.4.10)."""
SEEN = 5.0


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("theme", GRAFANAS_PALETTE)
def test_as_many_lines_as_there_may_be_are_told_apart(theme: str, eyes: str) -> None:
    palette = GRAFANAS_PALETTE[theme]
    assert len(palette) == colours.FEW
    for one, other in itertools.combinations(palette, 2):
        assert math.dist(seen(one, eyes), seen(other, eyes)) > SEEN, (one, other)


@of_each_panel
def test_no_colour_stands_there_that_was_not_chosen(panel: Any) -> None:
    chosen = {*colours.TONES.values(), *colours.LINES}
    used = re.findall(r'"(?:color|fixedColor)": "(.*?)"', json.dumps(panel))
    assert set(used) <= chosen
