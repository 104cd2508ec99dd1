"""Builders of the panel types, with the options that all panels of a type share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, text, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

from . import documentation
from .colours import LINE_COLOURS, SEVERITY_COLOURS, TRANSPARENT
from .value_mappings import NO_VALUE, UNKNOWN_CODE_UNIT, Display, LabelTexts, ValueTexts, value_mappings
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
    """The first one is also the colour of a missing value in a stat panel, and therefore quiet. In a table, cells
    without a value have no colour."""
    decimals: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    no_value: str = NO_VALUE.text
    """Text of a missing value in a stat panel or a table. Other panels show Grafana's "No data"."""

    def apply_to(self, panel: ValuePanel) -> ValuePanel:
        """Use this format for all values of a panel. Returns the panel."""
        panel.unit(self.unit).thresholds(self._thresholds(SEVERITY_COLOURS[self.thresholds[0][1]]))
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
            "thresholds": self._thresholds(TRANSPARENT).build(),
            "color": {"mode": FieldColorModeId.THRESHOLDS},
            "mappings": value_mappings(self.texts, self.text_above) if self.texts else None,
            "decimals": self.decimals,
            "min": self.minimum,
            "max": self.maximum,
            # Otherwise the bars would be relative to the highest value of all columns.
            "fieldMinMax": self.maximum is None or None,
        }
        return [DynamicConfigValue(key, value) for key, value in properties.items() if value is not None]

    def _thresholds(self, first: str) -> builders.ThresholdsConfig:
        """Return the thresholds. The first colour is also that of a missing value."""
        (start, _), *others = self.thresholds
        steps = [Threshold(value, SEVERITY_COLOURS[severity]) for value, severity in others]
        return builders.ThresholdsConfig().steps([Threshold(start, first), *steps])


@dataclass(frozen=True)
class Column:
    """Column of a table."""

    source: str
    """Name of a label, or of a query for the column's values."""
    title: str
    value_format: ValueFormat | None = None
    """None for a label."""
    texts: LabelTexts = field(default_factory=dict)
    """Text and severity of the values of a label."""
    cell: common.TableCellOptions | None = None
    width: int | None = None
    """Width in pixels. None for the column that gets the remaining width."""
    min_width: int | None = None
    """Minimum width in pixels of a column without a width. Grafana's default is 150."""
    filterable: bool = False
    hidden: bool = False
    """True for a column that is only used in links."""
    link: tuple[str, str] | None = None
    """Title and URL."""
    no_label: str = NO_VALUE.text
    """Text of a missing label. That of a missing value is in the format."""

    def properties(self) -> list[DynamicConfigValue]:
        """Return Grafana's override for the column."""
        properties = self.value_format.properties() if self.value_format else self._label_properties()
        options: dict[str, object] = {
            "custom.cellOptions": self.cell,
            "custom.width": self.width,
            "custom.minWidth": self.min_width,
            "custom.filterable": self.filterable or None,
            # The first option is for Grafana before 12.2, the second one for later versions.
            "custom.hidden": self.hidden or None,
            "custom.hideFrom": {"viz": True, "legend": False, "tooltip": False} if self.hidden else None,
        }
        if self.link:
            title, url = self.link
            options["links"] = [{"title": title, "url": url, "targetBlank": url.startswith("https:")}]
        properties += [DynamicConfigValue(key, value) for key, value in options.items() if value is not None]
        return properties

    def _label_properties(self) -> list[DynamicConfigValue]:
        properties: dict[str, object] = {"noValue": self.no_label}
        if self.texts:
            properties["mappings"] = value_mappings(self.texts)
            properties["thresholds"] = builders.ThresholdsConfig().steps([Threshold(None, TRANSPARENT)]).build()
        return [DynamicConfigValue(key, value) for key, value in properties.items()]

    @property
    def field(self) -> str:
        """Grafana's name of the field before it is renamed to the title."""
        return f"Value #{self.source}" if self.value_format else self.source


MIN_STEP = "1m"
"""Minimum step of rates. Grafana takes it for the scrape interval too, so that rates have data if Prometheus scrapes
once a minute and the data source has its default setting of 15 seconds."""
MIN_BAR_WIDTH = "5m"
"""$__rate_interval is at least four scrape intervals long. If bars were shorter, several would count the same event."""

DAY_WIDTH = 50
"""Minimum width in pixels of the column of a day, the smallest that Grafana allows."""
HOURS_HEIGHT = 26
"""Height of a table with a row for each hour."""
AXIS_OF_EVENTS = 5
"""Minimum length of an axis of events. Without it, the axis of an empty panel would go to 100."""

COLOURED_CELL = common.TableColoredBackgroundCellOptions(mode=common.TableCellBackgroundDisplayMode.BASIC)


def stat_panel(title: str, description: str, expression: str, value_format: ValueFormat) -> stat.Panel:
    """Build a panel with the current value on a coloured background."""
    panel = (
        stat.Panel()
        .color_mode(common.BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(options.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    panel.no_value(value_format.no_value).color_scheme(builders.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    return _with_queries(value_format.apply_to(panel), title, description, [_query("A", expression).instant()]).height(
        3
    )


def timeline_panel(
    title: str, description: str, expression: str, value_format: ValueFormat, legend: str = LOCK_LEGEND
) -> statetimeline.Panel:
    """Build a panel with a band for each lock or other device, with the texts of its codes and gaps for missing values.

    The colour mode is "fixed": with "thresholds", Grafana shows the threshold instead of the text of each code. Unknown
    codes have the fixed colour, that of the last threshold.
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
    _, severity = value_format.thresholds[-1]
    fixed = builders.FieldColor().mode(FieldColorModeId.FIXED).fixed_color(SEVERITY_COLOURS[severity])
    value_format = replace(value_format, thresholds=((None, severity),))
    return _with_queries(
        value_format.apply_to(panel).color_scheme(fixed),
        title,
        description,
        [_query("A", expression, legend).range()],
    ).height(8)


def line_panel(
    title: str, description: str, queries: Mapping[str, str], value_format: ValueFormat, *, steps: bool = False
) -> timeseries.Panel:
    """Build a panel with lines over time.

    Args:
        title: title of the panel.
        description: what the panel shows, and what to do about it.
        queries: expressions by legend. A fixed legend gets a fixed colour. Series of a legend with labels get the
            colours of Grafana's palette, and the expression must limit them to MAX_SERIES.
        value_format: format of all values.
        steps: True for values that change in steps, such as counts.
    """
    panel = value_format.apply_to(
        timeseries.Panel()
        .draw_style(common.GraphDrawStyle.LINE)
        .line_width(2)
        .fill_opacity(0)
        .show_points(common.VisibilityMode.AUTO)
        .line_interpolation(common.LineInterpolation.STEP_AFTER if steps else common.LineInterpolation.LINEAR)
        .legend(_legend())
        .tooltip(_tooltip())
    )
    panel.color_scheme(builders.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    _set_colours(panel, [legend for legend in queries if "{{" not in legend])
    targets = [
        _query(_letter(index), expression, legend).range() for index, (legend, expression) in enumerate(queries.items())
    ]
    for target, expression in zip(targets, queries.values(), strict=True):
        if "$__rate_interval" in expression:
            target.interval(MIN_STEP)
    return _with_queries(panel, title, description, targets).height(8)


def bar_panel(
    title: str,
    description: str,
    expression: str,
    legend: str,
    *,
    known: Iterable[str] = (),
    width: str = MIN_BAR_WIDTH,
    no_data: str | None = None,
) -> timeseries.Panel:
    """Build a panel with stacked bars of the events in each interval.

    Args:
        title: title of the panel.
        description: what the panel shows, and what to do about it.
        expression: expression for the number of events.
        legend: legend of each series.
        known: legends that get fixed colours.
        width: minimum width of a bar.
        no_data: text if there are no series. None for Grafana's text.
    """
    panel = ValueFormat("none", decimals=0, minimum=0).apply_to(
        timeseries.Panel()
        .draw_style(common.GraphDrawStyle.BARS)
        .line_width(0)
        .fill_opacity(90)
        .axis_soft_max(AXIS_OF_EVENTS)
        .interval(width)
        .stacking(options.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
        .legend(_legend())
        .tooltip(_tooltip())
    )
    panel.color_scheme(builders.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    _set_colours(panel, known)
    if no_data:
        panel.no_value(no_data)
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
    panel = table.Panel().cell_height(common.TableCellHeight.SM).align(common.FieldTextAlignment.LEFT)
    panel.unit("string")
    for column in columns:
        panel.override_by_name(column.title, column.properties())
    # Grafana does not add the name of the query to the field if it is the only query.
    suffix = f" #{next(iter(queries))}" if len(queries) == 1 else ""
    titles = {column.field.removesuffix(suffix): column.title for column in columns}
    panel.with_transformation(_transformation("merge", {}))
    for name, descending in order:
        panel.with_transformation(_sorted(name.removesuffix(suffix), descending))
    panel.with_transformation(_transformation("filterFieldsByName", {"include": {"names": list(titles)}}))
    panel.with_transformation(_organized(titles))
    targets = [_query(name, expression).instant().format(PromQueryFormat.TABLE) for name, expression in queries.items()]
    return _with_queries(panel, title, description, targets).span(24)


def hours_panel(title: str, description: str, expression: str, shown: str, days: int) -> table.Panel:
    """Build a table with a row for each hour and a column for each day, with a darker cell for a higher value.

    Args:
        title: title of the panel.
        description: what the panel shows.
        expression: expression for the value of the hour that begins at the time of evaluation.
        shown: expression for any number at all hours to show, also at those without a value.
        days: days up to now, whatever the time range of the dashboard is.
    """
    panel = table.Panel().cell_height(common.TableCellHeight.SM).align(common.FieldTextAlignment.CENTER)
    panel.unit("none").decimals(0).min(0).cell_options(COLOURED_CELL).min_width(DAY_WIDTH)
    panel.color_scheme(builders.FieldColor().mode(FieldColorModeId.CONTINUOUS_BLUES))
    hour = [
        DynamicConfigValue("custom.width", 55),
        DynamicConfigValue("custom.cellOptions", common.TableAutoCellOptions()),
    ]
    panel.override_by_name("Hour", hour)
    as_time: dict[str, object] = {
        "conversions": [{"targetField": "Value #day", "destinationType": "time"}],
        "fields": {},
    }
    # Grafana formats the times in the time zone of the dashboard, which PromQL does not know.
    steps: list[tuple[str, dict[str, object]]] = [
        ("merge", {}),
        ("convertFieldType", as_time),
        ("formatTime", {"timeField": "Time", "outputFormat": "HH", "useTimezone": True}),
        ("formatTime", {"timeField": "Value #day", "outputFormat": "ddd D", "useTimezone": True}),
        (
            "groupingToMatrix",
            {"columnField": "Value #day", "rowField": "Time", "valueField": "Value #value", "emptyValue": "null"},
        ),
    ]
    for name, settings in steps:
        panel.with_transformation(_transformation(name, settings))
    panel.with_transformation(_organized({"Time\\Value #day": "Hour"}))
    panel.with_transformation(_sorted("Hour", descending=False))
    # The first query has all hours. The columns are in the order in which the days appear.
    queries = {"day": f"0 * {shown} + 1000 * time()", "value": expression}
    targets = [
        _query(name, query).range().interval("1h").format(PromQueryFormat.TABLE) for name, query in queries.items()
    ]
    panel = _with_queries(panel, title, description, targets)
    return panel.time_from(f"{days}d").interval("1h").span(12).height(HOURS_HEIGHT)


def help_panel() -> text.Panel:
    """Build the panel of the row "Help"."""
    return text.Panel().title("Help").mode(TextMode.MARKDOWN).content(documentation.TEXT).span(24).height(13)


def _with_queries(panel: AnyPanel, title: str, description: str, targets: Sequence[prometheus.Dataquery]) -> AnyPanel:
    panel.title(title).description(description).datasource(DATA_SOURCE)
    for target in targets:
        panel.with_target(target)
    return panel


def _transformation(name: str, settings: dict[str, object]) -> DataTransformerConfig:
    return DataTransformerConfig(id_val=name, options=settings)


def _sorted(name: str, descending: bool) -> DataTransformerConfig:
    return _transformation("sortBy", {"sort": [{"field": name, "desc": descending}]})


def _organized(titles: Mapping[str, str]) -> DataTransformerConfig:
    """Return the transformation that orders and renames the fields of a table."""
    order = {name: index for index, name in enumerate(titles)}
    return _transformation("organize", {"excludeByName": {}, "indexByName": order, "renameByName": dict(titles)})


def _query(name: str, expression: str, legend: str = "") -> prometheus.Dataquery:
    return prometheus.Dataquery().ref_id(name).expr(expression).legend_format(legend).datasource(DATA_SOURCE)


def _set_colours(panel: timeseries.Panel, names: Iterable[str]) -> None:
    for name, colour in zip(names, LINE_COLOURS, strict=False):
        fixed: dict[str, Any] = {"mode": FieldColorModeId.FIXED, "fixedColor": colour}
        panel.override_by_name(name, [DynamicConfigValue("color", fixed)])


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def legend_with_sums() -> options.VizLegendOptions:
    """Return a legend that shows the sum of each series, so that series without events do not look like events."""
    return _legend().display_mode(common.LegendDisplayMode.TABLE).placement(common.LegendPlacement.RIGHT).calcs(["sum"])


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
