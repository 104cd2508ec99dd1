"""Draws the dashboards without Grafana: position and size of each panel, with the data of the scripted day.

python -m tests.dashboards.drawing FOLDER    # writes a picture of each dashboard to the folder

Fonts, axes and default colours differ from Grafana's.
"""

import html
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import humanize

from tests.conftest import require_program
from tests.end_to_end.prometheus import prometheus

from . import scripted_day
from .conftest import NO_TARGET, backfill
from .grafana import FILES, Grafana, Series, load, panels

COLUMN, ROW, GAP, TOP = 60, 38, 6, 56
"""Pixels, for a window width of 1440."""
ONE_LOCK = {"lock-detail.json": {"lock": "2004"}}
PALETTE = ("#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C", "#5794F2")
"""Grafana's colours for lines without a fixed colour."""
STYLE = """
body { margin: 0; background: #111217; color: #ccccdc; font: 13px Inter, "DejaVu Sans", sans-serif; position: relative }
header { padding: 8px 12px; height: 40px } header b { font-size: 17px } header small { color: #9a9aa8 }
section { position: absolute; box-sizing: border-box; background: #181b1f; border: 1px solid #2c2e33; overflow: hidden }
section > h2 { font-size: 13px; font-weight: 500; margin: 0; padding: 6px 8px; height: 17px; white-space: nowrap }
.row { background: none; border: none; font-weight: 600; padding: 10px 4px }
.tiles { display: flex; flex-wrap: wrap; position: absolute; inset: 29px 0 0 0 }
.tile { flex: 1 1 40%; margin: 1px; display: flex; flex-direction: column; align-items: center }
.tile { justify-content: center }
.tile b { font-size: 22px; font-weight: 500 } .tile small { font-size: 11px }
table { border-collapse: collapse; width: 100%; font-size: 12px }
th { text-align: left; color: #6e9fff; font-weight: 500 }
td, th { padding: 4px 8px; border-bottom: 1px solid #2c2e33; white-space: nowrap }
.bar { background: #2c2e33; width: 100%; min-width: 120px; height: 14px; position: relative }
.bar i { position: absolute; inset: 0 auto 0 0 } .legend { font-size: 11px; padding: 0 8px } svg { display: block }
"""


@dataclass(frozen=True)
class FormattedValue:
    """Text and colour of a value in a panel."""

    text: str
    colour: str

    @classmethod
    def of(cls, value: float | None, config: Mapping[str, Any], now: float) -> "FormattedValue":
        """Format a value with the options of a panel or column. None is a missing value."""
        colour = next(
            (
                step["color"]
                for step in reversed(config.get("thresholds", {}).get("steps", []))
                if step["value"] is None or (value is not None and value >= step["value"])
            ),
            "#595959",
        )
        if value is None:
            return cls(config.get("noValue", ""), colour)
        for mapping in config.get("mappings", []):
            options = mapping["options"]
            if mapping["type"] == "value" and f"{value:g}" in options:
                return cls(options[f"{value:g}"]["text"], options[f"{value:g}"]["color"])
            if mapping["type"] == "range" and value >= options["from"]:
                return cls(options["result"]["text"], options["result"]["color"])
        return cls(with_unit(value, config["unit"], config.get("decimals"), now), colour)


def with_unit(value: float, unit: str, decimals: int | None, now: float) -> str:
    """Return a number with its unit, approximately as Grafana formats it."""
    number = f"{value:.{decimals}f}" if decimals is not None else f"{value:.3g}"
    kind, _, text = unit.partition(":")
    moment = datetime.fromtimestamp(now, UTC)
    formats: dict[str, Callable[[], str]] = {
        "prefix": lambda: f"{text}{number}",
        "suffix": lambda: f"{number} {text}",
        "percent": lambda: f"{number}%",
        "percentunit": lambda: f"{value * 100:.{decimals or 0}f}%",
        "s": lambda: f"{number} s" if value < 120 else f"{value / 60:.3g} min",
        "bytes": lambda: humanize.naturalsize(value, binary=True),
        "dateTimeFromNow": lambda: humanize.naturaltime(datetime.fromtimestamp(value / 1000, UTC), when=moment),
    }
    return formats.get(kind, lambda: number)()


def draw(name: str, grafana: Grafana) -> str:
    """Return a dashboard as an HTML page."""
    dashboard = load(name)
    variables = grafana.variables(dashboard, ONE_LOCK.get(name, {}))
    parts = []
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        style = (
            f"left:{place['x'] * COLUMN + GAP / 2:g}px;top:{TOP + place['y'] * ROW + GAP / 2:g}px;"
            f"width:{place['w'] * COLUMN - GAP:g}px;height:{place['h'] * ROW - GAP:g}px"
        )
        if panel["type"] == "row":
            parts.append(f'<section class="row" style="{style}">▾ {panel["title"]}</section>')
            continue
        results = {target["refId"]: grafana.run(target, variables) for target in panel["targets"]}
        inner = DRAWINGS[panel["type"]](panel, results, grafana)
        parts.append(f'<section style="{style}"><h2>{html.escape(panel["title"])}</h2>{inner}</section>')
    note = "layout drawn without Grafana; data of a scripted day"
    title = f"<header><b>{dashboard['title']}</b> <small>{note}</small></header>"
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{title}{''.join(parts)}"


def tiles(panel: Any, results: Mapping[str, Series], grafana: Grafana) -> str:
    config = panel["fieldConfig"]["defaults"]
    always = panel["options"].get("textMode") == "value_and_name"
    found = [
        (
            FormattedValue.of(float(each["value"][1]), config, grafana.end),
            legend(panel, each) if always or len(series) > 1 else "",
        )
        for series in results.values()
        for each in series
    ] or [(FormattedValue.of(None, config, grafana.end), "")]
    return "<div class=tiles>" + "".join(map(_tile, found)) + "</div>"


def _tile(tile: tuple[FormattedValue, str]) -> str:
    formatted, name = tile
    return (
        f'<div class=tile style="background:{formatted.colour};color:{_ink(formatted.colour)}">'
        f"<small>{html.escape(name)}</small><b>{html.escape(formatted.text)}</b></div>"
    )


def draw_table(panel: Any, results: Mapping[str, Series], grafana: Grafana) -> str:
    """Draw a table. Rows are merged if the labels that all queries share are equal, as in Grafana's merge."""
    shared = set.intersection(*(set(each["metric"]) for series in results.values() for each in series))
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for name, series in results.items():
        for each in series:
            row = rows.setdefault(tuple(each["metric"][label] for label in sorted(shared)), {})
            row |= {**each["metric"], f"Value #{name}": float(each["value"][1])}
    ordered = list(rows.values())
    columns: dict[str, str] = {}
    for step in panel["transformations"]:
        if step["id"] == "sortBy":
            (by,) = step["options"]["sort"]
            ordered.sort(key=lambda row: row.get(by["field"], -1), reverse=by["desc"])
        elif step["id"] == "organize":
            columns = step["options"]["renameByName"]
    configs = {
        each["matcher"]["options"]: {item["id"]: item["value"] for item in each["properties"]}
        for each in panel["fieldConfig"]["overrides"]
    }
    head = "".join(f"<th>{title}</th>" for title in columns.values())
    body = "".join(
        "<tr>"
        + "".join(_cell(row.get(field), configs[title], grafana.end) for field, title in columns.items())
        + "</tr>"
        for row in ordered
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any, config: Mapping[str, Any], now: float) -> str:
    if "unit" not in config:
        return f"<td>{html.escape(value or '–')}</td>"  # noqa: RUF001
    formatted = FormattedValue.of(value, config, now)
    match config.get("custom.cellOptions", {}).get("type"):
        case "color-background":
            return f'<td style="background:{formatted.colour};color:{_ink(formatted.colour)}">{formatted.text}</td>'
        case "gauge":
            bar = f'<i style="width:{value or 0}%;background:{formatted.colour}"></i>'
            return f'<td><div style="display:flex;gap:8px"><div class=bar>{bar}</div>{formatted.text}</div></td>'
    return f"<td>{formatted.text}</td>"


def graph(panel: Any, results: Mapping[str, Series], grafana: Grafana) -> str:
    width, height = panel["gridPos"]["w"] * COLUMN - 60, panel["gridPos"]["h"] * ROW - 80
    targets = {target["refId"]: target for target in panel["targets"]}
    fixed = {
        each["matcher"]["options"]: each["properties"][0]["value"]["fixedColor"]
        for each in panel["fieldConfig"]["overrides"]
    }
    series = [(legend(targets[name], each), each["values"]) for name, found in results.items() for each in found]
    config = panel["fieldConfig"]["defaults"]
    top = config.get("max") or max((float(value) for _, values in series for _, value in values), default=1) or 1
    stacked = config["custom"]["drawStyle"] == "bars"
    sums: dict[float, float] = {}
    parts, names = [], []
    for index, (name, values) in enumerate(series):
        colour = fixed.get(name, PALETTE[index % len(PALETTE)])
        names.append(f'<span style="color:{colour}">▬</span> {html.escape(name)}')
        points = [(_across(at, grafana, width), float(value) / top * height, at) for at, value in values]
        if stacked:
            for x, high, at in points:
                base = sums.get(at, 0.0)
                parts.append(
                    f'<rect x={x:.1f} y={height - base - high:.1f} width=5 height={high:.1f} fill="{colour}" />'
                )
                sums[at] = base + high
        else:
            line = " ".join(f"{x:.1f},{height - high:.1f}" for x, high, _ in points if high == high)  # noqa: PLR0124
            parts.append(f'<polyline points="{line}" fill=none stroke="{colour}" stroke-width=2 />')
    scale = with_unit(top, config["unit"], None, grafana.end)
    axis = f'<text x=2 y=10 fill="#9a9aa8" font-size=10>{scale}</text>'
    drawn = "".join([axis, *parts])
    return f"<svg width={width + 40} height={height + 8}>{drawn}</svg><div class=legend>{'  '.join(names)}</div>"


def timeline(panel: Any, results: Mapping[str, Series], grafana: Grafana) -> str:
    config = panel["fieldConfig"]["defaults"]
    width, height = panel["gridPos"]["w"] * COLUMN - 60, panel["gridPos"]["h"] * ROW - 80
    (target,), (series,) = panel["targets"], results.values()
    band = height / max(1, len(series))
    step = width * grafana.step / grafana.span
    parts, seen = [], {}
    for index, each in enumerate(series):
        y = index * band + band * 0.1
        for at, value in each["values"]:
            formatted = FormattedValue.of(float(value), config, grafana.end)
            seen[formatted.text] = formatted.colour
            x = _across(at, grafana, width)
            parts.append(
                f'<rect x={x:.1f} y={y:.1f} width={step + 0.5:.1f} height={band * 0.8:.1f} fill="{formatted.colour}" />'
            )
        parts.append(f'<text x=36 y={y + 16:.1f} font-size=12 fill="#111">{html.escape(legend(target, each))}</text>')
    steps = config["thresholds"]["steps"]
    if len(steps) > 1:  # the legend has the thresholds instead of the texts, as in Grafana
        seen = {with_unit(step["value"] or 0, config["unit"], None, grafana.end): step["color"] for step in steps}
    names = "  ".join(f'<span style="color:{colour}">■</span> {text}' for text, colour in seen.items())
    return f"<svg width={width + 40} height={height}>{''.join(parts)}</svg><div class=legend>{names}</div>"


DRAWINGS = {"stat": tiles, "table": draw_table, "timeseries": graph, "state-timeline": timeline}


def legend(target: Any, series: Any) -> str:
    """Return the name of a series."""
    text = target.get("legendFormat") or target.get("targets", [{}])[0].get("legendFormat", "")
    return re.sub(r"{{(\w+)}}", lambda match: series["metric"].get(match[1], ""), text)


def _across(at: float, grafana: Grafana, width: float) -> float:
    return 30 + (at - grafana.end + grafana.span) / grafana.span * (width - 30)


def _ink(colour: str) -> str:
    red, green, blue = (int(colour[index : index + 2], 16) for index in (1, 3, 5))
    return "#111" if 0.3 * red + 0.59 * green + 0.11 * blue > 120 else "#fff"


def pictures(folder: Path) -> Iterator[Path]:
    """Draw all dashboards and yield their files."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        backfill(require_program("promtool"), scripted_day.record(work), work / "data")
        with prometheus(work, NO_TARGET) as running:
            for file in FILES:
                page = work / f"{file}.html"
                page.write_text(draw(file, Grafana(running, scripted_day.END, step=480)), "utf-8")
                bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels(load(file)))
                picture = folder / f"dashboards-{file.removesuffix('.json')}.png"
                size = f"--window-size={24 * COLUMN},{TOP + bottom * ROW + GAP}"
                flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size]
                command = [require_program("chromium"), *flags, f"--screenshot={picture}", page.as_uri()]
                subprocess.run(command, check=True, capture_output=True)
                yield picture


if __name__ == "__main__":
    for each in pictures(Path(sys.argv[1]).resolve()):
        print(each)
