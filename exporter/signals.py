"""Signal handling: the main thread waits for signals, and another thread runs the program.

Python runs signal handlers on the main thread, between two of its instructions. A system call that blocks there (a
file server that does not respond, a slow resolver, a pipe without a reader) would delay the handlers. So the main
thread makes no such call.
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
"""Exit codes. 130 is the convention of shells for a program ended by Ctrl+C."""

STOP_SECONDS = 1.5
"""Time in which a server must end after a signal."""
CRITICAL_SECONDS = 20.0
"""Time in which the program must end if critical work is in progress."""
STALL_SECONDS = 0.5
"""Time to wait at the end for a blocked output stream, and for a program that is not a server."""


class Command(Enum):
    """Command sent by a signal."""

    STOP = auto()
    RELOAD = auto()


Commands = SimpleQueue[Command]
"""Queue of commands. SimpleQueue is reentrant, so a signal handler can put into it at any time."""

SIGNALS = {signal.SIGTERM: Command.STOP, signal.SIGINT: Command.STOP, signal.SIGHUP: Command.RELOAD}


def supervise(program: Callable[[Commands], int], *, serves: bool) -> int:
    """Run a program until it ends, or until SIGTERM or SIGINT ends it.

    Args:
        program: Receives the queue of commands and returns the exit code.
        serves: Whether the program is a server, which runs until a signal and then has some time to end. Other
            programs (one sync, a check) are interrupted by a signal. If there is none, wait until their output is
            written.

    Returns:
        The exit code.
    """
    commands: Commands = SimpleQueue()
    events: SimpleQueue[Command | int] = SimpleQueue()
    for number, command in SIGNALS.items():
        signal.signal(number, partial(_handle, commands, events, command))
    stall = STALL_SECONDS if serves else None
    # All other threads block the signals: a signal delivered to another thread does not wake the main thread, so its
    # handler would not run.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_run, args=(program, commands, events, stall), name="program", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    event = events.get()
    grace = STOP_SECONDS if serves else STALL_SECONDS
    critical_deadline = time.monotonic() + CRITICAL_SECONDS
    deadline = time.monotonic() + grace
    while isinstance(event, Command):
        try:
            event = events.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            code = OK if serves else INTERRUPTED
            if not CRITICAL_WORK.in_progress():
                return code
            if time.monotonic() >= critical_deadline:
                print_err("stopped during the exchange of a refresh token; you may have to sign in to Tedee again")
                OUTPUT.flush(STALL_SECONDS)
                return code
            deadline = time.monotonic() + grace
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
    except BaseException:  # noqa: BLE001  (print the traceback as Python does, but through the queue)
        print_err(traceback.format_exc().rstrip())
        code = CRASHED
    OUTPUT.flush(stall)
    events.put(code)
