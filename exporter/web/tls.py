"""A TLS server in Python's terms, from what exporter-toolkit's users write in Go's."""

import os
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
BROKEN_VERSIONS = ("TLS10", "TLS11")
"""Deprecated by RFC 8996; today's OpenSSL does not speak them at its default security level."""

CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
UNVERIFIED_CLIENT_AUTH = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
"""Go's ways to take any certificate, verified by nobody. Python's ssl has none of them."""

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
"""Go's names (`tls.CipherSuites()`, of Go 1.21 and before the last four, too) to OpenSSL's; for TLS 1.2."""
TLS13_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
"""Always on with TLS 1.3, in Go as here."""


MEMORY_FILES = Path("/proc/self/fd")
"""Folder in which anonymous files have names. A container or a chroot may be without /proc."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
"""Folder on no disk."""


class UnusableTls(Exception):
    """No TLS server can be made of this; `key` is the one to look at."""

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


@dataclass(frozen=True)
class Pem:
    """Certificates or a key in PEM form."""

    content: bytes
    file: Path | None
    """Where they come from; None where they stand in the configuration."""

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
    """The context of a server.

    Args:
        certificate: of the server, with those between it and its CA.
        key: of the certificate.
        client_auth: whether a client has to show a certificate.
        client_ca: who may have signed that; the system's CAs where it is None.
        versions: the least and the greatest.
        cipher_suites: Go's names, for TLS 1.2; OpenSSL's own choice where there are none.
        prefer_own_order: whether the order of the suites here counts, and not that of the client.

    Raises:
        UnusableTls: something does not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = versions
    context.set_alpn_protocols(["http/1.1"])
    if not prefer_own_order:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if cipher_suites:
        _choose(context, cipher_suites)
    _load_pair(context, certificate, key)
    if client_auth != ssl.CERT_NONE:
        context.verify_mode = client_auth
        # As in Go, a CA in the bundle is trusted, whoever has signed it.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if client_ca is None:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        else:
            try:
                # What is not ASCII can only stand in a comment.
                context.load_verify_locations(cadata=client_ca.content.decode("ascii", errors="ignore"))
            except (ssl.SSLError, ValueError):
                raise UnusableTls("client_ca", f"{client_ca} holds no certificates in PEM form") from None
    return context


def _choose(context: ssl.SSLContext, suites: Sequence[str]) -> None:
    wanted = [CIPHER_SUITES[suite] for suite in suites if suite not in TLS13_SUITES]
    if not wanted:  # none for TLS 1.2, so none of it
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return
    for name in wanted:  # of a list OpenSSL takes what it knows, and does not tell
        try:
            context.set_ciphers(name)
        except ssl.SSLError:
            raise UnusableTls("cipher_suites", f"this machine's OpenSSL has no {name}") from None
    context.set_ciphers(":".join(wanted))


def _load_pair(context: ssl.SSLContext, certificate: Pem, key: Pem) -> None:
    if b"ENCRYPTED" in key.content:
        raise UnusableTls("key", f"{key} is encrypted, and there is nobody to ask for the passphrase")
    if b"-----BEGIN CERTIFICATE-----" not in certificate.content:
        raise UnusableTls("cert", f"{certificate} holds no certificate in PEM form")
    if b"PRIVATE KEY-----" not in key.content:
        raise UnusableTls("key", f"{key} holds no private key in PEM form")
    try:
        with _readable(certificate.content) as certificate_file, _readable(key.content) as key_file:
            context.load_cert_chain(certificate_file, key_file, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UnusableTls("key", f"{key} is not the key of {certificate}") from None
        raise UnusableTls("cert", f"{certificate} or {key} is broken") from None
    except OSError as error:
        raise UnusableTls("key", f"{key} cannot be passed on to OpenSSL: {error.strerror}") from None


@contextmanager
def _readable(content: bytes) -> Iterator[str]:
    """Provide the name of a file with this content: Python's ssl reads certificates and keys only from files.

    The file is in memory: an anonymous one if there is /proc, otherwise one in /dev/shm. Without either it is a
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
