"""Converts snapshots to prometheus_client's metric families, and these to lines of text."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from exporter.sync.snapshot import Durations

from .catalogue import EXPORTER_METRICS, AnyMetric, ExporterStatus, Metric, Subject

_FAMILIES: Mapping[str, Callable[..., Any]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
    "info": InfoMetricFamily,
}

_SUFFIXES: Mapping[str, Sequence[str]] = {
    "counter": ("_total", "_created"),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
    "info": ("_info",),
}
"""What prometheus_client appends to the names of families in the names of their samples."""


def names_of(family: Family) -> frozenset[str]:
    """Return the name of a family, and the names that its samples may have."""
    return frozenset([family.name, *(family.name + suffix for suffix in _SUFFIXES.get(family.type, ()))])


def empty_family(metric: AnyMetric) -> Any:
    """Return a family of a metric without samples."""
    if metric.type == "info":  # prometheus_client adds `_info` to the name, and takes further labels from the value
        return InfoMetricFamily(metric.name.removesuffix("_info"), metric.help, labels=metric.SUBJECT_LABELS)
    return _FAMILIES[metric.type](metric.name, metric.help, labels=metric.labels)


def add_samples(family: Any, metric: Metric[Subject], labels: Sequence[str], subject: Subject) -> None:
    """Add the samples of a subject to a family.

    Args:
        family: Family of the metric.
        metric: The metric.
        labels: Values of the metric's `SUBJECT_LABELS`.
        subject: The lock, account or exporter.
    """
    match metric.value(subject):
        case None:
            return
        case Durations() as durations:
            buckets = [(floatToGoString(bound), count) for bound, count in durations.cumulative()]  # type: ignore[no-untyped-call]
            family.add_metric(labels, buckets, durations.total)
        case Mapping() as values if metric.type == "info":
            if values:
                family.add_metric(labels, values)
        case Mapping() as values:
            for own_labels, value in values.items():
                if value is not None:
                    family.add_metric((*labels, *own_labels), float(value))
        case value:
            family.add_metric(labels, float(value))


def build_families(
    metrics: Iterable[Metric[Subject]], subjects: Sequence[tuple[Sequence[str], Subject]]
) -> Iterator[Family]:
    """Yield the families that have samples.

    Args:
        metrics: Metrics of the subjects.
        subjects: Each with the values of the metrics' `SUBJECT_LABELS`.
    """
    for metric in metrics:
        family = empty_family(metric)
        for labels, subject in subjects:
            add_samples(family, metric, labels, subject)
        if family.samples:
            yield family


class FamilyCollector(Collector):
    """Collector of given families, which is what prometheus_client's encoders take."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        """Return the families."""
        return self._families


def sample_lines(family: Family) -> list[bytes]:
    """Return a line for each sample of a family, including the newline. It is the same in both formats."""
    # splitlines() would also split at characters that are not escaped in label values. The first two lines are HELP
    # and TYPE.
    return [line + b"\n" for line in generate_latest(FamilyCollector([family])).split(b"\n")[2:-1]]


class ExporterCollector(Collector):
    """Collector of the exporter's own metrics."""

    def __init__(
        self,
        version: str,
        reloaded: Callable[[], tuple[bool, float]],
        state_usable: Callable[[], bool | None],
        log_lines_dropped: Callable[[], int] = int,
    ) -> None:
        """Create a collector.

        Args:
            version: Version of the exporter.
            reloaded: Returns whether the last load of the configuration succeeded, and the time of the last successful
                one (Unix seconds).
            state_usable: Returns whether the state file can be used; None if there is none.
            log_lines_dropped: Returns the number of log lines that were not written.
        """
        self._version = version
        self._reloaded = reloaded
        self._state_usable = state_usable
        self._log_lines_dropped = log_lines_dropped

    def collect(self) -> Iterator[Family]:
        """Return the families with current values."""
        status = ExporterStatus(
            self._version,
            platform.python_version(),
            *self._reloaded(),
            self._state_usable(),
            self._log_lines_dropped(),
        )
        return build_families(EXPORTER_METRICS, [((), status)])
