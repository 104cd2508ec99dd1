"""Listen addresses, and sockets that listen on them."""

import errno
import os
import re
import socket
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address

BACKLOG = 1024
"""Connections that may wait to be accepted."""


class BadAddress(ValueError):
    """A listen address that does not have the required form."""


class CannotListen(Exception):
    """An address or socket that cannot be listened on. The message has the address and the reason."""


FIRST_SYSTEMD_SOCKET = 3
"""File descriptor of the first socket that systemd passes (sd_listen_fds(3)); the others follow."""


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of `:10333`, `127.0.0.1:10333` or `[::1]:10333`. An empty host means all addresses.

    `[::]` means all addresses of both families, as in Go, and an IPv4-mapped address is the IPv4 address.

    Raises:
        BadAddress: The address has another form.
    """
    match = re.fullmatch(r"(?:\[(?P<v6>[^\[\]\s]+)\]|(?P<host>[^:\[\]\s]*)):(?P<port>[0-9]{1,5})", address)
    if not match or int(match["port"]) > 65_535:  # noqa: PLR2004
        raise BadAddress(f"{address!r} is not of the form :10333, 127.0.0.1:10333 or [::1]:10333")
    return _ipv6_host(match["v6"]) if match["v6"] else match["host"], int(match["port"])


def _ipv6_host(text: str) -> str:
    try:
        address = IPv6Address(text)
    except ValueError:
        raise BadAddress(f"{text!r} is not an IPv6 address") from None
    if address.scope_id and not address.is_link_local:
        raise BadAddress(f"{text!r} has a zone, which only link-local addresses (fe80::) have")
    if address.is_link_local and not address.scope_id:
        raise BadAddress(f"{text!r} is a link-local address without its zone, such as {text}%eth0")
    if address == IPv6Address("::"):
        return ""
    return str(address.ipv4_mapped or address)


def listen(addresses: Iterable[str]) -> list[socket.socket]:
    """Return a listening socket for each address.

    Raises:
        CannotListen: One of the addresses cannot be used.
    """
    listeners: list[socket.socket] = []
    for address in addresses:
        try:
            listener = _listener(*parse_address(address))
        except (OSError, UnicodeError) as error:  # UnicodeError: an invalid host name
            for each in listeners:
                each.close()
            # Python appends the address as a tuple: "Address already in use (while attempting to bind on …)".
            why = str(getattr(error, "strerror", None) or "not a host name").partition(" (while")[0]
            raise CannotListen(f"cannot listen on {address}: {why}") from None
        listeners.append(_without_delay(listener))
    return listeners


def systemd_listeners(environ: Mapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets that systemd passes to this process.

    Raises:
        CannotListen: There are none, or one is not a listening TCP socket.
    """
    if not is_socket_activated(environ):
        raise CannotListen("systemd passed no sockets (LISTEN_FDS); start the exporter by its .socket unit")
    listeners = []
    for number in range(FIRST_SYSTEMD_SOCKET, FIRST_SYSTEMD_SOCKET + int(environ["LISTEN_FDS"])):
        problem = f"socket {number} of systemd is not a listening TCP socket; the .socket unit needs ListenStream=PORT"
        try:
            listener = socket.socket(fileno=number)
            is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            raise CannotListen(problem) from None
        is_tcp = listener.family in {socket.AF_INET, socket.AF_INET6} and listener.type == socket.SOCK_STREAM
        if not (is_tcp and is_listening):
            raise CannotListen(f"{problem} and no Accept=yes")
        listener.set_inheritable(False)
        listeners.append(_without_delay(listener))
    return listeners


def format_address(listener: socket.socket) -> str:
    """Return the address of a listening socket, such as `127.0.0.1:10333` or `[::]:10333`."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if listener.family == socket.AF_INET6 else f"{host}:{port}"


def _without_delay(listener: socket.socket) -> socket.socket:
    # Accepted sockets inherit this. Without it, head and body reach a client with keep-alive 40 ms apart.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def is_socket_activated(environ: Mapping[str, str]) -> bool:
    """Return whether systemd passes sockets to this process, as it does under a socket unit."""
    number = environ.get("LISTEN_FDS", "")
    return number.isdecimal() and int(number) > 0 and environ.get("LISTEN_PID") == str(os.getpid())


def _listener(host: str, port: int) -> socket.socket:
    """Listen on a host. An empty host means all addresses, of both families if the system has them."""
    if not host and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
        except OSError as error:
            if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:  # IPv6 is disabled
                raise
    found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)  # noqa: S104
    # If a name such as localhost has addresses of both families, IPv4 is used, as in Go.
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return socket.create_server(address[:4], family=family, backlog=BACKLOG)
