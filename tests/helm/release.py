"""Renders the chart with the Helm engine."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

from helm.refresh import CHART

Values = Mapping[str, Any]
Object = dict[str, Any]

CI = sorted((CHART / "ci").glob("*-values.yaml"))
NAMES = [path.name.removesuffix("-values.yaml") for path in CI]
HOME: Values = {"keys": {"home": "key-of-home"}}
"""The minimal values."""


@dataclass(frozen=True)
class Release:
    """The objects and notes of the chart for some values."""

    objects: list[Object]
    notes: str

    def all(self, kind: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Object:
        (only,) = [each for each in self.all(kind) if name in {None, each["metadata"]["name"]}]
        return only

    @property
    def pod(self) -> Object:
        """The pod template of the Deployment."""
        pod: Object = self.one("Deployment")["spec"]["template"]
        return pod

    @property
    def containers(self) -> list[Object]:
        """The init containers, followed by the exporter's container."""
        return [*self.pod["spec"].get("initContainers", ()), self.container]

    @property
    def container(self) -> Object:
        only: Object
        (only,) = [each for each in self.pod["spec"]["containers"] if each["name"] == "exporter"]
        return only

    @property
    def config(self) -> str:
        """The exporter's configuration file."""
        text: str = self.one("ConfigMap")["data"]["tedee-exporter.yml"]
        return text


def values_of(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return values


@cache
def chart(path: Path = CHART) -> helm_python.Chart:
    return helm_python.Chart.load(path)


def release(
    values: Values = HOME, *, name: str = "tedee-exporter", namespace: str = "locks", path: Path = CHART
) -> Release:
    """Render the chart without a cluster.

    Raises:
        helm_python.HelmError: the chart refuses the values.
    """
    rendered = chart(path).render(dict(values), name=name, namespace=namespace)
    notes = next(text for template, text in rendered.items() if template.endswith("NOTES.txt"))
    manifests = [text for template, text in rendered.items() if template.endswith(".yaml")]
    objects = [each for text in manifests for each in yaml.load_all(text, _Loader) if each is not None]
    return Release(objects, notes)


class _Loader(yaml.CSafeLoader):
    """A YAML loader that rejects duplicate keys, as Kubernetes does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep)
        assert len(mapping) == len(node.value), f"duplicate key:\n{node.start_mark}"
        return mapping
