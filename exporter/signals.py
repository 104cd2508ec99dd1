"""Signals, and the thread that runs the program while the main thread waits for them.

Python runs signal handlers on the main thread, between two of its instructions. A system call that does not return
there (a file on a server that does not answer, a slow resolver, a pipe without a reader) would keep signals from having
any effect. So the main thread makes no such call.
"""

import signal
import threading
import time
import traceback
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType

from .background import CRITICAL_WORK
from .console import OUTPUT, print_err

OK, CRASHED, INTERRUPTED = 0, 1, 130
"""Exit codes. The last is the one by which shells know a program that Ctrl+C ended."""

STOP_SECONDS = 1.5
"""How long a program that serves may take to end after a signal."""
CRITICAL_SECONDS = 20.0
"""How long it may take to end while there is work that must not be cut off."""
STALL_SECONDS = 0.5
"""How long the end of the process waits for an output that takes nothing, and for a program that does not serve."""


class Command(Enum):
    """What a signal asks for."""

    STOP = auto()
    RELOAD = auto()


Commands = SimpleQueue[Command]
"""What signals ask for. A signal handler may put something into a SimpleQueue at any time."""

SIGNALS = {signal.SIGTERM: Command.STOP, signal.SIGINT: Command.STOP, signal.SIGHUP: Command.RELOAD}


def supervise(program: Callable[[Commands], int], *, serves: bool) -> int:
    """Run a program until it ends, or until SIGTERM or SIGINT ends it.

    Args:
        program: gets the queue of commands and returns the exit code.
        serves: whether it runs until a signal ends it, for which it is then given some time. A program that ends by
            itself (one sync, a check) is interrupted by the signal; otherwise all that it prints is waited for.

    Returns:
        the exit code.
    """
    commands: Commands = SimpleQueue()
    events: SimpleQueue[Command | int] = SimpleQueue()
    for number, command in SIGNALS.items():
        signal.signal(number, partial(_handle, commands, events, command))
    stall = STALL_SECONDS if serves else None
    # All other threads block the signals: one that is delivered to another thread does not wake the main thread, and
    # its handler would not run.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_run, args=(program, commands, events, stall), name="program", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    event = events.get()
    grace = STOP_SECONDS if serves else STALL_SECONDS
    latest = time.monotonic() + CRITICAL_SECONDS
    ends = time.monotonic() + grace
    while isinstance(event, Command):
        try:
            event = events.get(timeout=max(0.0, ends - time.monotonic()))
        except Empty:
            code = OK if serves else INTERRUPTED
            if not CRITICAL_WORK.is_under_way():
                return code
            if time.monotonic() >= latest:
                print_err("stopped while a refresh token was exchanged; it may be necessary to sign in to Tedee again")
                OUTPUT.flush(STALL_SECONDS)
                return code
            ends = time.monotonic() + grace
    return event


def _handle(
    commands: Commands, events: SimpleQueue[Command | int], command: Command, _number: int, _frame: FrameType | None
) -> None:
    commands.put(command)
    if command is Command.STOP:
        events.put(command)


def _run(
    program: Callable[[Commands], int], commands: Commands, events: SimpleQueue[Command | int], stall: float | None
) -> None:
    try:
        code = program(commands)
    except BaseException:  # noqa: BLE001  (what Python itself would print, but into the queue)
        print_err(traceback.format_exc().rstrip())
        code = CRASHED
    OUTPUT.flush(stall)
    events.put(code)
