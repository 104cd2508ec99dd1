"""The CA certificates that connections trust, as TLS contexts."""

import os
import re
import ssl
import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from exporter.secrets import safe_path

from .errors import TlsFailed, TransportError


@dataclass(frozen=True)
class CaCertificates:
    """The CA certificates that are trusted."""

    paths: tuple[str, ...]
    """Files in PEM format, and folders in which OpenSSL looks a certificate up by the hash of its name."""
    source: str
    """Who chose them, for error messages."""

    def note(self) -> str:
        """Return a note for error messages."""
        paths = ", ".join(safe_path(Path(path)) for path in self.paths)
        return f" (trusted CA certificates: {paths}, {self.source})"


def trusted_certificates() -> CaCertificates:
    """Return the CA certificates that the environment names, otherwise those of the system.

    The variables are those of requests and of OpenSSL, in this order of precedence. If the system has no certificates,
    those of certifi are trusted, which requests depends on.
    """
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := os.environ.get(name):
            return CaCertificates((path,), f"from {name}")
    file = os.environ.get("SSL_CERT_FILE")
    folders = [folder for folder in os.environ.get("SSL_CERT_DIR", "").split(os.pathsep) if folder]
    if file or folders:
        names = [name for name, value in (("SSL_CERT_FILE", file), ("SSL_CERT_DIR", folders)) if value]
        paths = (*([file] if file else []), *_existing(folders))
        return CaCertificates(paths, f"from {' and '.join(names)}")
    defaults = ssl.get_default_verify_paths()
    system = [path for path in (defaults.openssl_cafile, defaults.openssl_capath) if _has_certificates(Path(path))]
    if system:
        return CaCertificates(tuple(system), "those of the system")
    return CaCertificates((DEFAULT_CA_BUNDLE_PATH,), "those of certifi, because the system has none")


def tls_context() -> ssl.SSLContext:
    """Return the TLS context that trusts the CA certificates.

    Loading a file of all public CAs takes about 15 ms of CPU time, so the context is cached until a file or a folder
    changes. From a folder, OpenSSL loads only the certificates that it needs.

    Raises:
        TransportError: The certificates cannot be read.
    """
    paths = trusted_certificates().paths
    return _cached_context(paths, tuple(map(_version, paths)))


def _existing(folders: Sequence[str]) -> Sequence[str]:
    """Return the folders that exist, or all if none does. Like OpenSSL's, a list may have those of several systems."""
    return [folder for folder in folders if Path(folder).is_dir()] or folders


def _has_certificates(path: Path) -> bool:
    """Return True for a file that is not empty, and for a folder with a certificate that OpenSSL can find."""
    try:
        if path.is_dir():
            return any(re.fullmatch(r"[0-9a-f]{8}\.[0-9]+", each.name) for each in path.iterdir())
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def _version(path: str) -> tuple[int, ...]:
    """Return numbers that change with the content of a file or folder."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        # Opening a FIFO would wait for a writer.
        raise _unreadable(path, "it is neither a regular file nor a folder")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _unreadable(path: str, reason: str) -> TransportError:
    problem = (
        f"the CA certificates in {safe_path(Path(path))}, {trusted_certificates().source}, cannot be read: {reason}"
    )
    return TransportError(TlsFailed, f"TLS failed: {problem}")


@lru_cache(maxsize=1)
def _cached_context(paths: tuple[str, ...], _versions: tuple[tuple[int, ...], ...]) -> ssl.SSLContext:
    return _create_context(paths)


class _SharedContext(ssl.SSLContext):
    """A TLS context that connections of many threads use at once."""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Do nothing: OpenSSL replaces the list in place, while another thread may be copying it."""


def _create_context(paths: Iterable[str]) -> ssl.SSLContext:
    context = _SharedContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificates and host names
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if sys.version_info >= (3, 13):  # as ssl.create_default_context
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    super(_SharedContext, context).set_alpn_protocols(["http/1.1"])
    for path in paths:
        folder = Path(path).is_dir()
        try:
            context.load_verify_locations(cafile=None if folder else path, capath=path if folder else None)
        except ssl.SSLError:
            raise _unreadable(path, "it contains no certificate in PEM format, or an invalid one") from None
        except OSError as error:
            raise _unreadable(path, str(error.strerror)) from None
    return context
