"""A real container engine, podman, and the base of images where there is no registry: Debian's own packages."""

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.conftest import require_program
from tests.program import ROOT, TOOL_SECONDS, Exporter

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
CERTIFICATES = Path("/etc/ssl/certs")
CONFINED = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges")
"""As little as an engine can let a container do: there is not even a folder for temporary files."""


def default(argument: str) -> str:
    """What the Dockerfile has where nothing else is said."""
    found = re.search(rf"(?m)^ARG {argument}=(.*)$", DOCKERFILE)
    assert found
    return found[1]


class Engine:
    """podman with a store of its own, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._podman = [
            require_program("podman"),
            f"--root={folder / 'store'}",
            f"--runroot={folder / 'run'}",
            f"--runtime={require_program('runc')}",
            # Nothing here is to need systemd on the machine that tests.
            "--cgroup-manager=cgroupfs",
            "--events-backend=file",
        ]

    def __call__(self, *arguments: str | Path) -> str:
        """What a command of podman says."""
        ended = self.run(*arguments)
        assert ended.returncode == 0, f"podman {arguments[0]}: {ended.stderr}"
        return ended.stdout

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """A command of podman, however it ends."""
        command = [*self._podman, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False)

    def make_base(self, name: str) -> None:
        """An image to stand in for the Dockerfile's base: the same Debian with the same Python.

        It has systemd, too, for tests that start it as a machine.
        """
        tarball = self._folder / "base.tar"
        packages = "--include=python3,python3-venv,procps,systemd-sysv"
        patient = '--aptopt=Acquire::Retries "5"'
        suite = default("BASE").rpartition("-")[2]
        made = subprocess.run(
            [require_program("mmdebstrap"), "--variant=minbase", packages, patient, suite, tarball],
            capture_output=True,
            text=True,
            timeout=TOOL_SECONDS,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self("import", "--quiet", f"--change=ENV {path}", tarball, name)
        tarball.unlink()

    def build(self, name: str, *options: str | Path) -> None:
        """Build an image, without a network of its own."""
        # Where the package index is behind a proxy with a certificate of its own, the build has to know that, too.
        volumes = [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"] if CERTIFICATES.exists() else []
        # Docker's format: the other has no health check.
        how = ["--quiet", "--isolation=chroot", "--format=docker", *volumes]
        self("build", *how, f"--tag={name}", *options)

    def inspect(self, name: str) -> Any:
        """What podman knows of an image or a container."""
        return json.loads(self("inspect", name))[0]

    def says(self, image: str, *command: str) -> str:
        """What a container says that ends by itself."""
        return self(*_run("short"), "--rm", "--network=none", *CONFINED, image, *command)

    @contextlib.contextmanager
    def exporter(self, name: str, image: str, *flags: str, options: Sequence[str] = CONFINED) -> Iterator[Exporter]:
        """A container with an exporter that listens on a port of this machine."""
        command = [*self._podman, *_run(name), "--network=host", *options, image, *flags]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            exporter = Exporter(process)
            try:
                yield exporter
            finally:
                self.remove(name)
                exporter.kill()

    @contextlib.contextmanager
    def machine(self, name: str, image: str, *options: str) -> Iterator[None]:
        """A container that systemd starts as if it were a machine, without a network."""
        allowed = ["--user=0:0", "--cap-add=SYS_ADMIN,SYS_PTRACE", "--security-opt=seccomp=unconfined"]
        # Newer versions of systemd start on older control groups only if they are told to.
        told = ["--systemd=always", "--env=SYSTEMD_PROC_CMDLINE=SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]
        # A machine has nothing yet where the image has its volume, and its mounts are shared, as systemd wants them to
        # pass credentials on.
        boot = "rmdir /var/lib/tedee-exporter && mount --make-rshared / && exec /sbin/init"
        start = ["--entrypoint=/bin/sh", image, "-c", boot]
        try:
            self(*_run(name), "--detach", "--network=none", "--image-volume=ignore", *allowed, *told, *options, *start)
            yield
        finally:
            self.remove(name)

    def remove(self, name: str) -> None:
        """End a container, if there is one, without a chance to say goodbye."""
        self.run("rm", "--force", "--time=0", "--volumes", name)

    def remove_everything(self) -> None:
        """Leave nothing behind, mounts included."""
        self("rm", "--force", "--time=0", "--all")
        self("rmi", "--force", "--all")


def _run(name: str) -> list[str]:
    """podman's command to run a container; its own limits are more than it may be allowed to set."""
    return ["run", f"--name={name}", "--ulimit=nofile=4096:4096", "--ulimit=nproc=16384:16384"]


def unable(why: str) -> NoReturn:
    """Skip the test, which in CI is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)
