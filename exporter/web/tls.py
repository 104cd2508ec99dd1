"""Converts the TLS settings of exporter-toolkit, which have Go's names, to a context of Python's ssl module."""

import os
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
DEPRECATED_VERSIONS = ("TLS10", "TLS11")
"""Deprecated by RFC 8996. OpenSSL 3 does not use them at its default security level."""

CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
UNVERIFIED_CLIENT_AUTH = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
"""Go's modes that accept unverified certificates. Python's ssl module has no equivalent."""

CIPHER_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}
"""Go's names of the suites for TLS 1.2 to OpenSSL's. Go's `tls.CipherSuites()` has the last four up to Go 1.21."""
TLS13_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
"""Always enabled with TLS 1.3, as in Go."""

MEMORY_FILES = Path("/proc/self/fd")
"""Folder in which anonymous files have names. It may be absent in a container or a chroot."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
"""Folder in memory."""


class UnusableTls(Exception):
    """The TLS settings cannot be used; `key` is the setting to correct."""

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


@dataclass(frozen=True)
class Pem:
    """Certificates or a key in PEM format."""

    content: bytes
    file: Path | None
    """The file that they were read from; None if they are inline in the configuration."""

    def __repr__(self) -> str:
        return f"Pem({self.file or 'inline'})"

    def __str__(self) -> str:
        return str(self.file or "it")


def server_context(
    certificate: Pem,
    key: Pem,
    *,
    client_auth: ssl.VerifyMode = ssl.CERT_NONE,
    client_ca: Pem | None = None,
    versions: tuple[ssl.TLSVersion, ssl.TLSVersion] = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3),
    cipher_suites: Sequence[str] = (),
    prefer_own_order: bool = True,
) -> ssl.SSLContext:
    """Return the TLS context of a server.

    Args:
        certificate: Certificate of the server, with intermediate certificates.
        key: Private key of the certificate.
        client_auth: Whether a client must present a certificate.
        client_ca: CAs of client certificates; the system's CAs if None.
        versions: Minimum and maximum TLS version.
        cipher_suites: Go's names of the suites for TLS 1.2; OpenSSL's default suites if empty.
        prefer_own_order: Whether the order of the server's suites takes precedence over that of the client.

    Raises:
        UnusableTls: A setting cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = versions
    context.set_alpn_protocols(["http/1.1"])
    if not prefer_own_order:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if cipher_suites:
        _set_cipher_suites(context, cipher_suites)
    _load_pair(context, certificate, key)
    if client_auth != ssl.CERT_NONE:
        context.verify_mode = client_auth
        # As in Go, an intermediate CA in the bundle is trusted without its root.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if client_ca is None:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        else:
            try:
                # Only comments can contain characters other than ASCII.
                context.load_verify_locations(cadata=client_ca.content.decode("ascii", errors="ignore"))
            except (ssl.SSLError, ValueError):
                raise UnusableTls("client_ca", f"{client_ca} contains no certificates in PEM format") from None
    return context


def _set_cipher_suites(context: ssl.SSLContext, suites: Sequence[str]) -> None:
    names = [CIPHER_SUITES[suite] for suite in suites if suite not in TLS13_SUITES]
    if not names:  # only suites for TLS 1.3
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return
    for name in names:  # one at a time, because OpenSSL ignores unknown names in a list
        try:
            context.set_ciphers(name)
        except ssl.SSLError:
            raise UnusableTls("cipher_suites", f"the installed OpenSSL does not support {name}") from None
    context.set_ciphers(":".join(names))


def _load_pair(context: ssl.SSLContext, certificate: Pem, key: Pem) -> None:
    if b"ENCRYPTED" in key.content:
        raise UnusableTls("key", f"{key} is encrypted, which is not supported: no passphrase can be entered")
    if b"-----BEGIN CERTIFICATE-----" not in certificate.content:
        raise UnusableTls("cert", f"{certificate} contains no certificate in PEM format")
    if b"PRIVATE KEY-----" not in key.content:
        raise UnusableTls("key", f"{key} contains no private key in PEM format")
    try:
        with _readable(certificate.content) as certificate_file, _readable(key.content) as key_file:
            context.load_cert_chain(certificate_file, key_file, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UnusableTls("key", f"{key} is not the key of {certificate}") from None
        raise UnusableTls("cert", f"{certificate} or {key} is invalid") from None
    except OSError as error:
        raise UnusableTls("key", f"{key} cannot be passed to OpenSSL: {error.strerror}") from None


@contextmanager
def _readable(content: bytes) -> Iterator[str]:
    """Provide a file with this content, because Python's ssl reads certificates and keys only from files.

    The file is in memory: an anonymous file if there is /proc, otherwise one in /dev/shm. Without either it is a
    temporary file, which exists only while OpenSSL reads it. Other users cannot read it.
    """
    if MEMORY_FILES.is_dir() and hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pem")
        try:
            os.write(descriptor, content)
            yield str(MEMORY_FILES / str(descriptor))
        finally:
            os.close(descriptor)
        return
    folder = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK | os.X_OK) else None
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(content)
        file.flush()
        yield file.name
