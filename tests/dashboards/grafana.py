"""Evaluates dashboards as Grafana does: variables, and the queries that are sent to Prometheus.

Based on the documentation and the source of Grafana's Prometheus data source. No Grafana is needed.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from testing.program import ROOT, TIMEOUT
from tests.end_to_end.prometheus import Prometheus

FOLDER = ROOT / "dashboards"
FILES = sorted(path.name for path in FOLDER.glob("*.json"))

Selection = Mapping[str, str | tuple[str, ...]]
"""One or several values of each variable named. The other variables have their default, All."""
Options = list[tuple[str, str]]
"""(text, value) of each value that can be selected."""
Series = list[dict[str, Any]]
MIN_STEPS = {"1m": 60, "1h": 3600}
"""Seconds of the minimum steps that queries have."""


def load(name: str) -> Any:
    """Return a committed dashboard."""
    return json.loads((FOLDER / name).read_text("utf-8"))


def rows_and_panels(dashboard: Any) -> Iterator[Any]:
    """Yield the rows and panels, including the panels of folded rows."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def panels(dashboard: Any) -> Iterator[Any]:
    """Yield the panels that show data, without rows and texts."""
    return (panel for panel in rows_and_panels(dashboard) if panel["type"] not in {"row", "text"})


def queries(dashboard: Any) -> Iterator[tuple[str, Any]]:
    """Yield (title of the panel, target) for all queries, including those of the annotations."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield panel["title"], target
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], {**annotation["target"], "range": True}


@dataclass(frozen=True)
class Grafana:
    """A dashboard view with the time range `end - span` to `end`."""

    prometheus: Prometheus
    end: float
    span: float = 24 * 3600
    step: float = 900
    scrape_interval: float = 240
    """Scrape interval in the settings of the data source."""

    def variables(self, dashboard: Any, selection: Selection) -> dict[str, str]:
        """Return the text that replaces each variable in a query."""
        values: dict[str, str] = {}
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                name, value = variable["name"], self._value(variable, values, selection)
                values[name] = value if isinstance(value, str) else _any_of(value)
                values[f"{name}:pipe"] = value if isinstance(value, str) else "|".join(value)
        return values

    def options(self, dashboard: Any, name: str, selection: Selection) -> Options:
        """Return the values that a variable offers."""
        values = self.variables(dashboard, selection)
        variable = next(each for each in dashboard["templating"]["list"] if each["name"] == name)
        return self._options(variable, values)

    def run(self, target: Any, variables: Mapping[str, str]) -> Series:
        """Return the result of a query."""
        expression = self.fill(target["expr"], variables, target.get("interval"))
        if target.get("instant"):
            return self.query("query", query=expression, time=self.end)
        return self.query("query_range", query=expression, start=self.end - self.span, end=self.end, step=self.step)

    def fill(self, expression: str, variables: Mapping[str, str], min_step: str | None = None) -> str:
        """Return an expression with all variables replaced.

        Args:
            expression: expression with variables.
            variables: text of each variable.
            min_step: minimum step of the query, which also counts as the scrape interval.
        """
        minimum = MIN_STEPS[min_step] if min_step else 0
        step, scrape_interval = max(self.step, minimum), max(self.scrape_interval, minimum)
        built_in = {
            "__range": f"{self.span:g}s",
            "__interval": f"{step:g}s",
            "__rate_interval": f"{max(step + scrape_interval, 4 * scrape_interval):g}s",
        }
        values = {**built_in, **variables}
        filled = re.sub(r"\$(?:{([\w:]+)}|([a-zA-Z_]\w*))", lambda match: values[match[1] or match[2]], expression)
        assert "$" not in filled.replace("\\\\$", "").replace('"$1"', "")
        return filled

    def query(self, endpoint: str, **parameters: Any) -> Series:
        """Return the result of a query from Prometheus. Raises AssertionError if the query is invalid."""
        response = requests.post(f"{self.prometheus.url}/api/v1/{endpoint}", data=parameters, timeout=TIMEOUT)
        assert response.ok, f"{response.text}: {parameters}"
        result: Series = response.json()["data"]["result"]
        return result

    def _value(self, variable: Any, values: Mapping[str, str], selection: Selection) -> str | Sequence[str]:
        """Return the selected values, or the text that stands for all values."""
        if variable["name"] in selection:
            selected = selection[variable["name"]]
            return [selected] if isinstance(selected, str) else selected
        assert variable["current"]["value"] == ["$__all"]
        if "allValue" in variable:
            return str(variable["allValue"])
        return [value for _, value in self._options(variable, values)]

    def _options(self, variable: Any, values: Mapping[str, str]) -> Options:
        texts = list(self._query_variable(self.fill(variable["query"], values)))
        if "regex" not in variable:
            return [(text, text) for text in texts]
        # Python's syntax for named groups differs from JavaScript's.
        regex = re.compile(variable["regex"].strip("/").replace("(?<", "(?P<"))
        options: dict[str, str] = {}
        for match in filter(None, map(regex.search, texts)):
            groups = match.groupdict()
            value = groups.get("value") or match[1]
            options.setdefault(value, groups.get("text") or match[1])
        return sorted((text, value) for value, text in options.items())

    def _query_variable(self, query: str) -> Iterator[str]:
        time_range = {"start": self.end - self.span, "end": self.end}
        if match := re.fullmatch(r"label_values\((.+),\s*(\w+)\)", query):
            response = requests.get(
                f"{self.prometheus.url}/api/v1/label/{match[2]}/values",
                params={"match[]": match[1], **time_range},
                timeout=TIMEOUT,
            )
            yield from response.json()["data"]
        elif match := re.fullmatch(r"query_result\((.+)\)", query):
            for each in self.query("query", query=match[1], time=self.end):
                at, value = each["value"]
                name = each["metric"].pop("__name__", "")
                labels = ",".join(f'{label}="{text}"' for label, text in each["metric"].items())
                yield f"{name}{{{labels}}} {value} {at * 1000:.0f}"
        else:
            raise AssertionError(f"not a variable query of Grafana: {query}")


def _any_of(values: Sequence[str]) -> str:
    """Return a regular expression for several selected values."""
    options = [_escaped(value) for value in values]
    return options[0] if len(options) == 1 else f"({'|'.join(options)})"


def _escaped(value: str) -> str:
    """Return a value escaped for a regular expression in a quoted string."""
    return re.sub(r"[$^*{}\[\]+?.()|]", r"\\\\\g<0>", value.replace("\\", "\\\\\\\\"))
