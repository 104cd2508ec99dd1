"""Dashboard variables. The values of each variable depend on the variables before it; no value is hard-coded."""

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

from .queries import ACCOUNTS, EXPORTERS, LOCK_LOOKBACK, series

DATA_SOURCE = DataSourceRef("prometheus", "${datasource}")
LINKED_VARIABLES = ("datasource", "job", "instance", "account")
"""Variables whose values are passed on by the links between dashboards."""
ALL = VariableOption(selected=True, text=["All"], value=["$__all"])


def data_source() -> VariableModel:
    """Return the data source variable. It has a single value: Grafana would query only the first of several."""
    # Without a value, Grafana would select the first Prometheus by name instead of the default data source.
    default = VariableOption(selected=False, text="default", value="default")
    variable = builders.DatasourceVariable("datasource").label("Data source").type("prometheus").current(default)
    return _without_intervals(variable.build())


def jobs() -> VariableModel:
    """Return the variable for Prometheus jobs."""
    return _query_variable("job", "Job", f"label_values({catalogue.BUILD_INFO.name}, job)")


def instances() -> VariableModel:
    """Return the variable for exporter instances."""
    exporters = series(catalogue.BUILD_INFO, 'job=~"$job"')
    return _query_variable("instance", "Instance", f"label_values({exporters}, instance)")


def accounts() -> VariableModel:
    """Return the variable for accounts."""
    return _query_variable("account", "Account", f"label_values({series(catalogue.UP, EXPORTERS)}, account)")


def locks() -> VariableModel:
    """Return the variable for locks. Its text is the newest name with the account, its value is the id."""
    revision = series(catalogue.LOCK_REVISION, ACCOUNTS)  # the one metric that every lock has
    by = "group by (lock_id, account, lock_name)"
    all_locks = f"{by} ({revision}) or on (lock_id) {by} (last_over_time({revision}[{LOCK_LOOKBACK}]))"
    query = f'group by (lock_id, lock_name) (label_join({all_locks}, "lock_name", " · ", "lock_name", "account"))'
    variable = _query_variable("lock", "Lock", f"query_result({query})")
    # Grafana does not escape label values: a name may contain quotes, backslashes and newlines.
    variable.regex = r'/lock_id="(?<value>\d+)",lock_name="(?<text>[\s\S]*)"} /'
    return variable


def shown(query: str, label: str) -> VariableModel:
    """Return the hidden variable that limits the number of series in a panel.

    Args:
        query: returns one series for each value, with no other label.
        label: the label that has the value.
    """
    return _hidden_variable("shown", query, label)


def missing(query: str) -> VariableModel:
    """Return the hidden variable with the accounts that were reported before but have no data now.

    Queries that use it are short, and the expensive query runs once for all panels.
    """
    return _hidden_variable("missing", query, "account")


def _hidden_variable(name: str, query: str, label: str) -> VariableModel:
    """Return a variable that is always set to All."""
    variable = _query_variable(name, name.title(), f"query_result({query})")
    variable.regex = f'/{label}="([\\s\\S]*)"}} /'
    variable.hide = VariableHide.HIDE_VARIABLE
    variable.skip_url_sync = True
    # All stands for the list of the values, not for a pattern that matches every value.
    variable.all_value = None
    return variable


def with_common_variables(*variables: VariableModel) -> Sequence[VariableModel]:
    """Return the variables of all dashboards, followed by the given ones."""
    return (data_source(), jobs(), instances(), accounts(), *variables)


def _query_variable(name: str, label: str, query: str) -> VariableModel:
    # Grafana's linter requires a refresh on each change of the time range, that is on each refresh of the dashboard:
    # the queries must be cheap.
    variable = (
        builders.QueryVariable(name)
        .label(label)
        .datasource(DATA_SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
        .multi(True)
        .include_all(True)
        # All stands for one pattern, not for a list of thousands of names.
        .all_value(".+")
        .current(ALL)
        .build()
    )
    return _without_intervals(variable)


def _without_intervals(variable: VariableModel) -> VariableModel:
    """Remove the options of another type of variable, which the SDK sets."""
    variable.auto = variable.auto_min = variable.auto_count = None
    return variable
