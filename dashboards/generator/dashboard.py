"""Definition of a dashboard: its panels, variables, links and annotations."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import stat, statetimeline, table, text, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from .colours import LIGHT_GREY
from .documentation import LINKS
from .panels import help_panel
from .variables import DATA_SOURCE, LINKED_VARIABLES

TAG = "tedee"
"""Tag of all dashboards, for Grafana's search."""
DASHBOARD_URLS = {
    "Locks": "/d/tedee-locks",
    "Lock": "/d/tedee-lock",
    "Devices": "/d/tedee-devices",
    "Exporter": "/d/tedee-exporter",
}
"""URL of each dashboard, by the title of the links to it."""
SCHEMA_VERSION = 39
"""Schema version of Grafana 10.4. Later versions migrate it."""

REQUIRES = (
    {"type": "grafana", "id": "grafana", "name": "Grafana", "version": "10.4.0"},
    {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"},
)
"""Requirements that grafana.com lists, in addition to the types of the panels."""
COLUMNS = 24
"""Columns of Grafana's grid."""

AnyPanel = stat.Panel | timeseries.Panel | statetimeline.Panel | table.Panel | text.Panel


class AlertAnnotation(models.AnnotationQuery):
    """Starts of alerts on the time axes. The SDK has no fields for the options of Prometheus annotations."""

    def __init__(self, expression: str, *, hide: bool) -> None:
        super().__init__(
            name="Alerts", datasource=DATA_SOURCE, enable=True, hide=hide, icon_color=LIGHT_GREY, expr=expression
        )

    def to_json(self) -> dict[str, object]:
        """Return the annotation as an object for JSON."""
        return {
            **super().to_json(),
            # Recent versions of Grafana read the query from `target`, older versions from `expr`.
            "target": {"refId": "Anno", "expr": self.expr},
            "titleFormat": "{{alertname}}",
            "textFormat": "{{account}} {{lock_name}} {{instance}}",
            "tagKeys": "severity",
        }


@dataclass(frozen=True)
class PanelGroup:
    """Panels below one row title. The panels in a line have a total width of 24 grid columns."""

    panels: Sequence[AnyPanel]
    title: str | None = None
    folded: bool = False
    """True if the panels are shown, and their queries sent, only after a click on the title."""


@dataclass(frozen=True)
class Dashboard:
    """Definition of a dashboard."""

    uid: str
    title: str
    description: str
    time_range: str
    """Default time range up to now, such as `24h`."""
    variables: Sequence[models.VariableModel]
    alerts: str
    """Expression for the alerts that are marked on the time axes."""
    alert_toggle: bool = True
    """True if the marks can be switched off at the top of the dashboard."""
    groups: Sequence[PanelGroup] = field(default_factory=tuple)

    def build(self) -> models.Dashboard:
        """Return the dashboard as a model of the SDK."""
        builder = (
            builders.Dashboard(self.title)
            .uid(self.uid)
            .description(self.description)
            .tags([TAG, "prometheus"])
            .editable()
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .time(f"now-{self.time_range}", "now")
            .refresh("30s")
        )
        for title, url in DASHBOARD_URLS.items():
            if url != f"/d/{self.uid}":
                # The selected lock is not passed on: links out of the detail dashboard show all locks.
                query = "&".join(f"${{{name}:queryparam}}" for name in LINKED_VARIABLES)
                link = builders.DashboardLink(title).type(models.DashboardLinkType.LINK).icon("dashboard")
                builder.link(link.url(f"{url}?{query}").keep_time(True))
        for title, url in LINKS.items():
            link = builders.DashboardLink(title).type(models.DashboardLinkType.LINK).icon("external link")
            builder.link(link.url(url).target_blank(True))
        for group in (*self.groups, PanelGroup([help_panel()], "Help: no data, colours, changes", folded=True)):
            row = builders.Row(group.title or "").collapsed(group.folded)
            if group.title and not group.folded:
                builder.with_row(row)
            for panel in group.panels:
                if group.folded:
                    row.with_panel(panel)
                else:
                    builder.with_panel(panel)
            if group.folded:
                builder.with_row(row)
        dashboard = builder.build()
        dashboard.schema_version = SCHEMA_VERSION
        dashboard.templating.list_val = list(self.variables)
        dashboard.annotations.list_val = [AlertAnnotation(self.alerts, hide=not self.alert_toggle)]
        _place(dashboard.panels or [])
        for number, placed in enumerate(all_panels(dashboard), start=1):
            placed.id_val = number
        return dashboard

    def to_json(self) -> str:
        """Return the JSON that Grafana imports."""
        dashboard = self.build()
        types = sorted({panel.type_val for panel in all_panels(dashboard)} - {"row"})
        requires = [*REQUIRES, *({"type": "panel", "id": name, "name": name, "version": ""} for name in types)]
        content = {"__elements": {}, "__requires": requires, **dashboard.to_json()}
        return json.dumps(content, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


AnyModel = models.Panel | models.RowPanel


def all_panels(dashboard: models.Dashboard) -> Iterator[AnyModel]:
    """Yield all rows and panels, including the panels of folded rows."""
    for panel in dashboard.panels or []:
        yield panel
        if isinstance(panel, models.RowPanel):
            yield from panel.panels


def _place(panels: Iterable[AnyModel], y: int = 0) -> None:
    """Set the positions of the panels, line by line. The panels of a folded row take no space."""
    x = height = 0
    for panel in panels:
        if isinstance(panel, models.RowPanel):
            x, y, height = 0, y + height, 0
            panel.grid_pos = models.GridPos(h=1, w=COLUMNS, x=0, y=y)
            y += 1
            _place(panel.panels, y)
            continue
        size = panel.grid_pos or models.GridPos()
        if x + size.w > COLUMNS:
            x, y, height = 0, y + height, 0
        panel.grid_pos = models.GridPos(h=size.h, w=size.w, x=x, y=y)
        x, height = x + size.w, max(height, size.h)
        # The SDK sets the direction of a repetition, and no panel is repeated.
        panel.repeat_direction = None
