"""The kinds of panels: what Grafana is told of each, beside what it is about."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from exporter.presentation import NO_VALUE, Display

from .colours import LINES, TONES
from .variables import SOURCE
from .words import UNKNOWN_CODE, Words, mappings

ValuePanel = TypeVar("ValuePanel", stat.Panel, timeseries.Panel, statetimeline.Panel)
AnyPanel = TypeVar("AnyPanel", stat.Panel, timeseries.Panel, statetimeline.Panel, table.Panel)

BY_NAME = "{{lock_name}} · {{account}}"
"""The legend of series that are locks: names are not told apart by themselves."""

Steps = Sequence[tuple[float | None, str]]
"""The tone from each number on; the first from minus infinity on."""


@dataclass(frozen=True)
class Reading:
    """How numbers are to be read."""

    unit: str = UNKNOWN_CODE
    """As Grafana calls it."""
    words: Words = field(default_factory=dict)
    """Of codes; one that has none is shown as the number it is."""
    beyond: Display | None = None
    """What all numbers above those codes mean."""
    steps: Steps = ((None, "quiet"),)
    """The first is also the colour of what is not known: quiet, where that may be."""
    decimals: int | None = None
    least: float | None = None
    most: float | None = None
    unsaid: str = NO_VALUE.text
    """What stands where there is no number."""

    def to(self, panel: ValuePanel) -> ValuePanel:
        """Have all numbers of a panel read so."""
        panel.unit(self.unit).no_value(self.unsaid).thresholds(self._thresholds())
        panel.color_scheme(builders.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        if self.words:
            panel.mappings(mappings(self.words, self.beyond))
        if self.decimals is not None:
            panel.decimals(self.decimals)
        if self.least is not None:
            panel.min(self.least)
        if self.most is not None:
            panel.max(self.most)
        return panel

    def properties(self) -> list[DynamicConfigValue]:
        """The same for one column of a table."""
        said: dict[str, object] = {
            "unit": self.unit,
            "noValue": self.unsaid,
            "thresholds": self._thresholds().build(),
            "color": {"mode": FieldColorModeId.THRESHOLDS},
            "mappings": mappings(self.words, self.beyond) if self.words else None,
            "decimals": self.decimals,
            "min": self.least,
            "max": self.most,
        }
        return [DynamicConfigValue(key, value) for key, value in said.items() if value is not None]

    def _thresholds(self) -> builders.ThresholdsConfig:
        return builders.ThresholdsConfig().steps([Threshold(value, TONES[tone]) for value, tone in self.steps])


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    source: str
    """A label, or the name of a query for its value."""
    title: str
    reading: Reading | None = None
    """None for text."""
    cell: common.TableCellOptions | None = None
    width: int | None = None
    link: tuple[str, str] | None = None
    """What it says and where it leads."""

    def properties(self) -> list[DynamicConfigValue]:
        """What Grafana is told of the column."""
        said = self.reading.properties() if self.reading else []
        if self.cell:
            said.append(DynamicConfigValue("custom.cellOptions", self.cell))
        if self.width:
            said.append(DynamicConfigValue("custom.width", self.width))
        if self.link:
            title, url = self.link
            said.append(DynamicConfigValue("links", [{"title": title, "url": url}]))
        return said

    @property
    def field(self) -> str:
        """What Grafana calls it before it has its title."""
        return f"Value #{self.source}" if self.reading else self.source


BAR_WIDTH = "5m"
"""At the least: $__rate_interval is never shorter than four scrapes, and of shorter bars several count one event."""

PAINTED = common.TableColoredBackgroundCellOptions(mode=common.TableCellBackgroundDisplayMode.BASIC)
BAR = common.TableBarGaugeCellOptions(
    mode=common.BarGaugeDisplayMode.BASIC, value_display_mode=common.BarGaugeValueMode.TEXT
)


def tile(title: str, description: str, expression: str, reading: Reading, legend: str = "") -> stat.Panel:
    """A big answer: the number of now, on its colour; several side by side, each with its name."""
    panel = (
        stat.Panel()
        .color_mode(common.BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(options.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if legend:
        panel.text_mode(common.BigValueTextMode.VALUE_AND_NAME)
    return _about(reading.to(panel), title, description, [_query("A", expression, legend).instant()]).height(4)


def timeline(title: str, description: str, expression: str, reading: Reading) -> statetimeline.Panel:
    """A band for each lock, with the words of its codes. Where nothing is known there is a gap.

    What is no known code has one tone: of several, Grafana's legend shows the numbers at which they begin in place of
    the words.
    """
    panel = (
        statetimeline.Panel()
        .show_value(common.VisibilityMode.AUTO)
        .merge_values(True)
        .row_height(0.8)
        .line_width(0)
        .fill_opacity(90)
        .legend(_legend())
        .tooltip(_tooltip())
    )
    return _about(reading.to(panel), title, description, [_query("A", expression, BY_NAME).range()]).height(8)


def lines(title: str, description: str, queries: Mapping[str, str], reading: Reading) -> timeseries.Panel:
    """Lines over time.

    Args:
        title: of the panel.
        description: what it shows, and what to do about it.
        queries: expressions by legend. One whose legend is known has a colour of its own; those of a legend with
            labels in it have Grafana's, and are as few as those are good for.
        reading: of all numbers.
    """
    panel = reading.to(
        timeseries.Panel()
        .draw_style(common.GraphDrawStyle.LINE)
        .line_width(2)
        .fill_opacity(0)
        .show_points(common.VisibilityMode.NEVER)
        .legend(_legend())
        .tooltip(_tooltip())
    )
    panel.color_scheme(builders.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    _colour(panel, [legend for legend in queries if "{{" not in legend])
    targets = [_query(_letter(index), each, legend).range() for index, (legend, each) in enumerate(queries.items())]
    return _about(panel, title, description, targets).height(8)


def bars(title: str, description: str, expression: str, legend: str, *, known: Iterable[str] = ()) -> timeseries.Panel:
    """What was counted in each interval, stacked; the series `known` beforehand have a colour each."""
    panel = Reading("none", decimals=0, least=0).to(
        timeseries.Panel()
        .draw_style(common.GraphDrawStyle.BARS)
        .line_width(0)
        .fill_opacity(90)
        .interval(BAR_WIDTH)
        .stacking(options.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
        .legend(_legend())
        .tooltip(_tooltip())
    )
    panel.color_scheme(builders.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    _colour(panel, known)
    return _about(panel, title, description, [_query("A", expression, legend).range()]).height(8)


def sheet(
    title: str,
    description: str,
    columns: Sequence[Column],
    queries: Mapping[str, str],
    order: Sequence[tuple[str, bool]],
) -> table.Panel:
    """A table of the values of now.

    Args:
        title: of the panel.
        description: what it shows, and what to do about it.
        columns: from left to right; what is none of them is left out.
        queries: expressions by name. Their rows become one where the labels they have in common are the same.
        order: fields to sort by, each with whether it is sorted downwards; the last counts first.
    """
    panel = table.Panel().cell_height(common.TableCellHeight.SM).filterable(True).align(common.FieldTextAlignment.LEFT)
    panel.no_value(NO_VALUE.text).unit("string")
    for column in columns:
        panel.override_by_name(column.title, column.properties())
    panel.with_transformation(_transformation("merge", {}))
    for name, downwards in order:
        panel.with_transformation(_transformation("sortBy", {"sort": [{"field": name, "desc": downwards}]}))
    names = [column.field for column in columns]
    panel.with_transformation(_transformation("filterFieldsByName", {"include": {"names": names}}))
    panel.with_transformation(
        _transformation(
            "organize",
            {
                "excludeByName": {},
                "indexByName": {name: index for index, name in enumerate(names)},
                "renameByName": {column.field: column.title for column in columns},
            },
        )
    )
    targets = [_query(name, each).instant().format(PromQueryFormat.TABLE) for name, each in queries.items()]
    return _about(panel, title, description, targets).span(24)


def _about(panel: AnyPanel, title: str, description: str, targets: Sequence[prometheus.Dataquery]) -> AnyPanel:
    panel.title(title).description(description).datasource(SOURCE)
    for target in targets:
        panel.with_target(target)
    return panel


def _transformation(name: str, how: dict[str, object]) -> DataTransformerConfig:
    return DataTransformerConfig(id_val=name, options=how)


def _query(name: str, expression: str, legend: str = "") -> prometheus.Dataquery:
    return prometheus.Dataquery().ref_id(name).expr(expression).legend_format(legend).datasource(SOURCE)


def _colour(panel: timeseries.Panel, names: Iterable[str]) -> None:
    for name, colour in zip(names, LINES, strict=False):
        fixed: dict[str, Any] = {"mode": FieldColorModeId.FIXED, "fixedColor": colour}
        panel.override_by_name(name, [DynamicConfigValue("color", fixed)])


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def _legend() -> options.VizLegendOptions:
    return (
        options.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs([])
    )


def _tooltip() -> options.VizTooltipOptions:
    return options.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
