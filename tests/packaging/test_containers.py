"""The image runs with minimal privileges, and systemd starts the service."""

import base64
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter import __version__
from exporter.config.environment import ENVIRONMENT
from exporter.simulator import Address, Cloud, World, serve
from testing.postgresql import running_server
from testing.program import LONG_TEST, ROOT, TIMEOUT, Exporter, configuration, eventually, free_port
from tests.helm.release import release

from .engine import CONFINED, Engine, default, skip_or_fail

BASE, IMAGE = "localhost/base", "localhost/tedee-exporter"
USER = 65532
MEGABYTE = 1_000_000
ANY_PORT = "--web.listen-address=127.0.0.1:0"
CLOUD = "http://127.0.0.1:8080"

# The first test downloads Debian packages and builds the image.
pytestmark = pytest.mark.timeout(LONG_TEST)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    if os.geteuid() != 0:
        skip_or_fail("these tests need root")
    with tempfile.TemporaryDirectory(prefix="tedee-exporter-images-") as folder:
        engine = Engine(Path(folder))
        try:
            prepare(engine)
            yield engine
        finally:
            engine.remove_everything()


def prepare(engine: Engine) -> None:
    try:
        engine.make_base(BASE)
        engine.output(BASE, "true")
    except AssertionError as error:
        skip_or_fail(f"containers do not work here: {error}")
    engine.build(IMAGE, f"--build-arg=BASE={BASE}", f"--build-arg=VERSION={__version__}", ROOT)


@pytest.fixture
def address() -> Iterator[Address]:
    """A simulated cloud that enforces the rate limits."""
    with serve(Cloud(World.demo(), strict=True)) as address:
        yield address


def status(engine: Engine, name: str) -> dict[str, str]:
    """Return /proc/PID/status of a container's first process."""
    text = Path(f"/proc/{engine.inspect(name)['State']['Pid']}/status").read_text()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def mounted(folder: Path, address: Address) -> list[str]:
    """Return options that mount a configuration and a volume for the state."""
    config = configuration(folder, address.url, [{"name": "home", "personal_key": "simulated-key-home"}])
    os.chown(config, USER, USER)
    return [f"--volume={config}:/etc/tedee-exporter/tedee-exporter.yml:ro", "--volume=state:/var/lib/tedee-exporter"]


# The image


def test_base_has_python_of_dockerfile(engine: Engine) -> None:
    version = default("BASE").partition(":")[2].partition("-")[0]
    code = "import sys; print(*sys.version_info[:2], sep='.')"
    assert engine.output(BASE, "python3", "-c", code).strip() == version


def test_build_context_has_only_needed_files(engine: Engine, tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM scratch\nCOPY . /\n")
    engine.build("localhost/context", f"--file={dockerfile}", ROOT)
    context = Path(engine("image", "mount", "localhost/context").strip())
    program = {path for path in (ROOT / "exporter").rglob("*") if path.is_file() and path.parent.name != "__pycache__"}
    others = ("LICENSE", "README.md", "packaging/docker/healthcheck.py", "pyproject.toml")
    locks = ("requirements.lock", "requirements-build.lock")
    assert {str(path.relative_to(context)) for path in context.rglob("*") if path.is_file()} == {
        *others,
        *locks,
        *(str(path.relative_to(ROOT)) for path in program),
    }


def test_image_adds_only_program_and_state_folder(engine: Engine) -> None:
    changes = [line.split(maxsplit=1) for line in engine("image", "diff", IMAGE, BASE).splitlines()]
    assert changes
    assert {kind for kind, _ in changes} <= {"A", "C"}
    allowed = ("/opt/tedee-exporter", "/var/lib/tedee-exporter")
    # Parent folders are listed as changed, because they have new entries.
    parents = {str(folder) for path in allowed for folder in Path(path).parents}
    assert {path for kind, path in changes if not path.startswith(allowed)} <= parents
    state = (Path(engine("image", "mount", IMAGE).strip()) / "var/lib/tedee-exporter").stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o777) == (USER, USER, 0o700)
    added = engine.inspect(IMAGE)["Size"] - engine.inspect(BASE)["Size"]
    print(f"The image adds {added / MEGABYTE:.0f} MB to its base.")
    assert added < 120 * MEGABYTE


def test_image_has_labels_and_configuration(engine: Engine) -> None:
    image = engine.inspect(IMAGE)
    config = image["Config"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert config["User"] == f"{USER}:{USER}"
    assert config["StopSignal"] == "SIGTERM"
    assert config["ExposedPorts"] == {"10333/tcp": {}}
    assert config["Volumes"] == {"/var/lib/tedee-exporter": {}}
    assert config["Entrypoint"] == ["tedee-exporter"]
    assert image["Healthcheck"]["Test"] == ["CMD", "python3", "-I", "/opt/tedee-exporter/healthcheck.py"]
    assert labels["version"] == __version__
    assert labels["title"] == "tedee-exporter"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["base.name"] == BASE


def test_arguments_after_image_are_flags(engine: Engine) -> None:
    assert engine.output(IMAGE, "--version").startswith(f"tedee-exporter, version {__version__} ")


def test_read_only_container_serves_and_stores_state(engine: Engine, tmp_path: Path, address: Address) -> None:
    options = [*CONFINED, *mounted(tmp_path, address)]
    flags = ["--config.file=/etc/tedee-exporter/tedee-exporter.yml", ANY_PORT]
    with engine.exporter("first", IMAGE, *flags, options=options) as exporter:
        exporter.wait_until_ready()
        locks = exporter.value("tedee_locks", account="home")
        synced = exporter.value("tedee_last_sync_timestamp_seconds", account="home")
        assert locks == 6
        assert exporter.value("tedee_exporter_state_file_usable") == 1
        # Names are fetched after the first sync.
        eventually(lambda: "Front door" in exporter.get("/").text, "the names of the locks")
        first = status(engine, "first")
        assert first["Uid"].split() == first["Gid"].split() == [str(USER)] * 4
        assert (int(first["CapEff"], 16), first["NoNewPrivs"]) == (0, "1")
        refused = engine.run("exec", "first", "touch", "/opt/tedee-exporter/file")
        assert "Read-only file system" in refused.stderr
        engine("stop", "first")
        assert exporter.process.wait(TIMEOUT) == 0
        eventually(lambda: "msg=stopped" in exporter.log[-1], "the last log line")
    with engine.exporter("second", IMAGE, *flags, options=options) as exporter:
        assert exporter.value("tedee_last_sync_timestamp_seconds", account="home") == synced
        assert exporter.value("tedee_locks", account="home") == locks


def test_health_check_passes_on_any_port(engine: Engine) -> None:
    port = free_port()
    with engine.exporter("healthy", IMAGE, "--demo", f"--web.listen-address=127.0.0.1:{port}") as exporter:
        exporter.wait_until_ready()
        assert engine.run("healthcheck", "run", "healthy").returncode == 0
        exporter_process = int(engine.inspect("healthy")["State"]["Pid"])
        os.kill(exporter_process, signal.SIGSTOP)
        assert engine.run("healthcheck", "run", "healthy").returncode != 0
        os.kill(exporter_process, signal.SIGCONT)


@pytest.mark.parametrize("trouble", ["a volume of another user", "no volume"])
def test_container_without_state_delays_first_call(
    engine: Engine, tmp_path: Path, address: Address, trouble: str
) -> None:
    volume = [f"--volume={tmp_path}:/var/lib/tedee-exporter"] if trouble != "no volume" else ["--image-volume=ignore"]
    environment = ["--env=TEDEE_PERSONAL_KEY=simulated-key-home", f"--env=TEDEE_API_URL={address.url}"]
    with engine.exporter("stateless", IMAGE, ANY_PORT, options=[*CONFINED, *volume, *environment]) as exporter:
        assert exporter.value("tedee_exporter_state_file_usable") == 0
        next_sync = exporter.value("tedee_next_sync_timestamp_seconds", account="default")
        started = exporter.value("process_start_time_seconds")
        assert next_sync
        assert started
        assert next_sync - started >= 20


# compose.yaml


@pytest.fixture(scope="module")
def composed() -> list[str]:
    """The exporter of compose.yaml as options of podman."""
    service: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]["exporter"]
    assert service["read_only"]
    assert set(service["environment"]) == set(ENVIRONMENT)  # passed only if they are set
    assert service["volumes"] == ["state:/var/lib/tedee-exporter"]
    return [
        *("--read-only", "--read-only-tmpfs=false"),
        *(f"--cap-drop={capability}" for capability in service["cap_drop"]),
        *(f"--security-opt={option.replace(':true', '')}" for option in service["security_opt"]),
        "--entrypoint=" + json.dumps([word.replace("$$", "$") for word in service["entrypoint"]]),
    ]


def test_compose_runs_the_demo(engine: Engine, composed: list[str]) -> None:
    with engine.exporter("demo", IMAGE, ANY_PORT, options=composed) as exporter:
        exporter.wait_until_ready()
        assert exporter.value("tedee_up", account="hotel") == 1
        engine("stop", "demo")
        assert exporter.process.wait(TIMEOUT) == 0


@pytest.mark.parametrize("variable", ["TEDEE_PERSONAL_KEY", "TEDEE_PERSONAL_KEY_FILE"])
def test_compose_calls_tedee_if_a_key_is_set(
    engine: Engine, composed: list[str], address: Address, tmp_path: Path, variable: str
) -> None:
    key = tmp_path / "key"
    key.write_text("simulated-key-home")
    os.chown(key, USER, USER)
    given = {"TEDEE_PERSONAL_KEY": "simulated-key-home", "TEDEE_PERSONAL_KEY_FILE": "/run/secrets/tedee"}[variable]
    environment = [f"--env={variable}={given}", f"--env=TEDEE_API_URL={address.url}"]
    options = [*composed, *environment, f"--volume={key}:/run/secrets/tedee:ro"]
    with engine.exporter("real", IMAGE, ANY_PORT, options=options) as exporter:
        exporter.wait_until_ready()
        assert exporter.value("tedee_up", account="default") == 1
        command_line = Path(f"/proc/{engine.inspect('real')['State']['Pid']}/cmdline").read_text()
        assert "--web.listen-address" in command_line
        assert "simulated-key-home" not in command_line


def is_up(exporter: Exporter) -> bool:
    return exporter.value("tedee_up", account="default") == 1


def test_composed_replicas_share_a_database(engine: Engine, address: Address) -> None:
    services = yaml.safe_load((ROOT / "compose.replicas.yaml").read_text("utf-8"))["services"]
    with ExitStack() as stack:
        database = stack.enter_context(running_server())
        replicas = []
        for name in ("exporter-1", "exporter-2"):
            given = {key: value for key, value in services[name]["environment"].items() if value is not None}
            environment = given | {
                "TEDEE_PERSONAL_KEY": "simulated-key-home",
                "TEDEE_STATE_URL": database.url,
                "TEDEE_API_URL": address.url,
            }
            options = [*CONFINED, *(f"--env={key}={value}" for key, value in environment.items())]
            assert services[name]["read_only"]
            assert services[name]["cap_drop"] == ["ALL"]
            replicas.append(stack.enter_context(engine.exporter(name, IMAGE, ANY_PORT, options=options)))
        for each in replicas:
            eventually(partial(is_up, each), "both replicas to serve the locks")
            assert each.value("tedee_exporter_state_usable") == 1
        assert database.execute("SELECT count(*) > 0 FROM tedee_exporter.responses") == [(True,)]


# The chart


def test_pod_of_the_chart_syncs_with_minimal_privileges(engine: Engine) -> None:
    simulator = ["python3", "-m", "exporter.simulator", "--port=8080", "--strict"]
    made = release(
        {
            "image": {"repository": IMAGE, "tag": "latest", "pullPolicy": "Never"},
            "existingSecret": "tedee-keys",
            "config": {"accounts": [{"name": "home"}], "api": {"url": CLOUD}},
            # Containers of a pod share the loopback interface.
            "extraContainers": [
                {"name": "cloud", "image": '{{ include "tedee-exporter.image" . }}', "command": simulator}
            ],
        }
    )
    key = base64.b64encode(b"simulated-key-home").decode()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tedee-keys"}, "data": {"home": key}}
    (tested,) = made.one("Pod")["spec"]["containers"]
    command = [word.replace("tedee-exporter.locks.svc", "127.0.0.1") for word in tested["command"]]
    with engine.pod(made.pod["spec"], [*made.all("ConfigMap"), secret], BASE):
        state = status(engine, "pod-exporter")
        assert state["Uid"].split() == state["Gid"].split() == [str(USER)] * 4
        assert (int(state["CapEff"], 16), state["NoNewPrivs"]) == (0, "1")
        assert "Read-only file system" in engine.run("exec", "pod-exporter", "touch", "/opt/file").stderr
        # It waits until the exporter is ready: 31 seconds after its start, because it has no state.
        engine("exec", "pod-exporter", *command)
        code = "import urllib.request as u; print(u.urlopen('http://localhost:10333/metrics').read().decode())"
        metrics = engine("exec", "pod-exporter", "python3", "-c", code)
        assert 'tedee_up{account="home"} 1.0' in metrics
        assert "tedee_exporter_state_file_usable 1.0" in metrics
        assert engine.inspect("pod-exporter")["HostConfig"]["Memory"] == 256 * 2**20
        engine("stop", "pod-exporter")
        assert engine.inspect("pod-exporter")["State"]["ExitCode"] == 0


# systemd

DROP_IN = f"[Service]\nEnvironment=TEDEE_API_URL={CLOUD}\n"


def test_systemd_starts_reloads_and_stops_the_service(engine: Engine, tmp_path: Path) -> None:
    key, drop_in = tmp_path / "personal-key", tmp_path / "simulated.conf"
    key.write_text("simulated-key-home")
    key.chmod(0o600)
    drop_in.write_text(DROP_IN)
    unit = ROOT / "packaging" / "systemd" / "tedee-exporter.service"
    system = "/etc/systemd/system"
    files = {
        unit: f"{system}/{unit.name}",
        drop_in: f"{system}/{unit.name}.d/{drop_in.name}",
        key: "/etc/tedee-exporter/personal-key",
    }

    def there(*command: str) -> str:
        return engine("exec", "machine", *command)

    def scrape() -> str:
        code = "import urllib.request as u; print(u.urlopen('http://localhost:10333/metrics').read().decode())"
        return engine.run("exec", "machine", "python3", "-c", code).stdout

    def journal() -> str:
        return there("journalctl", "--unit=tedee-exporter", "--no-pager")

    with engine.machine("machine", IMAGE, *(f"--volume={here}:{path}:ro" for here, path in files.items())):
        eventually(lambda: engine.run("exec", "machine", "systemctl", "is-system-running").returncode == 0, "systemd")
        python = "/opt/tedee-exporter/bin/python"
        there("systemd-run", "--unit=cloud", python, "-m", "exporter.simulator", "--port=8080", "--strict")
        there("systemctl", "start", "tedee-exporter")
        eventually(lambda: 'tedee_up{account="default"} 1.0' in scrape(), "the service to have synced")
        metrics = scrape()
        assert "tedee_exporter_state_file_usable 1.0" in metrics
        assert "process_start_time_seconds 1." in metrics
        main = there("systemctl", "show", "--property=MainPID", "--value", "tedee-exporter").strip()
        assert there("stat", "--format=%u", f"/proc/{main}").strip() != "0"
        there("systemctl", "reload", "tedee-exporter")
        eventually(lambda: 'msg="configuration reloaded"' in journal(), "the service to reload")
        there("systemctl", "stop", "tedee-exporter")
        assert "msg=stopped" in journal()
        assert "level=warn" not in journal()
        assert there("systemctl", "show", "--property=Result", "--value", "tedee-exporter").strip() == "success"
