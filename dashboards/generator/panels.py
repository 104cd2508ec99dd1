"""Builders of the panel types, with the options that all panels of a type share."""

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

from .colours import LINE_COLOURS, SEVERITY_COLOURS
from .value_mappings import NO_VALUE, UNKNOWN_CODE_UNIT, Display, ValueTexts, value_mappings
from .variables import DATA_SOURCE

ValuePanel = TypeVar("ValuePanel", stat.Panel, timeseries.Panel, statetimeline.Panel)
AnyPanel = TypeVar("AnyPanel", stat.Panel, timeseries.Panel, statetimeline.Panel, table.Panel)

LOCK_LEGEND = "{{lock_name}} · {{account}}"
"""Legend of series of locks. Names alone are not unique."""

Thresholds = Sequence[tuple[float | None, str]]
"""Severity of the values from each number up. The first number is None, which is minus infinity."""


@dataclass(frozen=True)
class ValueFormat:
    """How the values of a panel or column are shown."""

    unit: str = UNKNOWN_CODE_UNIT
    """Grafana's name of the unit."""
    texts: ValueTexts = field(default_factory=dict)
    """Texts of codes. Other codes are shown as numbers."""
    text_above: Display | None = None
    """Text of all numbers above the codes."""
    thresholds: Thresholds = ((None, "quiet"),)
    """The first one is also the colour of a missing value, and therefore quiet if values can be missing."""
    decimals: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    no_value: str = NO_VALUE.text
    """Text of a missing value."""

    def apply_to(self, panel: ValuePanel) -> ValuePanel:
        """Use this format for all values of a panel. Returns the panel."""
        panel.unit(self.unit).no_value(self.no_value).thresholds(self._thresholds())
        panel.color_scheme(builders.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        if self.texts:
            panel.mappings(value_mappings(self.texts, self.text_above))
        if self.decimals is not None:
            panel.decimals(self.decimals)
        if self.minimum is not None:
            panel.min(self.minimum)
        if self.maximum is not None:
            panel.max(self.maximum)
        return panel

    def properties(self) -> list[DynamicConfigValue]:
        """Return the format as an override for one column of a table."""
        properties: dict[str, object] = {
            "unit": self.unit,
            "noValue": self.no_value,
            "thresholds": self._thresholds().build(),
            "color": {"mode": FieldColorModeId.THRESHOLDS},
            "mappings": value_mappings(self.texts, self.text_above) if self.texts else None,
            "decimals": self.decimals,
            "min": self.minimum,
            "max": self.maximum,
        }
        return [DynamicConfigValue(key, value) for key, value in properties.items() if value is not None]

    def _thresholds(self) -> builders.ThresholdsConfig:
        steps = [Threshold(value, SEVERITY_COLOURS[severity]) for value, severity in self.thresholds]
        return builders.ThresholdsConfig().steps(steps)


@dataclass(frozen=True)
class Column:
    """Column of a table."""

    source: str
    """Name of a label, or of a query for the column's values."""
    title: str
    value_format: ValueFormat | None = None
    """None for a label."""
    cell: common.TableCellOptions | None = None
    width: int | None = None
    link: tuple[str, str] | None = None
    """Title and URL."""

    def properties(self) -> list[DynamicConfigValue]:
        """Return Grafana's override for the column."""
        properties = self.value_format.properties() if self.value_format else []
        if self.cell:
            properties.append(DynamicConfigValue("custom.cellOptions", self.cell))
        if self.width:
            properties.append(DynamicConfigValue("custom.width", self.width))
        if self.link:
            title, url = self.link
            properties.append(DynamicConfigValue("links", [{"title": title, "url": url}]))
        return properties

    @property
    def field(self) -> str:
        """Grafana's name of the field before it is renamed to the title."""
        return f"Value #{self.source}" if self.value_format else self.source


MIN_BAR_WIDTH = "5m"
"""$__rate_interval is at least four scrape intervals long. If bars were shorter, several would count the same event."""

COLOURED_CELL = common.TableColoredBackgroundCellOptions(mode=common.TableCellBackgroundDisplayMode.BASIC)
GAUGE_CELL = common.TableBarGaugeCellOptions(
    mode=common.BarGaugeDisplayMode.BASIC, value_display_mode=common.BarGaugeValueMode.TEXT
)


def stat_panel(
    title: str, description: str, expression: str, value_format: ValueFormat, legend: str = ""
) -> stat.Panel:
    """Build a panel with the current value on a coloured background. With a legend, each series has its name."""
    panel = (
        stat.Panel()
        .color_mode(common.BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(options.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if legend:
        panel.text_mode(common.BigValueTextMode.VALUE_AND_NAME)
    return _with_queries(
        value_format.apply_to(panel), title, description, [_query("A", expression, legend).instant()]
    ).height(4)


def timeline_panel(title: str, description: str, expression: str, value_format: ValueFormat) -> statetimeline.Panel:
    """Build a panel with a band for each lock, with the texts of its codes and gaps for missing values.

    The format must have a single threshold. With several, Grafana's legend shows the thresholds instead of the texts.
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
    return _with_queries(
        value_format.apply_to(panel), title, description, [_query("A", expression, LOCK_LEGEND).range()]
    ).height(8)


def line_panel(title: str, description: str, queries: Mapping[str, str], value_format: ValueFormat) -> timeseries.Panel:
    """Build a panel with lines over time.

    Args:
        title: title of the panel.
        description: what the panel shows, and what to do about it.
        queries: expressions by legend. A fixed legend gets a fixed colour. Series of a legend with labels get the
            colours of Grafana's palette, and the expression must limit them to MAX_SERIES.
        value_format: format of all values.
    """
    panel = value_format.apply_to(
        timeseries.Panel()
        .draw_style(common.GraphDrawStyle.LINE)
        .line_width(2)
        .fill_opacity(0)
        .show_points(common.VisibilityMode.NEVER)
        .legend(_legend())
        .tooltip(_tooltip())
    )
    panel.color_scheme(builders.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    _set_colours(panel, [legend for legend in queries if "{{" not in legend])
    targets = [
        _query(_letter(index), expression, legend).range() for index, (legend, expression) in enumerate(queries.items())
    ]
    return _with_queries(panel, title, description, targets).height(8)


def bar_panel(
    title: str, description: str, expression: str, legend: str, *, known: Iterable[str] = ()
) -> timeseries.Panel:
    """Build a panel with stacked bars of the events in each interval. The series in `known` get fixed colours."""
    panel = ValueFormat("none", decimals=0, minimum=0).apply_to(
        timeseries.Panel()
        .draw_style(common.GraphDrawStyle.BARS)
        .line_width(0)
        .fill_opacity(90)
        .interval(MIN_BAR_WIDTH)
        .stacking(options.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
        .legend(_legend())
        .tooltip(_tooltip())
    )
    panel.color_scheme(builders.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    _set_colours(panel, known)
    return _with_queries(panel, title, description, [_query("A", expression, legend).range()]).height(8)


def table_panel(
    title: str,
    description: str,
    columns: Sequence[Column],
    queries: Mapping[str, str],
    order: Sequence[tuple[str, bool]],
) -> table.Panel:
    """Build a table of current values.

    Args:
        title: title of the panel.
        description: what the panel shows, and what to do about it.
        columns: columns from left to right. Other fields are hidden.
        queries: expressions by name. Rows are merged if the labels that all queries share are equal.
        order: fields to sort by, each with True for descending order. The last one takes precedence.
    """
    panel = table.Panel().cell_height(common.TableCellHeight.SM).filterable(True).align(common.FieldTextAlignment.LEFT)
    panel.no_value(NO_VALUE.text).unit("string")
    for column in columns:
        panel.override_by_name(column.title, column.properties())
    panel.with_transformation(_transformation("merge", {}))
    for name, descending in order:
        panel.with_transformation(_transformation("sortBy", {"sort": [{"field": name, "desc": descending}]}))
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
    targets = [_query(name, expression).instant().format(PromQueryFormat.TABLE) for name, expression in queries.items()]
    return _with_queries(panel, title, description, targets).span(24)


def _with_queries(panel: AnyPanel, title: str, description: str, targets: Sequence[prometheus.Dataquery]) -> AnyPanel:
    panel.title(title).description(description).datasource(DATA_SOURCE)
    for target in targets:
        panel.with_target(target)
    return panel


def _transformation(name: str, settings: dict[str, object]) -> DataTransformerConfig:
    return DataTransformerConfig(id_val=name, options=settings)


def _query(name: str, expression: str, legend: str = "") -> prometheus.Dataquery:
    return prometheus.Dataquery().ref_id(name).expr(expression).legend_format(legend).datasource(DATA_SOURCE)


def _set_colours(panel: timeseries.Panel, names: Iterable[str]) -> None:
    for name, colour in zip(names, LINE_COLOURS, strict=False):
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
