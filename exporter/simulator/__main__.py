"""`python -m exporter.simulator`: run a simulated Tedee cloud for development."""

import argparse
import signal
import threading

from .cloud import Cloud
from .server import serve
from .world import START_HOUR, World


def main() -> None:
    """Serve a world until interrupted. Print its URL and the key of each account."""
    parser = argparse.ArgumentParser(prog="python -m exporter.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--seed", type=int, default=1, help="determines how the locks are used")
    parser.add_argument("--strict", action="store_true", help="respond with 429 to calls that violate the limits")
    parser.add_argument("--accounts", type=int, help="generate this many accounts instead of those of the demo")
    parser.add_argument("--locks", type=int, default=10, help="number of locks of each generated account")
    arguments = parser.parse_args()
    if arguments.accounts is None:
        world = World.demo(arguments.seed, start_hour=START_HOUR)
    else:
        world = World.of_size(arguments.accounts, arguments.locks, arguments.seed)
    for number in (signal.SIGINT, signal.SIGTERM):
        # SIGINT as well: a shell that starts the program in the background makes it ignore SIGINT.
        signal.signal(number, signal.default_int_handler)
    with serve(Cloud(world, strict=arguments.strict), arguments.host, arguments.port) as address:
        print(address.url)
        for account in world.accounts:
            print(f"{account.name}: {len(account.locks)} locks, key {account.keys[0].value}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    main()
