"""Recording of two replicas that share a database, made from the recording of one exporter."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from .expected import Samples
from .scripted_day import END, HOUR, Recording

SECOND = "10.0.0.2:10333"
"""Instance of the second replica."""
DOWN = (END - 3 * HOUR + 300, END - HOUR)
"""When the second replica is down, after which it starts again."""
CALLS = (END - 12 * HOUR, END - 6 * HOUR)
"""When the second replica makes the calls. The first one makes them before and afterwards."""
OWN_COUNTERS = (
    "tedee_api_requests_total",
    "tedee_rejected_values_total",
    "tedee_sync_duration_seconds_bucket",
    "tedee_sync_duration_seconds_count",
    "tedee_sync_duration_seconds_sum",
    "tedee_sync_failures_total",
)
"""Metrics that count what a replica did itself."""


def record(folder: Path, recorded: Mapping[str, Sequence[Samples]]) -> Path:
    """Record the series of one exporter as those of two replicas, of which one makes the calls at a time."""
    recording = Recording(folder / "replicas.om")
    for metric, series in recorded.items():
        for each in series:
            if "instance" not in each.labels or metric.startswith("ALERTS"):
                _add(recording, metric, each)
                continue
            first = each._replace(labels={**each.labels, "pod": "exporter-1"})
            second = each._replace(labels={**each.labels, "pod": "exporter-2", "instance": SECOND})
            if metric in OWN_COUNTERS:
                first, second = _divided(first, second)
            _add(recording, metric, first)
            _add(recording, metric, _with_restart(metric, second))
    recording.close()
    return recording.path


def _divided(first: Samples, second: Samples) -> tuple[Samples, Samples]:
    """Return the series of both replicas of a counter whose sum is that of one exporter, apart from a constant."""
    values = dict(zip(first.times, first.values, strict=True))
    begin, end = (first.last(at, math.inf) or 0.0 for at in CALLS)
    calls = [min(max(value, begin), end) for value in values.values()]
    others = [value - called + begin for value, called in zip(values.values(), calls, strict=True)]
    return first._replace(values=others), second._replace(values=calls)


def _with_restart(metric: str, samples: Samples) -> Samples:
    """Return the series of a replica that is down for some time, and has counted nothing itself when it is back."""
    served = []
    at_restart = 0.0
    for at, value in zip(samples.times, samples.values, strict=True):
        if at < DOWN[0]:
            served.append((at, value))
        elif at < DOWN[1]:
            at_restart = value
            if metric == "up":
                served.append((at, 0.0))
        else:
            counts_itself = metric in {*OWN_COUNTERS, "lock_state_changes_total"}
            served.append((at, value - at_restart if counts_itself else value))
    return samples._replace(times=[at for at, _ in served], values=[value for _, value in served])


def _add(recording: Recording, metric: str, samples: Samples) -> None:
    labels = {
        name: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        for name, value in samples.labels.items()
    }
    for at, value in zip(samples.times, samples.values, strict=True):
        recording.add_sample(metric, labels, value, at)
