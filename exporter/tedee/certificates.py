"""The CA certificates that connections trust, as TLS contexts."""

import os
import ssl
import stat
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from exporter.secrets import safe_path

from .errors import TlsFailed, TransportError


def tls_context(bundle: str) -> ssl.SSLContext:
    """Return the TLS context that trusts the CA certificates in a file or folder.

    Loading a file of all public CAs takes about 15 ms of CPU time, so the context is cached until the file changes.
    From a folder, OpenSSL loads only the certificates that it needs.

    Raises:
        TransportError: The certificates cannot be read.
    """
    try:
        status = Path(bundle).stat()
        if stat.S_ISREG(status.st_mode):
            return _cached_context(bundle, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        reason = "it is neither a regular file nor a folder"  # opening a FIFO would wait for a writer
        if stat.S_ISDIR(status.st_mode):
            return _create_context(bundle)
    except OSError as error:  # ssl.SSLError is one
        reason = str(error.strerror)
    problem = f"the CA certificates in {safe_path(Path(bundle))} cannot be read: {reason}"
    raise TransportError(TlsFailed, f"TLS failed: {problem}")


@lru_cache(maxsize=1)
def _cached_context(bundle: str, _version: tuple[int, ...]) -> ssl.SSLContext:
    return _create_context(bundle)


class _SharedContext(ssl.SSLContext):
    """A TLS context that connections of many threads use at once."""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Do nothing: OpenSSL replaces the list in place, while another thread may be copying it."""


def _create_context(bundle: str) -> ssl.SSLContext:
    context = _SharedContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificates and host names
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if sys.version_info >= (3, 13):  # as ssl.create_default_context
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    super(_SharedContext, context).set_alpn_protocols(["http/1.1"])
    folder = Path(bundle).is_dir()
    context.load_verify_locations(cafile=None if folder else bundle, capath=bundle if folder else None)
    return context


def ca_bundle() -> str:
    """Return the file or folder of the CA certificates: that of requests, unless the environment has another."""
    return _custom_ca_bundle() or DEFAULT_CA_BUNDLE_PATH


def custom_ca_note() -> str:
    """Return a note for error messages that names the CA certificates, if they are not those of requests."""
    bundle = _custom_ca_bundle()
    return f" (trusted CA certificates: {safe_path(Path(bundle))})" if bundle else ""


def _custom_ca_bundle() -> str | None:
    """Return the CA certificates from the environment, in the order of precedence of requests and OpenSSL."""
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)
