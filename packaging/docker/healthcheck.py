"""The image's health check: asks the exporter whether it is healthy, wherever its flags say that it listens.

COMMAND_LINE is where its flags are: /proc/1/cmdline, since it is process 1 of its container. (With the host's
processes, `--pid=host`, or a shell around it, it is not: say `--no-healthcheck` there.) Exit codes: 0 healthy, 1 not.
"""

import argparse
import http.client
import ssl
import sys
from pathlib import Path

TIMEOUT = 4.0
"""Seconds for each of two tries: less than the image gives both."""


def main() -> int:
    """Ask, tell, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command_line", nargs="?", type=Path, default="/proc/1/cmdline", metavar="COMMAND_LINE")
    words = parser.parse_args().command_line.read_text("utf-8", "replace").split("\0")
    try:
        healthy = answers(*listens(words))
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer: {error!r}")
        return 1
    print("healthy" if healthy else "not healthy")
    return 0 if healthy else 1


def listens(words: list[str]) -> tuple[str, int]:
    """Return host and port of the first address that a command line has the exporter listen on."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--web.listen-address", dest="addresses", action="append")
    # `docker run --init` puts a process before the exporter, and a -- between them.
    known, _ = flags.parse_known_args([word for word in words if word != "--"])
    host, _, port = (known.addresses or [":10333"])[0].rpartition(":")
    # [::] means both families, and a machine without IPv6 cannot connect to it.
    return "localhost" if host in {"", "[::]"} else host.strip("[]"), int(port)


def answers(host: str, port: int) -> bool:
    """Return whether it is healthy, asked without TLS and then, if it refuses that, with it.

    Raises:
        OSError, http.client.HTTPException: it does not answer, or nonsense.
    """
    status = ask(http.client.HTTPConnection(host, port, timeout=TIMEOUT))
    if status != http.client.BAD_REQUEST:
        return status == http.client.OK
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Whose certificate it is does not matter: this does not leave the container.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return ask(http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)) == http.client.OK
    except (ConnectionResetError, ssl.SSLError):
        # It wants a certificate of its clients, and was well enough to insist on it.
        return True


def ask(connection: http.client.HTTPConnection) -> int:
    """Return the status of its health page.

    Raises:
        OSError, http.client.HTTPException: it does not answer, or nonsense.
    """
    connection.request("GET", "/-/healthy")
    return connection.getresponse().status


if __name__ == "__main__":
    sys.exit(main())
