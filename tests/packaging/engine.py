"""The container engine podman, and a base image built from Debian packages, without a registry."""

import base64
import contextlib
import copy
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from testing.program import ROOT, TOOL_SECONDS, Exporter
from tests.conftest import require_program

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
CERTIFICATES = Path("/etc/ssl/certs")
CONFINED = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges")
"""Options for minimal privileges, without a writable folder for temporary files."""


def default(argument: str) -> str:
    """Return the default of a build argument in the Dockerfile."""
    found = re.search(rf"(?m)^ARG {argument}=(.*)$", DOCKERFILE)
    assert found
    return found[1]


class Engine:
    """podman with separate storage in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._podman = [
            require_program("podman"),
            f"--root={folder / 'store'}",
            f"--runroot={folder / 'run'}",
            f"--runtime={require_program('runc')}",
            # The machine that runs the tests may have no systemd.
            "--cgroup-manager=cgroupfs",
            "--events-backend=file",
        ]

    def __call__(self, *arguments: str | Path) -> str:
        """Run a podman command that must succeed, and return its output."""
        result = self.run(*arguments)
        assert result.returncode == 0, f"podman {arguments[0]}: {result.stderr}"
        return result.stdout

    def run(self, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a podman command and return its result."""
        return subprocess.run(
            [*self._podman, *arguments],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=TOOL_SECONDS,
            check=False,
        )

    def make_base(self, name: str) -> None:
        """Create a substitute for the Dockerfile's base: the same Debian with the same Python.

        It includes systemd for tests that boot it.
        """
        tarball = self._folder / "base.tar"
        packages = "--include=python3,python3-venv,procps,systemd-sysv"
        retries = '--aptopt=Acquire::Retries "5"'
        suite = default("BASE").rpartition("-")[2]
        made = subprocess.run(
            [require_program("mmdebstrap"), "--variant=minbase", packages, retries, suite, tarball],
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
        """Build an image in the network of this machine."""
        # A proxy in front of the package index may have a private CA, which the build needs as well.
        volumes = [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"] if CERTIFICATES.exists() else []
        # Docker's format, because the OCI format has no health check.
        build_options = ["--quiet", "--isolation=chroot", "--format=docker", *volumes]
        self("build", *build_options, f"--tag={name}", *options)

    def inspect(self, name: str) -> Any:
        """Return the metadata of an image or a container."""
        return json.loads(self("inspect", name))[0]

    def output(self, image: str, *command: str) -> str:
        """Run a container until it exits, and return its output."""
        return self(*_run("short"), "--rm", "--network=none", *CONFINED, image, *command)

    @contextlib.contextmanager
    def exporter(self, name: str, image: str, *flags: str, options: Sequence[str] = CONFINED) -> Iterator[Exporter]:
        """Run a container with an exporter that listens on a port of this machine."""
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
        """Boot a container with systemd, without a network."""
        allowed = ["--user=0:0", "--cap-add=SYS_ADMIN,SYS_PTRACE", "--security-opt=seccomp=unconfined"]
        # Newer versions of systemd start with cgroup v1 only with this option.
        systemd = ["--systemd=always", "--env=SYSTEMD_PROC_CMDLINE=SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]
        # systemd creates the state folder itself, so the image's one is removed. It needs shared mounts to pass
        # credentials.
        boot = "rmdir /var/lib/tedee-exporter && mount --make-rshared / && exec /sbin/init"
        start = ["--entrypoint=/bin/sh", image, "-c", boot]
        try:
            self(
                *_run(name), "--detach", "--network=none", "--image-volume=ignore", *allowed, *systemd, *options, *start
            )
            yield
        finally:
            self.remove(name)

    @contextlib.contextmanager
    def pod(self, spec: Mapping[str, Any], objects: Iterable[Mapping[str, Any]], base: str) -> Iterator[None]:
        """Run a pod of Kubernetes called "pod" without a network, with the ConfigMaps and Secrets that it mounts.

        The base is an image with `sleep`, which podman runs to hold the pod's namespaces.
        """
        pause = self._written("pause", f'FROM {base}\nCMD ["sleep", "infinity"]\n')
        self("build", "--quiet", "--isolation=chroot", "--tag=localhost/pause", "--file", pause)
        settings = '[engine]\ninfra_image = "localhost/pause"\n'
        limits = '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=16384:16384"]\n'
        environment = {"CONTAINERS_CONF": str(self._written("containers.conf", settings + limits))}
        playable = [_playable(spec)]
        for each in objects:
            if each["kind"] == "Secret":
                self("secret", "create", each["metadata"]["name"], self._secret(each))
            else:
                playable.append(each)
        manifest = self._written("pod.yaml", yaml.safe_dump_all(playable))
        try:
            result = self.run("kube", "play", "--network=none", manifest, **environment)
            assert result.returncode == 0, result.stderr
            yield
        finally:
            self.run("pod", "rm", "--force", "--time=0", "pod")
            self.run("volume", "rm", "--all", "--force")
            self.run("secret", "rm", "--all")

    def _secret(self, secret: Mapping[str, Any]) -> Path:
        """Write a Secret to a file. podman decodes the data of mounted Secrets since version 4.4."""
        version = [int(number) for number in re.findall(r"\d+", self("--version"))[:2]]
        if version < [4, 4]:
            plain = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
            secret = {**secret, "data": plain}
        return self._written("secret.yaml", yaml.safe_dump(secret))

    def _written(self, name: str, text: str) -> Path:
        """Write a file to the engine's folder, and return its path."""
        path = self._folder / name
        path.write_text(text, "utf-8")
        return path

    def remove(self, name: str) -> None:
        """Kill and remove a container if it exists."""
        self.run("rm", "--force", "--time=0", "--volumes", name)

    def remove_everything(self) -> None:
        """Remove all containers, images and mounts."""
        self("rm", "--force", "--time=0", "--all")
        self("rmi", "--force", "--all")


def _playable(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a pod that podman can run.

    podman publishes all ports, which needs a network, and restarts init containers that have ended, unless the pod is
    never restarted. It needs the field `optional` of Secrets.
    """
    spec = copy.deepcopy({**spec, "restartPolicy": "Never"})
    for container in spec["containers"]:
        container.pop("ports", None)
    for volume in spec["volumes"]:
        if "secret" in volume:
            volume["secret"]["optional"] = False
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}


def _run(name: str) -> list[str]:
    """Return the command to run a container. podman's default limits may be higher than allowed here."""
    return ["run", f"--name={name}", "--ulimit=nofile=4096:4096", "--ulimit=nproc=16384:16384"]


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
