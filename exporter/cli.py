"""The command line: flags, wiring, signals and exit codes.

Exit codes: 0 all well (SIGTERM and SIGINT included), 1 it could not do its work, 2 it was told to do something wrong.
"""

import argparse
import platform
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import get_args

import requests
import structlog
from tabulate import tabulate

from . import __version__, logs
from .clock import Clock, SystemClock
from .config import ENVIRONMENT, Account, ChosenLocks, ConfigurationError, NotConfigured, Settings, load
from .metrics.collector import ExporterCollector
from .metrics.exposition import Exposition
from .sync.account import AccountSync, Chosen
from .sync.budget import Budget
from .sync.scheduler import MOST_WORKERS, Scheduler
from .sync.snapshot import AccountStatus, Board, Lock
from .tedee.client import TedeeClient, session
from .tedee.credentials import access_token, personal_key
from .web.app import create_app
from .web.pages import moment
from .web.server import BadAddress, WebServer, listen, parse_address
from .web.status import LockRow

log = structlog.get_logger(__name__)

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130

HOW_TO_START = """\
tedee-exporter: no account is configured. Either set TEDEE_PERSONAL_KEY (or TEDEE_PERSONAL_KEY_FILE) to a Tedee
personal access key, or name a file that lists accounts with --config.file=tedee-exporter.yml,
or see it work without a key, against a simulated Tedee cloud, with --demo."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: without the program's name; those of the process by default.

    Returns:
        the exit code.
    """
    options = _parser().parse_args(arguments)
    logs.configure(options.log_level, options.log_format)
    try:
        with _settings(options) as settings:
            if options.config_check:
                names = ", ".join(printable(account.name) for account in settings.accounts)
                print(f"The configuration is good; accounts: {names}")
                return OK
            if options.sync_once:
                return sync_once(settings)
            return serve(settings, options)
    except NotConfigured:
        _complain(HOW_TO_START)
    except ConfigurationError as error:
        _complain(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    return MISUSED


def serve(settings: Settings, options: argparse.Namespace) -> int:
    """Sync and serve until a signal says to stop."""
    host, port = parse_address(options.web_listen_address)
    try:
        listener = listen(host, port)
    except (OSError, UnicodeError) as error:  # the latter for a host name that cannot be one
        # Python appends the address as a tuple: "Address already in use (while attempting to bind on …)".
        why = str(getattr(error, "strerror", None) or "not a host name").partition(" (while")[0]
        _complain(
            f"tedee-exporter: cannot listen on {options.web_listen_address}: {why}; "
            "choose another with --web.listen-address"
        )
        return FAILED
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stopper(stop))

    clock = SystemClock()
    loaded_at = clock.wall()
    board = Board()
    accounts = build_accounts(settings, clock, board.publish)
    exposition = Exposition(board, ExporterCollector(__version__, lambda: (True, loaded_at)), clock)
    board.on_change(exposition.refresh)
    app = create_app(board, exposition, clock, version=__version__, telemetry_path=options.web_telemetry_path)
    web = WebServer(app, listener)
    scheduler = Scheduler(accounts, clock, interval=settings.sync.interval)

    web.start()
    scheduler.start()
    shown_port = listener.getsockname()[1]
    log.info(
        "listening", address=options.web_listen_address, port=shown_port, accounts=len(accounts), version=__version__
    )
    if options.demo:
        _invite(shown_port, options.web_telemetry_path)
    while web.alive() and not stop.wait(timeout=1.0):
        pass
    died = not stop.is_set()
    scheduler.stop()
    web.stop()
    log.info("stopped") if not died else log.error("the web server ended by itself")
    return FAILED if died else OK


def sync_once(settings: Settings) -> int:
    """One real sync of each account, and a table of the locks."""
    clock = SystemClock()
    board = Board()
    accounts = build_accounts(settings, clock, board.publish)
    with ThreadPoolExecutor(max_workers=min(MOST_WORKERS, len(accounts))) as workers:
        for turn in [workers.submit(account.turn) for account in accounts]:
            turn.result()
    statuses = board.statuses()
    for status in statuses:
        for failure in filter(None, (status.failure, status.details_failure)):
            _complain(failure.message)
    rows = [
        _table_row(status.account, lock) for status in statuses if status.snapshot for lock in status.snapshot.locks
    ]
    if rows:
        print(tabulate(rows, headers="keys", disable_numparse=True))
    elif all(status.up for status in statuses):
        print("Tedee knows no locks in these accounts.")
    return OK if all(status.up for status in statuses) else FAILED


def build_accounts(
    settings: Settings, clock: Clock, publish: Callable[[AccountStatus], None]
) -> tuple[AccountSync, ...]:
    """The accounts of the configuration, each with its own gate; all share one pool of connections."""
    connections = session(MOST_WORKERS)
    accounts = tuple(_build_account(account, settings, connections, clock, publish) for account in settings.accounts)
    for account in accounts:
        publish(account.status())
    return accounts


def _build_account(
    account: Account,
    settings: Settings,
    connections: requests.Session,
    clock: Clock,
    publish: Callable[[AccountStatus], None],
) -> AccountSync:
    key, secret = account.credential
    chosen = account.locks or ChosenLocks.model_construct()
    return AccountSync(
        account.name,
        partial(
            TedeeClient,
            account.name,
            url=settings.api.url,
            version=settings.api.version,
            credentials=personal_key(secret) if key.startswith("personal_key") else access_token(secret),
            timeout=settings.api.timeout,
            session=connections,
            user_agent=f"tedee-exporter/{__version__}",
        ),
        Budget(clock, interval=settings.sync.interval, requests_per_hour=settings.sync.requests_per_hour),
        clock,
        publish,
        stale_after=settings.sync.stale_after,
        chosen=Chosen(chosen.ids or (), chosen.serial_numbers or ()),
    )


@contextmanager
def _settings(options: argparse.Namespace) -> Iterator[Settings]:
    """The settings to run with; for the demo, those of a simulated cloud that runs as long as they are used."""
    if not options.demo:
        yield load(options.config_file, check_secrets=options.config_check)
        return
    from . import simulator  # noqa: PLC0415  (only the demo pays for it)

    world = simulator.World.demo()
    with simulator.serve(simulator.Cloud(world, strict=True)) as cloud:
        yield Settings.model_validate(
            {
                "api": {"url": cloud.url},
                "accounts": [
                    {"name": account.name, "personal_key": account.keys[0].value} for account in world.accounts
                ],
            }
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tedee-exporter",
        description="Prometheus exporter for Tedee smart locks.",
        epilog="Without --config.file one account is taken from the environment: "
        + ", ".join(ENVIRONMENT)
        + ". README.md says more.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config.file", dest="config_file", type=Path, metavar="FILE", help="YAML file with the accounts")
    add(
        "--config.check",
        dest="config_check",
        action="store_true",
        help="say everything that is wrong with the configuration, and exit with 0 or 2",
    )
    add(
        "--web.listen-address",
        dest="web_listen_address",
        type=_listen_address,
        default=":10333",
        metavar="[HOST]:PORT",
        help="where to serve (default %(default)s)",
    )
    add(
        "--web.telemetry-path",
        dest="web_telemetry_path",
        type=_telemetry_path,
        default="/metrics",
        metavar="PATH",
        help="path of the metrics (default %(default)s)",
    )
    add("--log.level", dest="log_level", choices=logs.LEVELS, default="info", help="least level (default %(default)s)")
    add("--log.format", dest="log_format", choices=get_args(logs.Format), default="logfmt", help="default %(default)s")
    add(
        "--sync.once",
        dest="sync_once",
        action="store_true",
        help="sync once, print a table of the locks, and exit with 0 or 1",
    )
    add("--demo", action="store_true", help="run against a simulated Tedee cloud inside this process, without a key")
    add(
        "--version",
        action="version",
        version=f"tedee-exporter, version {__version__} (python {platform.python_version()})",
    )
    return parser


def _listen_address(address: str) -> str:
    try:
        parse_address(address)
    except BadAddress as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return address


def _telemetry_path(path: str) -> str:
    if not re.fullmatch(r"(/[\w.~-]+)+", path, re.ASCII) or path.startswith("/-/") or path in {"/-", "/docs"}:
        raise argparse.ArgumentTypeError(f"{path!r} is not a path of its own, such as /metrics")
    return path


def _table_row(account: str, lock: Lock) -> dict[str, str]:
    row = LockRow.of(lock)
    return {
        "account": printable(account),
        "lock": printable(row.name),
        "id": str(lock.id),
        "state": row.state.words,
        "door": row.door.words,
        "battery": "" if row.battery is None else f"{row.battery} %{' charging' if row.charging else ''}",
        "connection": row.connection.words,
        "changed": "" if row.changed is None else moment(row.changed),
    }


def printable(text: str) -> str:
    """A name as a terminal may show it: control characters are escaped, so that they cannot steer it."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _stopper(stop: threading.Event) -> Callable[[int, FrameType | None], None]:
    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    return handle


def _invite(port: int, telemetry_path: str) -> None:
    print(
        f"""
  A simulated Tedee cloud is running, and the exporter reads it as it would the real one. Open

    http://localhost:{port}/{" " * len(telemetry_path)}the locks
    http://localhost:{port}{telemetry_path} what Prometheus scrapes

  Ctrl+C ends both.
""",
        flush=True,
    )


def _complain(message: str) -> None:
    print(message, file=sys.stderr)
