"""Generates parts of the chart: alerts, dashboards, version, memory, types of Kubernetes in the schema, README's table.

Run by `make chart`. Alerts and dashboards are copies, because a chart cannot contain files outside of its folder.
Symbolic links do not work: Flux ignores links in a checkout, and on Windows a link is a file with a path as content.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import yaml
from kubernetes_validate.utils import all_versions  # type: ignore[import-untyped]

from exporter import __version__

ROOT = Path(__file__).parent.parent
CHART = ROOT / "helm" / "tedee-exporter"
COPIES = CHART / "files"
REFERENCE = r"#/definitions/([A-Z]\w*)"
KUBERNETES = (
    "io.k8s.api.core.v1",
    "io.k8s.api.networking.v1",
    "io.k8s.apimachinery.pkg.api.resource",
    "io.k8s.apimachinery.pkg.apis.meta.v1",
    "io.k8s.apimachinery.pkg.util.intstr",
)
"""The API groups of Kubernetes whose types the schema uses."""


def generate() -> dict[Path, str]:
    """Return the content of each generated file."""
    values = with_measured_memory((CHART / "values.yaml").read_text("utf-8"))
    repository = yaml.safe_load(values)["image"]["repository"]
    files = {CHART / "values.yaml": values}
    files[COPIES / "tedee.rules.yml"] = (ROOT / "alerts" / "tedee.rules.yml").read_text("utf-8")
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        files[COPIES / "dashboards" / path.name] = path.read_text("utf-8")
    chart = (CHART / "Chart.yaml").read_text("utf-8")
    chart = re.sub(r"(?m)^(version|appVersion): .*", rf'\1: "{__version__}"', chart)
    files[CHART / "Chart.yaml"] = re.sub(r"(?m)^( +image): .*", rf"\1: {repository}:{__version__}", chart)
    schema = (CHART / "values.schema.json").read_text("utf-8")
    files[CHART / "values.schema.json"] = with_kubernetes_types(schema)
    readme = (CHART / "README.md").read_text("utf-8")
    before, begin, rest = readme.partition("<!-- made by: make chart -->\n")
    _, end, after = rest.partition("<!-- values: end -->\n")
    files[CHART / "README.md"] = before + begin + table(values) + end + after
    return files


def measured_memory() -> tuple[int, int]:
    """Return the memory with 10 and with 10,000 locks that docs/performance.md reports, in MiB."""
    text = (ROOT / "docs" / "performance.md").read_text("utf-8")
    few, many = (
        int(mib)
        for locks in ("10", "10,000")
        for mib in re.findall(rf"\| resident memory, {locks} locks \| (\d+) MiB of the tedee-exporter", text)
    )
    return few, many


def with_measured_memory(values: str) -> str:
    """Return values.yaml with the measured memory in the description of `resources`."""
    few, many = measured_memory()
    text = f"about {few} MiB with 10 locks and {many} MiB with 10,000"
    return re.sub(r"about \d+ MiB with 10 locks and \d+ MiB with 10,000", text, values)


def table(values: str) -> str:
    """Return a Markdown table of the values with defaults and descriptions."""
    rows = ["| value | default | description |", "|---|---|---|"]
    for name, default, description in documented_values(values):
        cells = (f"`{name}`", f"`{json.dumps(default)}`", description)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def with_kubernetes_types(schema: str) -> str:
    """Return the schema with definitions of the Kubernetes types that it refers to, of the newest installed version.

    The definitions are at the end, one per line. Only names of Kubernetes types begin with a capital letter.
    """
    own = re.split(r',?\n    "[A-Z]', schema)[0].removesuffix("\n  }\n}\n")
    api = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{all_versions()[-1]}-local-strict"
    known = json.loads((api / "_definitions.json").read_text("utf-8"))["$defs"]
    needed: dict[str, str] = {}
    pending = re.findall(REFERENCE, own)
    while pending:
        name = pending.pop()
        if name not in needed:
            full_name = next(f"{group}.{name}" for group in KUBERNETES if f"{group}.{name}" in known)
            needed[name] = json.dumps(_bare(known[full_name]))
            pending += re.findall(REFERENCE, needed[name])
    return ",\n".join([own, *(f'    "{name}": {needed[name]}' for name in sorted(needed))]) + "\n  }\n}\n"


def _bare(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a type without descriptions, formats and defaults."""
    bare: dict[str, Any] = {}
    for keyword, value in schema.items():
        match keyword, value:
            case "$ref", _:
                bare[keyword] = f"#/definitions/{value.rpartition('.')[2]}"
            case "properties", _:
                bare[keyword] = {name: _bare(each) for name, each in value.items()}
            case (("items" | "additionalProperties"), dict()):
                bare[keyword] = _bare(value)
            case "oneOf", _:
                bare[keyword] = [_bare(each) for each in value]
            case (("type" | "required" | "enum" | "additionalProperties"), _):
                bare[keyword] = value
    return bare


def documented_values(values: str) -> Iterator[tuple[str, Any, str]]:
    """Yield name, default and description of each value.

    Raises:
        ValueError: a value has no comment that begins with `# --`.
    """
    lines = values.splitlines()

    def walk(node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, Any, str]]:
        for key, value in node.value:
            name, description = f"{prefix}{key.value}", comment(lines[: key.start_mark.line])
            if description:
                yield name, yaml.safe_load(yaml.serialize(value)), description
            elif isinstance(value, yaml.MappingNode) and value.value:
                yield from walk(value, f"{name}.")
            else:
                raise ValueError(f"values.yaml has no description of {name}")

    root = yaml.compose(values)
    return walk(root, "") if isinstance(root, yaml.MappingNode) else iter(())


def comment(lines: list[str]) -> str:
    """Return the text after `# --` of the comment at the end of the lines. Returns "" if there is none."""
    words: list[str] = []
    for line in reversed(lines):
        text = line.strip()
        if not text.startswith("#"):
            break
        words.insert(0, text.lstrip("# "))
        if words[0].startswith("-- "):
            return " ".join(words).removeprefix("-- ")
    return ""


def main() -> None:
    """Write the generated files, and remove copies of deleted files."""
    files = generate()
    for path in COPIES.rglob("*.*"):
        if path not in files:
            path.unlink()
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")


if __name__ == "__main__":
    main()
