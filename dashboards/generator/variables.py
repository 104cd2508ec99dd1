"""The variables: what a dashboard is about. Each takes its values from the ones before it, none is written down."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    VariableHide,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from exporter.metrics import catalogue

from .queries import ACCOUNTS, EXPORTERS, LOCK_MEMORY, of

SOURCE = DataSourceRef("prometheus", "${datasource}")
KEPT = ("datasource", "job", "instance", "account")
"""What stays chosen from one dashboard to the next."""
ALL = VariableOption(selected=True, text=["All"], value=["$__all"])


def source() -> VariableModel:
    """The data source. The one variable that has one value: Grafana asks only the first of several."""
    return builders.DatasourceVariable("datasource").label("Data source").type("prometheus").build()


def jobs() -> VariableModel:
    """Prometheus' jobs."""
    return _chosen("job", "Job", f"label_values({catalogue.BUILD_INFO.name}, job)")


def instances() -> VariableModel:
    """The exporters."""
    exporters = of(catalogue.BUILD_INFO, 'job=~"$job"')
    return _chosen("instance", "Instance", f"label_values({exporters}, instance)")


def accounts() -> VariableModel:
    """The exporters' accounts."""
    return _chosen("account", "Account", f"label_values({of(catalogue.UP, EXPORTERS)}, account)")


def locks() -> VariableModel:
    """The accounts' locks, by name and account; the value is the id. A renamed one has its new name alone."""
    revision = of(catalogue.LOCK_REVISION, ACCOUNTS)  # which every lock has
    by = "group by (lock_id, account, lock_name)"
    every = f"{by} ({revision}) or on (lock_id) {by} (last_over_time({revision}[{LOCK_MEMORY}]))"
    query = f'group by (lock_id, lock_name) (label_join({every}, "lock_name", " · ", "lock_name", "account"))'
    # Grafana writes labels as they are, without escapes: a name may hold quotes, backslashes and newlines.
    name = r'/lock_id="(?<value>\d+)",lock_name="(?<text>[\s\S]*)"} /'
    variable = _chosen("lock", "Lock", f"query_result({query})")
    variable.regex = name
    return variable


def shown(query: str, label: str) -> VariableModel:
    """What of the chosen is shown, that no panel gets thousands of series: a hidden variable, always at All.

    Args:
        query: gives one series each.
        label: whose values they are; the series have no other.
    """
    variable = _chosen("shown", "Shown", f"query_result({query})")
    variable.regex = f'/{label}="([\\s\\S]*)"}} /'
    variable.hide = VariableHide.HIDE_VARIABLE
    variable.skip_url_sync = True
    # Written out in the queries, one by one.
    variable.all_value = None
    return variable


def chain(*variables: VariableModel) -> Sequence[VariableModel]:
    """The variables that all dashboards have, and then those."""
    return (source(), jobs(), instances(), accounts(), *variables)


def _chosen(name: str, label: str, query: str) -> VariableModel:
    # Grafana's linter wants variables anew with the time range, which every refresh moves: they are to cost little.
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
        .multi(True)
        .include_all(True)
        # All is this one pattern, not thousands of names in one.
        .all_value(".+")
        .current(ALL)
        .build()
    )
