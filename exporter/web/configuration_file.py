"""Reads the file of `--web.config.file` and the files that it names."""

import os
from collections.abc import Iterator
from pathlib import Path

from exporter.config import ConfigurationError
from exporter.config.permissions import permission_warning
from exporter.config.yaml_source import read_file

from .policy import LoadedPolicy, RateLimit, SecurityPolicy
from .settings import WebSettings
from .tls import DEPRECATED_VERSIONS, UnusableTls


def load_web_configuration(path: Path, *, is_reload: bool = False) -> LoadedPolicy:
    """Read the file and the files that it names.

    Args:
        path: Path of the file.
        is_reload: True if the file was read before and was regular. Reading another kind of file might never end.

    Raises:
        ConfigurationError: With all errors in the files.
    """
    # A file that is being written is empty for a moment. It must not disable TLS and passwords.
    source = read_file(path, may_be_empty=not is_reload, is_reload=is_reload)
    settings = source.validated(WebSettings)
    tls = settings.tls_server_config
    try:
        context = tls.context() if tls else None
    except UnusableTls as error:
        key = f"{error.key}_file" if getattr(tls, f"{error.key}_file", None) else error.key
        raise ConfigurationError([source.format_error(("tls_server_config", key), str(error))]) from None
    policy = SecurityPolicy(
        context,
        frozenset(tls.client_allowed_sans if tls else ()),
        settings.basic_auth_users or {},
        settings.http_server_config.headers,
        RateLimit(settings.rate_limit.interval, settings.rate_limit.burst),
    )
    pems = [tls.cert_file, tls.key_file, tls.client_ca_file] if tls else []
    files = {path: source.content} | {pem.file: pem.content for pem in pems if pem and pem.file}
    # A file that is not regular, such as <(…) of a shell, can be read only once. Its changes are not detected.
    regular = os.path.isfile(path)  # noqa: PTH113  (never raises)
    return LoadedPolicy(policy, tuple(_warnings(settings, path)), files if regular else {})


def _warnings(settings: WebSettings, path: Path) -> Iterator[str]:
    """Yield a warning for each setting that is insecure or has no effect."""
    tls, http = settings.tls_server_config, settings.http_server_config
    if http.http2:
        yield f"{path}: http_server_config.http2: HTTP/2 is not supported; clients use HTTP/1.1 instead"
    if tls and tls.min_version in DEPRECATED_VERSIONS:
        key = f"{path}: tls_server_config.min_version"
        yield f"{key}: {tls.min_version} is deprecated (RFC 8996); TLS12 is used instead"
    if settings.basic_auth_users and not tls:
        yield f"{path}: basic_auth_users without tls_server_config: passwords are sent unencrypted"
    secret_files = [tls.key_file.file] if tls and tls.key_file and tls.key_file.file else []
    if settings.basic_auth_users or (tls and tls.key):
        secret_files.append(path)
    yield from filter(None, map(permission_warning, secret_files))
