"""`python -m bench`: run the benchmark, print the results and write them to docs/performance.md."""

import argparse
import shutil
import sys

from . import lateness, memory_growth, refreshes, report, scrapes, starts, syncs
from .machine import ROOT, description

DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- made by: make bench -->\n", "<!-- made by make bench: end -->\n"
NEEDED = ("nginx", "taskset", "wrk")


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="length of each round of scrapes (default %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default %(default)s)")
    parser.add_argument(
        "--watch", type=float, default=180.0, help="seconds for lateness and refreshes (default %(default)s)"
    )
    arguments = parser.parse_args()
    if missing := [program for program in NEEDED if not shutil.which(program)]:
        print(f"missing: {', '.join(missing)}; on Debian: apt-get install nginx-light util-linux wrk", file=sys.stderr)
        return 1
    machine = description()
    figures = report.Figures(
        start=starts.measure(),
        memory=starts.memory(),
        syncs=syncs.measure(),
        refreshes=refreshes.measure(arguments.watch),
        lateness=lateness.measure(arguments.watch),
        week=memory_growth.measure(),
        scrapes=scrapes.measure(arguments.seconds, arguments.rounds),
    )
    text = "\n".join(
        [
            machine,
            "",
            report.goals(figures),
            report.other_results(figures),
            "Scrapes, with p50 and processor time of the peers as multiples of the exporter's:",
            "",
            report.scrapes(figures),
        ]
    )
    print(text)
    before, _, after = DOCUMENT.read_text("utf-8").partition(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}{text}{END}{after.partition(END)[2]}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
