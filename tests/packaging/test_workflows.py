"""The GitHub workflows: their syntax, their permissions, pinned actions and the order of a release."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter import __version__
from testing.program import ROOT
from tests.conftest import require_program

from .command import run_checked

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return content


@pytest.mark.skipif(not shutil.which("actionlint"), reason="not installed; .ci/install-test-programs builds it with Go")
def test_actionlint_accepts_the_workflows() -> None:
    # actionlint checks the commands of the steps with shellcheck.
    run_checked("actionlint", f"-shellcheck={require_program('shellcheck')}", *WORKFLOWS)


@pytest.mark.parametrize("schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"])
def test_workflows_match_schema_and_have_timeouts(schema: str) -> None:
    run_checked(sys.executable, "-m", "check_jsonschema", f"--builtin-schema={schema}", *WORKFLOWS)


def test_dependabot_configuration_matches_schema() -> None:
    run_checked(
        sys.executable, "-m", "check_jsonschema", "--builtin-schema=vendor.dependabot", GITHUB / "dependabot.yml"
    )


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_only_publishing_jobs_have_write_permissions(workflow: Path) -> None:
    content = load(workflow)
    assert content["permissions"] == {"contents": "read"}
    jobs_with_write = {name for name, job in content["jobs"].items() if "write" in job.get("permissions", {}).values()}
    publishing = {"release": {"pypi", "image", "chart", "github"}, "docs": {"publish"}}
    assert jobs_with_write == publishing.get(workflow.stem, set())


def test_release_runs_tests_first_and_publishes_last() -> None:
    jobs = load(GITHUB / "workflows" / "release.yml")["jobs"]

    def prerequisites(job: str) -> set[str]:
        needs = jobs[job].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*map(prerequisites, direct))

    assert all("tests" in prerequisites(job) for job in set(jobs) - {"tests"})
    assert {"distributions", "image", "chart"} <= prerequisites("pypi")
    assert prerequisites("github") == set(jobs) - {"github"}


@pytest.mark.parametrize(
    ("tag", "changelog", "released"),
    [("v{}", "## [{}] - 2027-01-31", True), ("v9{}", "## [{}] - 2027-01-31", False), ("v{}", "## [Unreleased]", False)],
)
def test_release_needs_matching_tag_version_and_changelog(
    tmp_path: Path, tag: str, changelog: str, released: bool
) -> None:
    steps = load(GITHUB / "workflows" / "release.yml")["jobs"]["distributions"]["steps"]
    (command,) = [step["run"] for step in steps if step.get("id") == "version"]
    (tmp_path / "exporter").mkdir()
    (tmp_path / "exporter" / "__init__.py").write_text((ROOT / "exporter" / "__init__.py").read_text("utf-8"))
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{changelog.format(__version__)}\n")
    output = tmp_path / "output"
    environment = {"PATH": os.environ["PATH"], "GITHUB_REF_NAME": tag.format(__version__), "GITHUB_OUTPUT": str(output)}
    # The shell and options of GitHub.
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command]
    result = subprocess.run(shell, cwd=tmp_path, env=environment, check=False)
    assert (result.returncode == 0) == released
    assert not released or output.read_text() == f"version={__version__}\nminor={__version__.rpartition('.')[0]}\n"


def test_release_signs_the_pushed_image() -> None:
    job = load(GITHUB / "workflows" / "release.yml")["jobs"]["image"]
    assert job["permissions"]["id-token"] == "write"  # for the certificate of the signature
    uses = [step.get("uses", "").split("@")[0] for step in job["steps"]]
    push = uses.index("docker/build-push-action")
    sign = next(number for number, step in enumerate(job["steps"]) if "cosign sign" in step.get("run", ""))
    assert push < uses.index("sigstore/cosign-installer") < sign
    assert {"push": True, "provenance": "mode=max", "sbom": True}.items() <= job["steps"][push]["with"].items()
    # A tag can be moved between the push and the signature.
    assert job["steps"][sign]["env"] == {"DIGEST": f"${{{{ steps.{job['steps'][push]['id']}.outputs.digest }}}}"}
    assert '"$IMAGE@$DIGEST"' in job["steps"][sign]["run"]


def test_release_signs_the_pushed_chart(tmp_path: Path) -> None:
    workflow = load(GITHUB / "workflows" / "release.yml")
    job = workflow["jobs"]["chart"]
    assert job["permissions"]["id-token"] == "write"
    (push,) = [step for step in job["steps"] if "helm push" in step.get("run", "")]
    (sign,) = [step for step in job["steps"] if "cosign sign" in step.get("run", "")]
    assert sign["env"]["DIGEST"] == f"${{{{ steps.{push['id']}.outputs.digest }}}}"
    digest = f"sha256:{'0a' * 32}"
    for program, script in {
        # The output of `helm push`, on standard error.
        "helm": f'[ "$1" != push ] || printf "Pushed: ghcr.io/charts/tedee-exporter:1.2.3\\nDigest: {digest}\\n" >&2',
        "cosign": 'echo "$*" >> cosign.log',
    }.items():
        (tmp_path / program).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / program).chmod(0o755)
    output = tmp_path / "output"
    environment = {
        **workflow["env"],
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "GITHUB_OUTPUT": str(output),
        "DIGEST": digest,
        "TOKEN": "ghs_0123456789",
    }
    for step in (push, sign):
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert output.read_text() == f"digest={digest}\n"
    chart = f"{workflow['env']['CHARTS'].removeprefix('oci://')}/tedee-exporter@{digest}"
    calls = (tmp_path / "cosign.log").read_text()
    assert f"sign --yes {chart}\n" in calls
    assert f"verify {chart} --certificate-identity=" in calls
    assert environment["TOKEN"] not in calls  # arguments are in the list of processes


@pytest.mark.parametrize("artefact", ["image", "chart"])
def test_documented_verification_matches_the_workflow(artefact: str) -> None:
    workflow = GITHUB / "workflows" / "release.yml"
    steps = load(workflow)["jobs"][artefact]["steps"]
    (sign,) = [step["run"] for step in steps if "cosign sign" in step.get("run", "")]
    text = (ROOT / "docs" / "installation.md").read_text("utf-8").replace("\\\n", " ")
    assert f"`{load(workflow)['env']['CHARTS'].removeprefix('oci://')}/tedee-exporter:1.2.3`" in text
    (command,) = re.findall(r"(?m)^cosign verify .*$", text)
    image = re.escape(load(workflow)["env"]["IMAGE"])
    repository = "https://github.com/tedee-exporter/tedee-exporter"
    identity = re.escape(f"{repository}/{workflow.relative_to(ROOT)}@refs/tags/v")
    assert re.search(rf" {image}:(\S+) .*--certificate-identity={identity}\1 ", command)
    assert '--certificate-identity="$GITHUB_SERVER_URL/$GITHUB_WORKFLOW_REF"' in sign
    assert set(re.findall(r"--certificate-oidc-issuer=\S+", sign)) == set(re.findall(r"--certificate-oidc\S+", command))


def test_github_release_has_changes_packages_and_compose_files(tmp_path: Path) -> None:
    (command,) = [
        step["run"]
        for step in load(GITHUB / "workflows" / "release.yml")["jobs"]["github"]["steps"]
        if "gh release" in step.get("run", "")
    ]
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "wheel").touch()
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n\n## [1.2.3] - 2027-01-31\nnew\n\n## [1.2.2]\nold\n")
    for name in ("compose.yaml", "deploy", "alerts", "dashboards"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gh"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "GITHUB_REF_NAME": "v1.2.3", "VERSION": "1.2.3"}
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command]
    result = subprocess.run(shell, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert result.stdout.splitlines()[-3:] == ["dist/wheel", "compose/compose.yaml", "compose/exporter.yaml"]
    assert (tmp_path / "notes.md").read_text().split() == ["new"]
    assert "${TAG:-1.2.3}" in (tmp_path / "compose" / "exporter.yaml").read_text("utf-8")


def test_chart_uses_released_image() -> None:
    values = load(ROOT / "helm" / "tedee-exporter" / "values.yaml")
    assert load(GITHUB / "workflows" / "release.yml")["env"]["IMAGE"] == values["image"]["repository"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_commands_contain_no_expressions(workflow: Path) -> None:
    steps = [step for job in load(workflow)["jobs"].values() for step in job.get("steps", [])]
    assert [step["run"] for step in steps if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_to_commits(workflow: Path) -> None:
    # A tag can be moved to another commit. Dependabot updates the hash together with the version in the comment.
    actions = re.findall(r"(?m)^ *(?:- )?uses: (?!\./)(.*)$", workflow.read_text("utf-8"))
    assert actions
    assert [action for action in actions if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action)] == []


def test_locked_packages_are_audited_each_week() -> None:
    workflow = load(GITHUB / "workflows" / "tests.yml")
    audit = workflow["jobs"]["audit"]
    # YAML 1.1 reads `on` as true.
    assert workflow[True]["schedule"]  # type: ignore[index]
    assert "if" not in audit
    assert not any("if" in step or "continue-on-error" in step for step in audit["steps"])
    # Without --strict, a package that cannot be audited is only a warning.
    command = r"pipx run pip-audit==\d+\.\d+\.\d+ --strict --require-hashes --disable-pip -r requirements\.lock"
    assert re.fullmatch(command, audit["steps"][-1]["run"])


def test_ci_runs_oldest_python_and_that_of_image() -> None:
    pythons = load(GITHUB / "workflows" / "tests.yml")["jobs"]["pythons"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    image = re.search(r"(?m)^ARG BASE=python:([\d.]+)-", (ROOT / "Dockerfile").read_text("utf-8"))
    assert pythons[0] == project["requires-python"].removeprefix(">=")
    assert image
    assert image[1] in pythons


def test_hadolint_accepts_the_dockerfile() -> None:
    run_checked(Path(sys.executable).parent / "hadolint", ROOT / "Dockerfile")


def test_shellcheck_accepts_the_scripts() -> None:
    scripts = [path for path in (ROOT / ".ci").iterdir() if path.is_file() and path.read_text().startswith("#!")]
    assert scripts
    run_checked(require_program("shellcheck"), *scripts)
