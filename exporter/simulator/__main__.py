"""`python -m exporter.simulator`: run a simulated Tedee cloud for development."""

import argparse
import json
import re
import signal
import threading

from .cloud import Cloud
from .server import serve
from .world import START_HOUR, World


def main() -> None:
    """Serve a world until interrupted. Print its URL and the key of each account."""
    parser = argparse.ArgumentParser(
        prog="python -m exporter.simulator",
        description="Simulated Tedee cloud for development, and to try alerts. Point an exporter to it with "
        "TEDEE_API_URL=URL and TEDEE_PERSONAL_KEY=KEY, which it prints.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--seed", type=int, default=1, help="determines how the locks are used")
    parser.add_argument("--strict", action="store_true", help="respond with 429 to calls that violate the limits")
    parser.add_argument("--accounts", type=int, help="generate this many accounts instead of those of the demo")
    parser.add_argument("--locks", type=int, default=10, help="number of locks of each generated account")
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="ID:FIELD=VALUE",
        help="set a field of a device's responses, such as 1001:stateChangeResult=1 (jammed); may be repeated",
    )
    arguments = parser.parse_args()
    if arguments.accounts is None:
        world = World.demo(arguments.seed, start_hour=START_HOUR)
    else:
        world = World.of_size(arguments.accounts, arguments.locks, arguments.seed)
    for text in arguments.override:
        try:
            override(world, text)
        except ValueError as error:
            parser.error(f"argument --override: {error}")
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


def override(world: World, text: str) -> None:
    """Set a field of the devices with an id, of which there is one in each account that the device belongs to.

    Args:
        world: The world of the devices.
        text: ID:FIELD=VALUE. A value that is not JSON is a string.

    Raises:
        ValueError: The text has another format, or there is no device with the id.
    """
    if not (found := re.fullmatch(r"(\d+):(\w+)=(.*)", text)):
        raise ValueError(f"{text}: not ID:FIELD=VALUE")
    devices = [each for account in world.accounts for each in account.devices if each.id == int(found[1])]
    if not devices:
        raise ValueError(f"{text}: no device has this id")
    try:
        value = json.loads(found[3])
    except ValueError:
        value = found[3]
    for device in devices:
        device.override(**{found[2]: value})


if __name__ == "__main__":
    main()
