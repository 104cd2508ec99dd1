"""`python -m bench`: run the benchmark, print the results and write them to docs/performance.md."""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable

from . import lateness, memory, memory_growth, refreshes, replicas, scrapes, starts, syncs
from .environment import users_environment
from .machine import MEASURING_CORE, ROOT, Options, description
from .report import Part, report
from .rounds import MOST

DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- made by: make bench -->\n", "<!-- made by make bench: end -->\n"
NEEDED = ("nginx", "taskset", "wrk")
PARTS: dict[str, Callable[[Options], Part]] = {
    "start": starts.measure,
    "memory": memory.measure,
    "syncs": syncs.measure,
    "refreshes": refreshes.measure,
    "lateness": lateness.measure,
    "replicas": replicas.measure,
    "growth": memory_growth.measure,
    "scrapes": scrapes.measure,
}


def names(text: str) -> list[str]:
    """Return the parts of a list such as `start,memory`, in the order in which they are measured."""
    chosen = set(text.split(","))
    if unknown := chosen - PARTS.keys():
        raise argparse.ArgumentTypeError(f"unknown part {', '.join(sorted(unknown))}; known are {', '.join(PARTS)}")
    return [name for name in PARTS if name in chosen]


def measure(name: str, options: Options) -> Part:
    """Measure one part, and print its progress in one line."""
    print(f"{name} ", end="", flush=True, file=sys.stderr)
    began = time.monotonic()
    part = PARTS[name](options)
    print(f" {time.monotonic() - began:.0f} s", file=sys.stderr)
    return part


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only",
        type=names,
        default=list(PARTS),
        metavar="PART,…",
        help=f"measure only these parts ({', '.join(PARTS)}) and do not write the file",
    )
    parser.add_argument("--rounds", type=int, default=MOST, help="highest number of rounds (default %(default)s)")
    parser.add_argument(
        "--watch", type=float, default=180.0, help="seconds for lateness, refreshes and replicas (default %(default)s)"
    )
    arguments = parser.parse_args()
    if missing := [program for program in NEEDED if not shutil.which(program)]:
        print(f"missing: {', '.join(missing)}; on Debian: apt-get install nginx-light util-linux wrk", file=sys.stderr)
        return 1
    machine = description()
    with users_environment() as programs:
        os.sched_setaffinity(0, {MEASURING_CORE})
        options = Options(
            exporter=(str(programs / "tedee-exporter"),),
            python=str(programs / "python"),
            rounds=arguments.rounds,
            watch=arguments.watch,
        )
        text = f"{machine}\n\n{report([measure(name, options) for name in arguments.only])}"
    print(text)
    if arguments.only == list(PARTS):
        before, _, after = DOCUMENT.read_text("utf-8").partition(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}{text}{END}{after.partition(END)[2]}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
