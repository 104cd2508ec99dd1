"""The checks before each commit, and the checks of wording and of lock files that they run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from testing.program import ROOT, TOOL_SECONDS

PRE_COMMIT = ROOT / ".pre-commit-config.yaml"


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    # The clone may belong to another user, as in a container of CI.
    trust = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": str(ROOT)}
    environment = os.environ | trust | variables
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False
    )


def test_hooks_are_local_and_use_installed_tools() -> None:
    (repository,) = yaml.safe_load(PRE_COMMIT.read_text("utf-8"))["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


def test_hooks_accept_all_files(tmp_path: Path) -> None:
    if not shutil.which("git") or run("git", "rev-parse").returncode:
        pytest.skip("not a git clone")
    if not (ROOT / ".venv").is_dir():
        pytest.skip("no .venv, whose tools the hooks run")
    # test_lock_files_match_pyproject runs the hook of the lock files without installing anything.
    result = run(
        sys.executable, "-m", "pre_commit", "run", "--all-files", SKIP="lock-check", PRE_COMMIT_HOME=str(tmp_path)
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_lock_files_match_pyproject() -> None:
    environment = Path(sys.prefix)
    installed = [f"--old-file={environment / name}" for name in ("python", "dev")]
    result = run("make", *installed, "lock-check", f"VENV={environment}")
    if "Failed to fetch" in result.stderr:
        pytest.skip("the package index cannot be reached")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("It was told.\n", "told ==> reported"),  # codespell:ignore told
        ("def test_nobody_calls():\n", "nobody ==> no one"),  # codespell:ignore nobody
        ("# in\n# place of\n", "in place of"),  # codespell:ignore
        ("recieve\n", "recieve ==> receive"),  # codespell:ignore recieve
        ("Return the response.\n", ""),
        ("User nobody.  # codespell:ignore nobody\n", ""),
    ],
)
def test_words_and_phrases_are_refused(tmp_path: Path, text: str, finding: str) -> None:
    message = tmp_path / "message"
    message.write_text(text)
    result = run(sys.executable, ".ci/words.py", "--message", message)
    assert result.returncode == (1 if finding else 0)
    assert finding in result.stdout


@pytest.mark.parametrize(
    ("text", "accepted"), [("a\n", True), ("", True), ("a", False), ("a\n\n", False), ("a \n", False), ("a\r\n", False)]
)
def test_whitespace_errors_are_found(tmp_path: Path, text: str, accepted: bool) -> None:
    file = tmp_path / "file"
    file.write_bytes(text.encode())
    assert (run(sys.executable, ".ci/whitespace.py", file).returncode == 0) == accepted
