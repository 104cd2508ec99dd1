"""Runs the exporter of a release on this machine, as the kubelet runs it in its pod."""

import base64
import contextlib
import http.client
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from testing.program import TIMEOUT, TOOL_SECONDS, Exporter, run, running

from .release import Object, Release

Secrets = Mapping[str, Mapping[str, str | bytes]]
"""Secrets that are not part of the release, by name: files and their contents."""


class Pod:
    """The volumes of a pod, in a folder, and its containers.

    There is no container: paths of the container in arguments and files are replaced by paths of this machine. The next
    pod in the same folder has only the claims of this one.
    """

    def __init__(self, release: Release, folder: Path, secrets: Secrets | None = None) -> None:
        self.release = release
        self._secrets: dict[str, Mapping[str, bytes]] = {
            name: {file: content.encode() if isinstance(content, str) else content for file, content in files.items()}
            for name, files in (secrets or {}).items()
        }
        for secret in release.all("Secret"):
            files = {name: base64.b64decode(content) for name, content in secret["data"].items()}
            self._secrets[secret["metadata"]["name"]] = files
        self._folder = folder
        shutil.rmtree(folder / "pod", ignore_errors=True)
        self._volumes = {volume["name"]: self._path(volume) for volume in release.pod["spec"]["volumes"]}
        mounts = [mount for container in release.containers for mount in container["volumeMounts"]]
        self._places = {mount["mountPath"]: self._volumes[mount["name"]] for mount in mounts}
        for volume in release.pod["spec"]["volumes"]:
            self._fill(volume)

    def __getitem__(self, path: str) -> Path:
        """Return the path on this machine of a file in the container."""
        return Path(self._here(path))

    def _path(self, volume: Object) -> Path:
        if "persistentVolumeClaim" in volume:
            return self._folder / "claims" / str(volume["persistentVolumeClaim"]["claimName"])
        return self._folder / "pod" / str(volume["name"])

    def _fill(self, volume: Object) -> None:
        """Write files as the kubelet does: as links into a folder that is replaced atomically."""
        path = self._volumes[volume["name"]]
        path.mkdir(parents=True, exist_ok=True)
        files: Mapping[str, bytes] = {}
        mode = 0o644
        if "secret" in volume:
            files = self._secrets[volume["secret"]["secretName"]]
            mode = volume["secret"]["defaultMode"]
        elif "configMap" in volume:
            config = self.release.one("ConfigMap", volume["configMap"]["name"])
            files = {name: text.encode() for name, text in config["data"].items()}
            mode = volume["configMap"].get("defaultMode", mode)
        if files:
            (path / "..swapped").mkdir()
            (path / "..data").symlink_to("..swapped")
        for name, content in files.items():
            file = path / "..swapped" / name
            file.write_bytes(self._here(content.decode()).encode())
            file.chmod(mode)
            (path / name).symlink_to(Path("..data", name))

    def _here(self, text: str) -> str:
        for place, path in self._places.items():
            text = re.sub(rf"{place}(?=/|$)", str(path), text)
        return text

    def _arguments(self) -> list[str]:
        return [self._here(argument) for argument in self.release.container["args"]]

    def _variables(self) -> dict[str, Any]:
        """Return the environment variables from Secrets."""
        return {
            variable["name"]: self._secrets[reference["name"]][reference["key"]].decode()
            for variable in self.release.container.get("env", ())
            if (reference := variable.get("valueFrom", {}).get("secretKeyRef"))
        }

    def refresh(self) -> None:
        """Run the init containers."""
        for container in self.release.containers[:-1]:
            program, *arguments = container["command"]
            assert program == "python3"
            command = [sys.executable, *(self._here(argument) for argument in arguments)]
            subprocess.run(command, check=True, timeout=TOOL_SECONDS)

    def check(self) -> "subprocess.CompletedProcess[str]":
        """Run the exporter with --config.check."""
        return run(*self._arguments(), "--config.check", **self._variables())

    @contextlib.contextmanager
    def running(self) -> Iterator[Exporter]:
        """Run the exporter on a free port."""
        address = f"--web.listen-address=:{self._port}"
        assert address in self._arguments()
        arguments = [each for each in self._arguments() if each != address]
        with running(*arguments, **self._variables()) as exporter:
            yield exporter

    @property
    def _port(self) -> int:
        (port,) = self.release.container["ports"]
        return int(port["containerPort"])

    def helm_test(self, port: int) -> "subprocess.CompletedProcess[str]":
        """Run the pod of `helm test`, with one attempt, for an exporter on a port of this machine."""
        (container,) = self.release.one("Pod")["spec"]["containers"]
        program, option, code, scheme, host, service_port, path, _ = container["command"]
        service = self.release.one("Service")
        assert program == "python3"
        assert host == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
        assert service_port == str(service["spec"]["ports"][0]["port"])
        command = [sys.executable, option, code, scheme, "127.0.0.1", str(port), path, "1"]
        return subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False)

    def probe(self, which: str, exporter: Exporter) -> int:
        """Run a probe and return the HTTP status, or 0 for a successful TCP connection.

        Raises:
            OSError: no response.
            http.client.HTTPException: the response is not HTTP.
        """
        probe = self.release.container[f"{which}Probe"]
        (kind,) = probe.keys() & {"httpGet", "tcpSocket"}
        assert probe[kind]["port"] == self.release.container["ports"][0]["name"]
        if kind == "tcpSocket":
            with socket.create_connection(("127.0.0.1", exporter.port)):
                return 0
        # The kubelet has no client certificate and does not verify the server's.
        unverified = ssl._create_unverified_context()
        connection = (
            http.client.HTTPSConnection("127.0.0.1", exporter.port, timeout=TIMEOUT, context=unverified)
            if probe[kind]["scheme"] == "HTTPS"
            else http.client.HTTPConnection("127.0.0.1", exporter.port, timeout=TIMEOUT)
        )
        with contextlib.closing(connection):
            connection.request("GET", probe[kind]["path"])
            return connection.getresponse().status
