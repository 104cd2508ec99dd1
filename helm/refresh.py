"""Makes what the chart has from elsewhere: alerts, dashboards, the version, Kubernetes' types and the README's table.

Run by `make chart`. The alerts and dashboards are copies, since a chart is its folder and nothing else. A symbolic link
that leads out of it would be left out by Flux, which drops links of a checkout, and be a file with a name on Windows.
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
"""The parts of Kubernetes' API whose types the values may have."""


def made() -> dict[Path, str]:
    """The files that are made, each with what it is to hold."""
    values = (CHART / "values.yaml").read_text("utf-8")
    repository = yaml.safe_load(values)["image"]["repository"]
    files = {COPIES / "tedee.rules.yml": (ROOT / "alerts" / "tedee.rules.yml").read_text("utf-8")}
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


def table(values: str) -> str:
    """The values with their defaults and what they mean, as Markdown."""
    rows = ["| value | default | what it is |", "|---|---|---|"]
    for name, default, meaning in documented(values):
        cells = (f"`{name}`", f"`{json.dumps(default)}`", meaning)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def with_kubernetes_types(schema: str) -> str:
    """The schema with the definitions of Kubernetes' types that it refers to, of the newest version known here.

    They stand at its end, one in each line, and are the only ones whose names begin with a capital letter.
    """
    ours = re.split(r',?\n    "[A-Z]', schema)[0].removesuffix("\n  }\n}\n")
    api = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{all_versions()[-1]}-local-strict"
    known = json.loads((api / "_definitions.json").read_text("utf-8"))["$defs"]
    needed: dict[str, str] = {}
    waiting = re.findall(REFERENCE, ours)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            full_name = next(f"{group}.{name}" for group in KUBERNETES if f"{group}.{name}" in known)
            needed[name] = json.dumps(_bare(known[full_name]))
            waiting += re.findall(REFERENCE, needed[name])
    return ",\n".join([ours, *(f'    "{name}": {needed[name]}' for name in sorted(needed))]) + "\n  }\n}\n"


def _bare(schema: dict[str, Any]) -> dict[str, Any]:
    """A type of Kubernetes without descriptions, formats and defaults."""
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


def documented(values: str) -> Iterator[tuple[str, Any, str]]:
    """Name, default and meaning of each value.

    Raises:
        ValueError: one has no comment that begins with `# --`.
    """
    lines = values.splitlines()

    def below(node: yaml.MappingNode, above: str) -> Iterator[tuple[str, Any, str]]:
        for key, value in node.value:
            name, meaning = f"{above}{key.value}", comment(lines[: key.start_mark.line])
            if meaning:
                yield name, yaml.safe_load(yaml.serialize(value)), meaning
            elif isinstance(value, yaml.MappingNode) and value.value:
                yield from below(value, f"{name}.")
            else:
                raise ValueError(f"values.yaml does not say what {name} is")

    root = yaml.compose(values)
    return below(root, "") if isinstance(root, yaml.MappingNode) else iter(())


def comment(lines: list[str]) -> str:
    """What the comment at the end of the lines says from `# --` on."""
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
    """Write them, and remove copies of what is no more."""
    files = made()
    for path in COPIES.rglob("*.*"):
        if path not in files:
            path.unlink()
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")


if __name__ == "__main__":
    main()
