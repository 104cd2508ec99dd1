"""The health check of the image. It requests /-/healthy at the address and below the prefix that the flags set.

COMMAND_LINE is the file with these flags. The default is /proc/1/cmdline, because the exporter is process 1 of its
container. If it is not (with `--pid=host` or started by a shell), use `--no-healthcheck`.
Exit codes: 0 healthy, 1 not healthy.
"""

import argparse
import http.client
import ssl
import sys
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT = 4.0
"""Seconds for each of at most two requests. The sum is less than the time-out of HEALTHCHECK."""


def main() -> int:
    """Check, print the result, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command_line", nargs="?", type=Path, default="/proc/1/cmdline", metavar="COMMAND_LINE")
    words = parser.parse_args().command_line.read_text("utf-8", "replace").split("\0")
    try:
        healthy = is_healthy(*listen_address(words), path=f"{route_prefix(words)}/-/healthy")
    except (OSError, http.client.HTTPException) as error:
        print(f"no response: {error!r}")
        return 1
    print("healthy" if healthy else "not healthy")
    return 0 if healthy else 1


def listen_address(words: list[str]) -> tuple[str, int]:
    """Return host and port of the first listen address in a command line."""
    host, _, port = (parse_flags(words).addresses or [":10333"])[0].rpartition(":")
    # [::] accepts both families, but a machine without IPv6 cannot connect to [::].
    return "localhost" if host in {"", "[::]"} else host.strip("[]"), int(port)


def route_prefix(words: list[str]) -> str:
    """Return the path below which the endpoints are; empty if there is none."""
    flags = parse_flags(words)
    prefix = flags.route_prefix or urlsplit(flags.external_url).path
    return f"/{prefix.strip('/')}".rstrip("/")


def parse_flags(words: list[str]) -> argparse.Namespace:
    """Return the flags that determine the URL of the check."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--web.listen-address", dest="addresses", action="append")
    flags.add_argument("--web.external-url", dest="external_url", default="")
    flags.add_argument("--web.route-prefix", dest="route_prefix")
    # `docker run --init` adds the command of its init process, followed by --.
    return flags.parse_known_args([word for word in words if word != "--"])[0]


def is_healthy(host: str, port: int, path: str) -> bool:
    """Returns True if the exporter is healthy. Uses TLS if the exporter rejects plain HTTP.

    Raises:
        OSError, http.client.HTTPException: no response, or an invalid one.
    """
    status = get_status(http.client.HTTPConnection(host, port, timeout=TIMEOUT), path)
    if status != http.client.BAD_REQUEST:
        return status == http.client.OK
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The connection does not leave the container, so the certificate is not verified.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
        return get_status(connection, path) == http.client.OK
    except (ConnectionResetError, ssl.SSLError):
        # The exporter requires a client certificate. It is healthy if it rejects the handshake.
        return True


def get_status(connection: http.client.HTTPConnection, path: str) -> int:
    """Return the HTTP status of a path.

    Raises:
        OSError, http.client.HTTPException: no response, or an invalid one.
    """
    connection.request("GET", path)
    return connection.getresponse().status


if __name__ == "__main__":
    sys.exit(main())
