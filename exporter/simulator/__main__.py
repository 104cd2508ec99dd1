"""`python -m exporter.simulator`: a Tedee cloud to develop against."""

import argparse
import signal
import threading

from .cloud import Cloud
from .server import serve
from .world import World


def main() -> None:
    """Serve a world until interrupted, and say where it is and what opens it."""
    parser = argparse.ArgumentParser(prog="python -m exporter.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes any that is free")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another life of the same locks")
    parser.add_argument("--strict", action="store_true", help="answer 429 to calls that break the limits")
    parser.add_argument("--accounts", type=int, help="this many made-up accounts in place of the demonstration's two")
    parser.add_argument("--locks", type=int, default=10, help="how many locks each made-up account has")
    arguments = parser.parse_args()
    if arguments.accounts is None:
        world = World.demo(arguments.seed)
    else:
        world = World.of_size(arguments.accounts, arguments.locks, arguments.seed)
    for number in (signal.SIGINT, signal.SIGTERM):
        # Set even for SIGINT: who starts it in the background may have it ignored.
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
