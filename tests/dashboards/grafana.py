"""What Grafana does with a dashboard before Prometheus is asked: its variables, and the queries they make.

Written from Grafana's documentation and its Prometheus data source; there is no Grafana here to ask.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from tests.end_to_end.prometheus import Prometheus
from tests.program import ROOT, TIMEOUT

FOLDER = ROOT / "dashboards"
FILES = sorted(path.name for path in FOLDER.glob("*.json"))

Chosen = Mapping[str, str | tuple[str, ...]]
"""A value, or several, for each variable named; the others are at their default, All."""
Options = list[tuple[str, str]]
"""(text, value) of each value that can be chosen."""
Series = list[dict[str, Any]]


def load(name: str) -> Any:
    """A committed dashboard."""
    return json.loads((FOLDER / name).read_text("utf-8"))


def panels(dashboard: Any) -> Iterator[Any]:
    """The panels, rows apart."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def queries(dashboard: Any) -> Iterator[tuple[str, Any]]:
    """(panel's title, target) of all queries, those of the annotations included."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield panel["title"], target
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], {**annotation["target"], "range": True}


@dataclass(frozen=True)
class Grafana:
    """One who looks at a dashboard, from some time on until another."""

    prometheus: Prometheus
    end: float
    span: float = 24 * 3600
    step: float = 900
    scrape_interval: float = 240
    """As the data source is told."""

    def variables(self, dashboard: Any, chosen: Chosen) -> dict[str, str]:
        """What each variable stands for in a query."""
        values: dict[str, str] = {}
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                values[variable["name"]] = self._value(variable, values, chosen)
        return values

    def options(self, dashboard: Any, name: str, chosen: Chosen) -> Options:
        """What a variable offers."""
        values = self.variables(dashboard, chosen)
        variable = next(each for each in dashboard["templating"]["list"] if each["name"] == name)
        return self._options(variable, values)

    def run(self, target: Any, variables: Mapping[str, str]) -> Series:
        """What a query brings."""
        expression = self.fill(target["expr"], variables)
        if target.get("instant"):
            return self.ask("query", query=expression, time=self.end)
        return self.ask("query_range", query=expression, start=self.end - self.span, end=self.end, step=self.step)

    def fill(self, expression: str, variables: Mapping[str, str]) -> str:
        """An expression without variables."""
        own = {
            "__range": f"{self.span:g}s",
            "__interval": f"{self.step:g}s",
            "__rate_interval": f"{max(self.step + self.scrape_interval, 4 * self.scrape_interval):g}s",
        }
        filled = re.sub(r"\$(\w+)", lambda match: {**own, **variables}[match[1]], expression)
        assert "$" not in filled.replace("\\\\$", "")
        return filled

    def ask(self, endpoint: str, **parameters: Any) -> Series:
        """Prometheus' answer. Raises AssertionError if it takes the question for wrong."""
        answer = requests.post(f"{self.prometheus.url}/api/v1/{endpoint}", data=parameters, timeout=TIMEOUT)
        assert answer.ok, f"{answer.text}: {parameters}"
        result: Series = answer.json()["data"]["result"]
        return result

    def _value(self, variable: Any, values: Mapping[str, str], chosen: Chosen) -> str:
        if variable["name"] in chosen:
            picked = chosen[variable["name"]]
            return _any_of([picked] if isinstance(picked, str) else picked)
        assert variable["current"]["value"] == ["$__all"]
        if "allValue" in variable:
            return str(variable["allValue"])
        return _any_of([value for _, value in self._options(variable, values)])

    def _options(self, variable: Any, values: Mapping[str, str]) -> Options:
        texts = list(self._found(self.fill(variable["query"], values)))
        if "regex" not in variable:
            return [(text, text) for text in texts]
        # Python names groups in a way of its own.
        regex = re.compile(variable["regex"].strip("/").replace("(?<", "(?P<"))
        options: dict[str, str] = {}
        for match in filter(None, map(regex.search, texts)):
            named = match.groupdict()
            value = named.get("value") or match[1]
            options.setdefault(value, named.get("text") or match[1])
        return sorted((text, value) for value, text in options.items())

    def _found(self, query: str) -> Iterator[str]:
        begin = {"start": self.end - self.span, "end": self.end}
        if match := re.fullmatch(r"label_values\((.+),\s*(\w+)\)", query):
            answer = requests.get(
                f"{self.prometheus.url}/api/v1/label/{match[2]}/values",
                params={"match[]": match[1], **begin},
                timeout=TIMEOUT,
            )
            yield from answer.json()["data"]
        elif match := re.fullmatch(r"query_result\((.+)\)", query):
            for each in self.ask("query", query=match[1], time=self.end):
                at, value = each["value"]
                name = each["metric"].pop("__name__", "")
                labels = ",".join(f'{label}="{text}"' for label, text in each["metric"].items())
                yield f"{name}{{{labels}}} {value} {at * 1000:.0f}"
        else:
            raise AssertionError(f"Grafana does not understand {query}")


def _any_of(values: Sequence[str]) -> str:
    """Values that are chosen together, as a regular expression."""
    options = [_escaped(value) for value in values]
    return options[0] if len(options) == 1 else f"({'|'.join(options)})"


def _escaped(value: str) -> str:
    """A value in a regular expression that stands in quotes."""
    return re.sub(r"[$^*{}\[\]+?.()|]", r"\\\\\g<0>", value.replace("\\", "\\\\\\\\"))
