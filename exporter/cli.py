"""Command line: flags, wiring and exit codes.

Exit codes: 0 success (also after SIGTERM and SIGINT), 1 failure, 2 invalid flags or configuration.
"""

import argparse
import os
import platform
import socket
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from queue import Empty
from typing import NoReturn, get_args

import structlog

from . import __version__, logs
from .accounts import CALL_GRACE, Accounts
from .clock import Clock, SystemClock, format_duration
from .config import (
    ENVIRONMENT,
    BadShard,
    ConfigurationError,
    NotConfigured,
    Settings,
    Shard,
    Source,
    default_state_file,
    load,
    unused_variables,
)
from .config.model import BEGINS_WITH_TILDE
from .console import OUTPUT, flush_stdout, print_err, print_out, printable
from .metrics.collector import ExporterCollector
from .metrics.exposition import Exposition, Renderer
from .presentation import NO_VALUE, DeviceRow, LockRow, device_rows, format_time
from .reload import Reload
from .secrets import hide_arguments
from .signals import Command, Commands, supervise
from .state.stores import OpenStore, open_store
from .sync.scheduler import Scheduler
from .sync.snapshot import AccountStatus, Lock, StatusRegistry
from .tedee.certificates import tls_context
from .tedee.errors import TransportError
from .typos import close_match
from .web.app import create_app
from .web.configuration import WebConfiguration
from .web.connections import Connections
from .web.limits import Limits
from .web.listeners import (
    BadAddress,
    CannotListen,
    format_address,
    is_socket_activated,
    listen,
    parse_address,
    systemd_listeners,
)
from .web.server import WebServer
from .web.urls import (
    DEFAULT_TELEMETRY_PATH,
    BadUrl,
    Urls,
    parse_external_url,
    parse_route_prefix,
    parse_telemetry_path,
)

log = structlog.get_logger(__name__)

OK, FAILED, INVALID, INTERRUPTED = 0, 1, 2, 130

SYNC_LOGGER = "exporter.sync.account"
"""Logger of the syncs and their failures."""

DEFAULT_ADDRESS = ":10333"
DEMO_ADDRESS = "127.0.0.1:10333"
"""Default address of the demo, which is for the users of this machine."""
REPEATABLE = frozenset({"--web.listen-address"})
"""Flags that may be repeated."""
SOCKET_UNIT = "systemd passes sockets (LISTEN_FDS), which are used only with --web.systemd-socket"

HOW_TO_START = """\
tedee-exporter: no account is configured. Set TEDEE_PERSONAL_KEY to a Tedee personal access key,
or TEDEE_PERSONAL_KEY_FILE to a file with the key, or list the accounts in a file: --config.file=tedee-exporter.yml.
To try the exporter without a key, run it with a simulated Tedee cloud: --demo."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Arguments without the name of the program. By default those of the process.

    Returns:
        The exit code.
    """
    parser = _create_parser()
    options = parser.parse(sys.argv[1:] if arguments is None else arguments)
    if options.demo and (options.config_file or options.config_check):
        parser.error("--demo cannot be combined with --config.file or --config.check")
    if options.config_check and options.sync_once:
        parser.error("--config.check and --sync.once cannot be combined")
    if options.web_systemd_socket and options.web_listen_addresses:
        parser.error("--web.systemd-socket and --web.listen-address cannot be combined")
    logs.configure(options.log_level, options.log_format)
    return supervise(partial(_run, options), serves=not (options.config_check or options.sync_once))


def _run(options: argparse.Namespace, commands: Commands) -> int:
    try:
        with _load_configuration(options) as (settings, web):
            if options.config_check:
                if problems := list(filter(None, [_database_problem(settings), _certificates_problem()])):
                    print_err("\n".join(problems))
                    return INVALID
                names = ", ".join(printable(account.name) for account in settings.accounts)
                accounts = f"accounts: {names}" if names else f"shard {options.shard} has none of its accounts"
                print_out(f"The configuration is valid; {accounts}")
                return OK if flush_stdout() else FAILED
            if options.sync_once:
                return sync_once(settings, commands, options)
            return serve(settings, web, commands, options)
    except NotConfigured as error:
        print_err("\n".join([HOW_TO_START, *error.args]))
    except ConfigurationError as error:
        print_err(str(error))
    return INVALID


def serve(
    settings: Settings,
    web_configuration: WebConfiguration,
    commands: Commands,
    options: argparse.Namespace,
) -> int:
    """Sync and serve until a signal stops the program."""
    try:
        listeners = _open_listeners(options)
    except CannotListen as error:
        hint = f"; {SOCKET_UNIT}" if is_socket_activated(os.environ) else ""
        print_err(f"tedee-exporter: {error}; choose another address with --web.listen-address{hint}")
        return FAILED
    clock = SystemClock()
    store = _open_store(settings, clock, options)
    registry, scheduler = StatusRegistry(), Scheduler(clock)
    accounts = Accounts(clock, store, registry, scheduler, shards=_shard_count(options))
    accounts.apply(settings)
    reload = Reload(
        settings,
        lambda: settings if options.demo else options.shard.select(load(options.config_file, is_reload=True)),
        accounts.apply,
        web_configuration.reload_if_changed,
        clock,
    )
    collector = ExporterCollector(__version__, reload.result, store.states.is_usable, lambda: OUTPUT.dropped_lines)
    exposition = Exposition(registry, collector, clock)
    renderer = Renderer(exposition)
    registry.on_change(renderer.wake)
    urls = Urls.of(options.web_telemetry_path, options.web_external_url, options.web_route_prefix)
    web = WebServer(
        create_app(
            registry,
            exposition,
            clock,
            version=__version__,
            urls=urls,
            reload=None if options.demo else reload.request,
            state_problem=store.states.problem,
            security_policy=lambda: web_configuration.security_policy,
        ),
        [listener for _, listener in listeners],
        Connections(Limits.of_this_process(), lambda: web_configuration.security_policy),
    )

    log.info(
        "starting",
        version=__version__,
        accounts=len(settings.accounts),
        interval=format_duration(settings.sync.interval),
        api_version=settings.api.version,
        state=store.states.name,
    )
    renderer.start()
    web.start()
    scheduler.start()
    reload.start()
    for address, listener in listeners:
        log.info(
            "listening",
            address=address,
            port=listener.getsockname()[1],
            tls=web_configuration.security_policy.tls is not None,
            users=len(web_configuration.security_policy.users),
        )
    if options.demo:
        scheme = "https" if web_configuration.security_policy.tls else "http"
        address, listener = listeners[0]
        host, port = listener.getsockname()[:2]
        is_open = ip_address(host).is_unspecified
        url = f"{scheme}://{'localhost' if is_open else address.rpartition(':')[0]}:{port}"
        names = [account.name for account in settings.accounts]
        _print_demo_guide(url + urls.prefix, urls.telemetry_path, names, on_all_addresses=is_open)
    code = FAILED
    while web.alive():
        received = _receive(commands)
        if Command.STOP in received:
            code = OK
            break
        if Command.RELOAD in received:
            reload.request()
        reload.check()
    if code != OK:
        log.error("the web server stopped unexpectedly")
    scheduler.stop()
    web.stop()
    accounts.close()
    store.close()
    log.info("stopped")
    return code


def _open_listeners(options: argparse.Namespace) -> list[tuple[str, socket.socket]]:
    """Return the listening sockets of the flags, each with its address.

    Raises:
        CannotListen: An address cannot be used.
        ConfigurationError: systemd passed no suitable sockets.
    """
    if options.web_systemd_socket:
        try:
            return [(format_address(each), each) for each in systemd_listeners(os.environ)]
        except CannotListen as error:
            raise ConfigurationError([f"--web.systemd-socket: {error}"]) from None
    addresses = options.web_listen_addresses or [DEMO_ADDRESS if options.demo else DEFAULT_ADDRESS]
    listeners = listen(addresses)
    if is_socket_activated(os.environ):
        log.warning(SOCKET_UNIT)
    return list(zip(addresses, listeners, strict=True))


def _open_store(settings: Settings, clock: Clock, options: argparse.Namespace) -> OpenStore:
    """Open the state store. The demo stores states in memory, since its cloud ends with the process."""
    place: Path | Callable[[], str] | None = None
    if not options.demo:
        place = settings.database_url or settings.state_file or default_state_file(os.environ)
    return open_store(place, clock, longest_call=settings.api.timeout + CALL_GRACE, shard=str(options.shard))


def _database_problem(settings: Settings) -> str | None:
    """Return why the state database cannot be used now; None if it can, or if a file is used."""
    if not settings.database_url:
        return None
    url = settings.database_url()
    from .state.postgresql_database import describe, find_problem  # noqa: PLC0415  (the driver is optional)

    problem = find_problem(url)
    return problem and f"the state database {describe(url)} cannot be used: {problem}"


def _certificates_problem() -> str | None:
    """Return why connections to Tedee cannot verify its certificate; None if they can."""
    try:
        tls_context()
    except TransportError as error:
        return error.problem
    return None


def _shard_count(options: argparse.Namespace) -> int:
    """Return the number of processes that share the accounts. The demo has its own accounts."""
    return 1 if options.demo else options.shard.count


def sync_once(settings: Settings, commands: Commands, options: argparse.Namespace) -> int:
    """Sync each account once and print tables of the locks and the other devices."""
    if not settings.accounts:
        print_err(
            f"Nothing to sync: shard {options.shard} has none of the configured accounts; "
            "--config.check lists the accounts of another --shard."
        )
        return OK
    if problem := _database_problem(settings):
        print_err(problem)
        return FAILED
    if options.log_level != "debug":
        # The failures are printed after the syncs.
        logs.silence(SYNC_LOGGER)
    clock = SystemClock()
    started = clock.wall()
    store = _open_store(settings, clock, options)
    registry, scheduler = StatusRegistry(), Scheduler(clock)
    accounts = Accounts(clock, store, registry, scheduler, shards=_shard_count(options))
    accounts.apply(settings)
    wait = max(0.0, *((status.next_sync or 0.0) - clock.wall() for status in registry.statuses()))
    if wait > 1:
        print_err(f"Waiting for {wait:.0f} seconds, until Tedee's limits and the wait after failures allow a sync.")
    scheduler.start()
    while not all(status.is_complete(started, clock.wall()) for status in registry.statuses()):
        with suppress(Empty):
            if commands.get(timeout=0.05) is Command.STOP:
                print_err("Interrupted.")
                scheduler.stop()
                accounts.close()
                return INTERRUPTED
    scheduler.stop()
    stored = accounts.close()
    store.close()
    code = _print_table(registry.statuses())
    return code if stored else FAILED


def _print_table(statuses: Sequence[AccountStatus]) -> int:
    from tabulate import tabulate  # noqa: PLC0415  (this import takes a twentieth of the startup time)

    succeeded = all(status.up for status in statuses)
    for status in statuses:
        failures = (status.failure, *(resource.failure for resource in status.other_resources))
        problems = [failure.message for failure in failures if failure]
        if any(resource.is_permitted is False for resource in status.other_resources):
            problems.append("Tedee refuses the events: the key needs the scope DeviceActivity.Read")
        for problem in problems:
            print_err(f"{printable(status.account)}: {problem}")
        succeeded = succeeded and not problems
    rows = [
        _table_row(status.account, lock) for status in statuses if status.snapshot for lock in status.snapshot.locks
    ]
    devices = [
        _device_table_row(status.account, row)
        for status in statuses
        if status.snapshot
        for row in device_rows(status, status.snapshot.locks)
    ]
    table = tabulate(rows, headers="keys", disable_numparse=True) if rows else "These accounts have no locks."
    if rows or succeeded:
        print_out(table)
    if devices:
        print_out("\n" + tabulate(devices, headers="keys", disable_numparse=True))
    return OK if flush_stdout() and succeeded else FAILED


@contextmanager
def _load_configuration(options: argparse.Namespace) -> Iterator[tuple[Settings, WebConfiguration]]:
    """Load both configurations. All errors are reported at once."""
    web, problems = None, []
    try:
        web = WebConfiguration(options.web_config_file, warn=print_err if options.config_check else log.warning)
    except ConfigurationError as error:
        problems = error.problems
    with ExitStack() as stack:
        try:
            settings = options.shard.select(stack.enter_context(_load_settings(options)))
        except ConfigurationError as error:
            raise ConfigurationError(error.problems + problems) from None
        except NotConfigured:
            if problems:
                print_err("\n".join(problems))
            raise
        if web is None:
            raise ConfigurationError(problems)
        yield settings, web


@contextmanager
def _load_settings(options: argparse.Namespace) -> Iterator[Settings]:
    """Load the settings. For the demo, run a simulated cloud while the context is open."""
    if not options.demo:
        check = options.config_check
        yield load(options.config_file, check_secrets=check, warn=print_err if check else log.warning)
        return
    for problem in unused_variables(os.environ, "--demo"):
        log.warning(problem)
    from . import simulator  # noqa: PLC0415  (only the demo needs this import)

    world = simulator.World.demo(start_hour=simulator.START_HOUR)
    with simulator.serve(simulator.Cloud(world, strict=True)) as cloud:
        yield Source(
            {
                "api": {"url": cloud.url},
                "events": {"enabled": True},
                "accounts": [
                    {"name": account.name, "personal_key": account.keys[0].value} for account in world.accounts
                ],
            }
        ).validated(Settings)


class _HelpFormatter(argparse.HelpFormatter):
    """Formatter that does not break URLs and flags at a hyphen."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return textwrap.indent("\n".join(self._split_lines(text, width - len(indent))), indent)


class _Parser(argparse.ArgumentParser):
    """Parser that rejects repeated flags and hides possible secrets in its errors, which may be logged."""

    _arguments: Sequence[str] = ()

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse the flags. An unknown flag, or a repeated one that is not REPEATABLE, ends the program with code 2."""
        self._arguments = arguments
        options, unknown = self.parse_known_args(arguments)
        counts = Counter(each.partition("=")[0] for each in arguments if each.startswith("--"))
        if unknown:
            known = [flag for action in self._actions for flag in action.option_strings]
            close = [close_match(each.partition("=")[0], known) for each in unknown if each.startswith("-")]
            names = " and ".join(dict.fromkeys(filter(None, close)))
            self.error(f"unrecognized arguments: {' '.join(unknown)}{names and f'; did you mean {names}?'}")
        for flag, times in counts.items():
            if times > 1 and flag not in REPEATABLE:
                self.error(f"argument {flag}: given {times} times; give it once")
        return options

    def error(self, message: str) -> NoReturn:
        message = message.replace("ignored explicit argument", "takes no value, but has")
        super().error(hide_arguments(message, self._arguments, known=self._option_string_actions))


def _create_parser() -> _Parser:
    parser = _Parser(
        prog="tedee-exporter",
        description="Prometheus exporter for Tedee smart locks.",
        epilog="Without --config.file, environment variables configure one account: "
        + ", ".join(ENVIRONMENT)
        + ". See https://github.com/tedee-exporter/tedee-exporter/blob/main/docs/configuration.md.",
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    add = parser.add_argument
    add("--config.file", dest="config_file", type=_file, metavar="FILE", help="YAML file with the accounts")
    add(
        "--config.check",
        dest="config_check",
        action="store_true",
        help="validate the configuration and exit (0: valid, 2: invalid)",
    )
    add(
        "--web.listen-address",
        dest="web_listen_addresses",
        type=_listen_address,
        action="append",
        metavar="[HOST]:PORT",
        help=f"address to listen on; may be repeated (default {DEFAULT_ADDRESS}, with --demo {DEMO_ADDRESS})",
    )
    add(
        "--web.systemd-socket",
        dest="web_systemd_socket",
        action="store_true",
        help="use the sockets of a systemd .socket unit instead of listen addresses",
    )
    add(
        "--web.telemetry-path",
        dest="web_telemetry_path",
        type=_checked(parse_telemetry_path),
        default=DEFAULT_TELEMETRY_PATH,
        metavar="PATH",
        help="path of the metrics (default %(default)s)",
    )
    add(
        "--web.external-url",
        dest="web_external_url",
        type=_checked(parse_external_url),
        default="",
        metavar="URL",
        help="URL of the status page for clients, for example behind a proxy; its path is the default route prefix",
    )
    add(
        "--web.route-prefix",
        dest="web_route_prefix",
        type=_checked(parse_route_prefix),
        default="",
        metavar="PATH",
        help="path below which all endpoints are (default: the path of --web.external-url)",
    )
    add(
        "--web.config.file",
        dest="web_config_file",
        type=_file,
        metavar="FILE",
        help="YAML file that enables TLS and basic authentication, in the format of Prometheus' exporter-toolkit",
    )
    add(
        "--shard",
        type=_shard,
        default=Shard(),
        metavar="I/N",
        help="serve shard I of N (zero-based) of the configured accounts",
    )
    add(
        "--log.level",
        dest="log_level",
        type=_log_level,
        choices=logs.LEVELS,
        default="info",
        help="minimum level of log lines (default %(default)s)",
    )
    add(
        "--log.format",
        dest="log_format",
        choices=get_args(logs.Format),
        default="logfmt",
        help="format of log lines (default %(default)s)",
    )
    add(
        "--sync.once",
        dest="sync_once",
        action="store_true",
        help="sync once, print the locks and other devices, and exit (0: all accounts succeeded, 1: some failed)",
    )
    add("--demo", action="store_true", help="run with a simulated Tedee cloud, without a key")
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


def _log_level(text: str) -> str:
    """Return the level as in LEVELS. exporter-toolkit accepts any case, and log lines have `warning`."""
    level = {"warning": "warn"}.get(text.lower(), text.lower())
    return level if level in logs.LEVELS else text


def _file(name: str) -> Path:
    if not name:
        raise argparse.ArgumentTypeError("must not be empty")
    if name.startswith("~"):
        raise argparse.ArgumentTypeError(BEGINS_WITH_TILDE)
    return Path(name)


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except BadShard as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _checked(parse: Callable[[str], str]) -> Callable[[str], str]:
    """Return a type of arguments that reports BadUrl."""

    def parse_argument(text: str) -> str:
        try:
            return parse(text)
        except BadUrl as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def _table_row(account: str, lock: Lock) -> dict[str, str]:
    row = LockRow.of(lock)
    return {
        "account": printable(account),
        "lock": printable(row.name),
        "id": str(lock.id),
        "state": row.state.text,
        "door": row.door.text,
        "battery": "" if row.battery is None else f"{row.battery} %{' charging' if row.charging else ''}",
        "connection": row.connection.text,
        "changed": "" if row.changed is None else format_time(row.changed),
    }


def _device_table_row(account: str, row: DeviceRow) -> dict[str, str]:
    return {
        "account": printable(account),
        "device": printable(row.name),
        "kind": row.kind,
        "id": str(row.id),
        "locks": printable(row.locks),
        "battery": f"{row.battery} %" if row.battery is not None else "no level" if row.has_battery else "",
        "connection": row.connection.text if row.connection != NO_VALUE else "",
        "level changed": "" if row.battery_changed is None else format_time(row.battery_changed),
    }


def _receive(commands: Commands) -> set[Command]:
    """Wait up to a second for commands and return all that are in the queue, without duplicates."""
    received = set()
    with suppress(Empty):
        received.add(commands.get(timeout=1.0))
        while True:
            received.add(commands.get_nowait())
    return received


def _print_demo_guide(url: str, telemetry_path: str, accounts: Sequence[str], *, on_all_addresses: bool) -> None:
    """Print the URLs of the demo, and its accounts with what to look at."""
    from . import simulator  # noqa: PLC0415  (only the demo needs this import)

    world = simulator.World.demo()
    separator = "\n" + " " * 12
    guide = "\n".join(f"    {name:8}{separator.join(world.account(name).highlights)}" for name in accounts)
    width = max(len("/docs"), len(telemetry_path))
    from_others = (
        "\n  The demo listens on all addresses. Machines that can reach the port use this machine's name in the URL.\n"
        if on_all_addresses
        else ""
    )
    print_out(
        f"""
  The exporter is polling a simulated Tedee cloud, where the time of day is {simulator.START_HOUR}:00 at the start. Open

    {url}{"/":{width}} for the status page
    {url}{telemetry_path:{width}} for the metrics
    {url}{"/docs":{width}} for a scrape configuration and the meaning of the codes
{from_others}
  Accounts, and what to look at:

{guide}

  For your own locks, set TEDEE_PERSONAL_KEY_FILE=FILE and omit --demo. Press Ctrl+C to stop.
"""
    )
