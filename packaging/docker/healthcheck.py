"""The health check of the image. It requests /-/healthy at the address that the exporter's flags set.

COMMAND_LINE is the file with these flags. The default is /proc/1/cmdline, because the exporter is process 1 of its
container. If it is not (with `--pid=host` or started by a shell), use `--no-healthcheck`.
Exit codes: 0 healthy, 1 not healthy.
"""

import argparse
import http.client
import ssl
import sys
from pathlib import Path

TIMEOUT = 4.0
"""Seconds for each of at most two requests. The sum is less than the time-out of HEALTHCHECK."""


def main() -> int:
    """Check, print the result, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command_line", nargs="?", type=Path, default="/proc/1/cmdline", metavar="COMMAND_LINE")
    words = parser.parse_args().command_line.read_text("utf-8", "replace").split("\0")
    try:
        healthy = is_healthy(*listen_address(words))
    except (OSError, http.client.HTTPException) as error:
        print(f"no response: {error!r}")
        return 1
    print("healthy" if healthy else "not healthy")
    return 0 if healthy else 1


def listen_address(words: list[str]) -> tuple[str, int]:
    """Return host and port of the first listen address in a command line."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--web.listen-address", dest="addresses", action="append")
    # `docker run --init` adds the command of its init process, followed by --.
    known, _ = flags.parse_known_args([word for word in words if word != "--"])
    host, _, port = (known.addresses or [":10333"])[0].rpartition(":")
    # [::] accepts both families, but a machine without IPv6 cannot connect to [::].
    return "localhost" if host in {"", "[::]"} else host.strip("[]"), int(port)


def is_healthy(host: str, port: int) -> bool:
    """Returns True if the exporter is healthy. Uses TLS if the exporter rejects plain HTTP.

    Raises:
        OSError, http.client.HTTPException: no response, or an invalid one.
    """
    status = get_status(http.client.HTTPConnection(host, port, timeout=TIMEOUT))
    if status != http.client.BAD_REQUEST:
        return status == http.client.OK
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The connection does not leave the container, so the certificate is not verified.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return get_status(http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)) == http.client.OK
    except (ConnectionResetError, ssl.SSLError):
        # The exporter requires a client certificate. It is healthy if it rejects the handshake.
        return True


def get_status(connection: http.client.HTTPConnection) -> int:
    """Return the HTTP status of /-/healthy.

    Raises:
        OSError, http.client.HTTPException: no response, or an invalid one.
    """
    connection.request("GET", "/-/healthy")
    return connection.getresponse().status


if __name__ == "__main__":
    sys.exit(main())
