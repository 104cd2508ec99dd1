"""The command line: flags, wiring, signals and exit codes.

Exit codes: 0 all well (SIGTERM and SIGINT included), 1 it could not do its work, 2 it was told to do something wrong.
"""

import argparse
import os
import platform
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum, auto
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NoReturn, get_args

import structlog

from . import __version__, logs
from .clock import Clock, SystemClock
from .config import (
    ENVIRONMENT,
    BadShard,
    ConfigurationError,
    NotConfigured,
    Settings,
    Shard,
    default_state_file,
    load,
)
from .fleet import Fleet
from .metrics.collector import ExporterCollector
from .metrics.exposition import Exposition, Renderer
from .reload import Reload
from .sync.budget import SYNC_SPACING
from .sync.ledger import Ledger, MemoryLedger
from .sync.scheduler import Scheduler
from .sync.snapshot import AccountStatus, Board, Lock
from .sync.state import StateFile
from .tedee.secret import hide_arguments
from .terminal import complain, printable, say
from .web.app import create_app
from .web.configuration import WebConfiguration
from .web.connections import Connections, Limits
from .web.server import BadAddress, WebServer, listen, parse_address
from .web.status import LockRow, moment

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
    parser = _parser()
    parser.given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(parser.given)
    if options.demo and (options.config_file or options.config_check):
        parser.error("--demo brings its own configuration; it goes with neither --config.file nor --config.check")
    logs.configure(options.log_level, options.log_format)
    commands = _commands()
    try:
        with _configured(options) as (settings, web):
            if options.config_check:
                names = ", ".join(printable(account.name) for account in settings.accounts)
                held = f"accounts: {names}" if names else f"shard {options.shard} holds none of its accounts"
                return OK if say(f"The configuration is good; {held}") else FAILED
            if options.sync_once:
                return sync_once(settings, commands, options)
            return serve(settings, web, commands, options)
    except NotConfigured:
        complain(HOW_TO_START)
    except ConfigurationError as error:
        complain(str(error))
    return MISUSED


def serve(
    settings: Settings,
    web_configuration: WebConfiguration,
    commands: "SimpleQueue[Command]",
    options: argparse.Namespace,
) -> int:
    """Sync and serve until a signal says to stop."""
    host, port = parse_address(options.web_listen_address)
    try:
        listener = listen(host, port)
    except (OSError, UnicodeError) as error:  # the latter for a host name that cannot be one
        # Python appends the address as a tuple: "Address already in use (while attempting to bind on …)".
        why = str(getattr(error, "strerror", None) or "not a host name").partition(" (while")[0]
        complain(
            f"tedee-exporter: cannot listen on {options.web_listen_address}: {why}; "
            "choose another with --web.listen-address"
        )
        return FAILED
    clock = SystemClock()
    ledger = _ledger(settings, clock, demo=options.demo)
    board, scheduler = Board(), Scheduler(clock)
    fleet = Fleet(clock, ledger, board, scheduler, shards=_shards(options))
    fleet.apply(settings)
    reload = Reload(
        settings,
        lambda: settings if options.demo else options.shard.of(load(options.config_file)),
        fleet.apply,
        web_configuration.refresh,
        clock,
    )
    exposition = Exposition(board, ExporterCollector(__version__, reload.state, ledger.usable), clock)
    renderer = Renderer(exposition)
    board.on_change(renderer.wake)
    web = WebServer(
        create_app(
            board,
            exposition,
            clock,
            version=__version__,
            telemetry_path=options.web_telemetry_path,
            reload=None if options.demo else reload,
            protection=lambda: web_configuration.protection,
        ),
        listener,
        Connections(Limits.of_this_process(), lambda: web_configuration.protection),
    )

    renderer.start()
    web.start()
    scheduler.start()
    shown_port = listener.getsockname()[1]
    log.info(
        "listening",
        address=options.web_listen_address,
        port=shown_port,
        tls=web_configuration.protection.tls is not None,
        users=len(web_configuration.protection.users),
        accounts=len(settings.accounts),
        version=__version__,
    )
    if options.demo:
        scheme = "https" if web_configuration.protection.tls else "http"
        _invite(f"{scheme}://localhost:{shown_port}", options.web_telemetry_path)
    code = FAILED
    while web.alive():
        asked = _asked(commands)
        if Command.STOP in asked:
            code = OK
            break
        if Command.RELOAD in asked:
            reload()
        else:
            reload.watch()
    if code != OK:
        log.error("the web server ended by itself")
    scheduler.stop()
    web.stop()
    ledger.close()
    log.info("stopped")
    return code


class Command(Enum):
    """What a signal asks for."""

    STOP = auto()
    RELOAD = auto()


SIGNALS = {signal.SIGTERM: Command.STOP, signal.SIGINT: Command.STOP, signal.SIGHUP: Command.RELOAD}


def _ledger(settings: Settings, clock: Clock, *, demo: bool) -> Ledger:
    """Where the calls are written down: nowhere for the demo, whose cloud ends with it."""
    if demo:
        return MemoryLedger()
    return StateFile(settings.state_file or default_state_file(os.environ), clock)


def _shards(options: argparse.Namespace) -> int:
    """How many processes may have called an account: for the demo this one, whose cloud nobody else knows."""
    return 1 if options.demo else options.shard.count


def sync_once(settings: Settings, commands: "SimpleQueue[Command]", options: argparse.Namespace) -> int:
    """One real sync of each account, and a table of the locks."""
    if not settings.accounts:
        complain(
            f"Nothing to sync: shard {options.shard} holds none of the configured accounts; "
            "--config.check with another --shard says which that one holds."
        )
        return OK
    clock = SystemClock()
    ledger = _ledger(settings, clock, demo=options.demo)
    board, scheduler = Board(), Scheduler(clock)
    Fleet(clock, ledger, board, scheduler, shards=_shards(options)).apply(settings)
    wait = max(0.0, *((status.next_sync or 0.0) - clock.wall() for status in board.statuses()))
    if wait > 1:
        complain(f"Waiting for {wait:.0f} seconds: Tedee allows one sync in {SYNC_SPACING:.0f} seconds.")
    scheduler.start()
    while not all(status.settled(clock.wall()) for status in board.statuses()):
        with suppress(Empty):
            if commands.get(timeout=0.05) is Command.STOP:
                complain("Interrupted.")
                return INTERRUPTED
    scheduler.stop()
    ledger.close()
    return _print_table(board.statuses())


def _print_table(statuses: Sequence[AccountStatus]) -> int:
    from tabulate import tabulate  # noqa: PLC0415  (a twentieth of the time that a start takes)

    for status in statuses:
        for failure in filter(None, (status.failure, status.details_failure)):
            complain(f"{printable(status.account)}: {failure.message}")
    rows = [
        _table_row(status.account, lock) for status in statuses if status.snapshot for lock in status.snapshot.locks
    ]
    good = all(status.up for status in statuses)
    table = tabulate(rows, headers="keys", disable_numparse=True) if rows else "Tedee knows no locks in these accounts."
    arrived = say(table) if rows or good else True
    return OK if good and arrived else FAILED


@contextmanager
def _configured(options: argparse.Namespace) -> Iterator[tuple[Settings, WebConfiguration]]:
    """Both configurations; what is wrong with them is told at once."""
    web, problems = None, []
    try:
        web = WebConfiguration(options.web_config_file, warn=complain if options.config_check else log.warning)
    except ConfigurationError as error:
        problems = error.problems
    with ExitStack() as stack:
        try:
            settings = options.shard.of(stack.enter_context(_settings(options)))
        except ConfigurationError as error:
            raise ConfigurationError(error.problems + problems) from None
        except NotConfigured:
            if problems:
                complain("\n".join(problems))
            raise
        if web is None:
            raise ConfigurationError(problems)
        yield settings, web


@contextmanager
def _settings(options: argparse.Namespace) -> Iterator[Settings]:
    """The settings to run with; for the demo, those of a simulated cloud that runs as long as they are used."""
    if not options.demo:
        check = options.config_check
        yield load(options.config_file, check_secrets=check, warn=complain if check else log.warning)
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


class _Parser(argparse.ArgumentParser):
    """A parser whose errors, which may end in a log, do not repeat a key that was given as an argument."""

    given: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        super().error(hide_arguments(message, self.given, known=self._option_string_actions))


def _parser() -> _Parser:
    parser = _Parser(
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
    add(
        "--web.config.file",
        dest="web_config_file",
        type=Path,
        metavar="FILE",
        help="YAML file with TLS and passwords for those who scrape, in the format of Prometheus' exporter-toolkit",
    )
    add(
        "--shard",
        type=_shard,
        default=Shard(),
        metavar="I/N",
        help="be the I-th (from 0) of N processes with the same configuration, each with its part of the accounts",
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


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except BadShard as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _telemetry_path(path: str) -> str:
    segments = path.split("/")[1:]
    odd = {"", ".", "..", "-"} & set(segments)
    if not re.fullmatch(r"(/[\w.~-]+)+", path, re.ASCII) or odd or path == "/docs":
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


def _commands() -> "SimpleQueue[Command]":
    """What signals ask for from now on. The queue is one that a signal handler may put something into at any time."""
    commands: SimpleQueue[Command] = SimpleQueue()
    for number, command in SIGNALS.items():
        signal.signal(number, partial(_enqueue, commands, command))
    return commands


def _enqueue(commands: "SimpleQueue[Command]", command: Command, _number: int, _frame: FrameType | None) -> None:
    commands.put(command)


def _asked(commands: "SimpleQueue[Command]") -> set[Command]:
    """All that was asked for, however often, within a second."""
    asked = set()
    with suppress(Empty):
        asked.add(commands.get(timeout=1.0))
        while True:
            asked.add(commands.get_nowait())
    return asked


def _invite(url: str, telemetry_path: str) -> None:
    say(
        f"""
  A simulated Tedee cloud is running, and the exporter reads it as it would the real one. Open

    {url}/{" " * len(telemetry_path)}the locks
    {url}{telemetry_path} what Prometheus scrapes

  Ctrl+C ends both.
"""
    )
