"""Reads keys and tokens from the configuration or their files, and rejects texts that are none."""

import codecs
import re
from pathlib import Path

from exporter.secrets import Secret, read_regular_file, safe_path

SecretSource = Secret | Path
"""A secret, or the file that contains it."""

MAX_SECRET_BYTES = 16 * 2**10
"""Limit of a secret and its file. Tedee's keys have about 60 bytes, its tokens about 2,000."""

MISTAKES = {
    r"([\"']).*\1": "is in quotes; write the {what} without them",
    "<.*>": "is a placeholder in angle brackets; replace it and the brackets by the {what}",
    r"\$\{.*\}|\$\(.*\)|\$[A-Za-z_]\w*|%\w+%|\{\{.*\}\}": (
        "is a variable that was not expanded; write the {what} instead"
    ),
    r"(?i)(export )?\w*(key|token|secret) ?[=:] ?[^=].*": "is of the form NAME=value; write the value alone",
    r"(?i)(authorization: *)?(bearer|personalkey) .*": "begins with a word of a header; write the {what} alone",
    "(?i)(replace-with|paste)-.*|your[-_ ].*|change-?me": "is a placeholder; write the {what} instead",
}
"""Patterns of texts that are no secret, and the error messages about them."""

KEY_MISTAKES = {
    r"[\"'<`].*|.*[\"'>`]": "begins or ends with a quote or a bracket; write the {what} without it",
    # In lower case, because a Base64 text may contain slashes.
    r"/[a-z0-9._-]+(/[a-z0-9._-]+)+": (
        "is the path of a file; write its content, or set the variable or setting that ends with file"
    ),
}
"""The same for keys and access tokens. A client secret may have such a form."""


class CredentialsUnavailable(Exception):
    """A secret could not be read or cannot be sent. The text names the file and never contains the secret."""


def read_secret(source: SecretSource, what: str = "key") -> Secret:
    """Return a secret without the white space that editors and `echo` add to its file.

    Args:
        source: The secret or its file.
        what: Kind of secret, for messages.

    Raises:
        CredentialsUnavailable: The secret cannot be read, or is not valid.
    """
    if isinstance(source, Secret):
        return validate_secret(source.get_secret_value(), f"the {what}", what)
    location = f"{what} file {safe_path(source)}"
    try:
        content = read_regular_file(source, MAX_SECRET_BYTES + 1)
    except OSError as error:
        # No exception chain: this error contains the name of the file, which may be a secret in the wrong place.
        raise CredentialsUnavailable(f"{location} cannot be read: {error.strerror}") from None
    if content is None:
        raise CredentialsUnavailable(f"{location} is not a regular file")
    if len(content) > MAX_SECRET_BYTES:
        raise CredentialsUnavailable(f"{location} is too large to be a {what}")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CredentialsUnavailable(f"{location} is UTF-16 text, as PowerShell writes it; save it as ASCII")
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("ascii")
    except UnicodeDecodeError:
        # No exception chain: this error contains the bytes that could not be decoded.
        raise CredentialsUnavailable(f"{location} contains bytes that are not ASCII") from None
    return validate_secret(text, location, what)


def validate_secret(text: str, location: str, what: str) -> Secret:
    """Return a secret without white space around it.

    Args:
        text: The secret.
        location: Location of the secret, for messages.
        what: Kind of secret, for messages.

    Raises:
        CredentialsUnavailable: The secret is empty, too large, or not valid in a header.
    """
    secret = text.strip()
    if not secret:
        raise CredentialsUnavailable(f"{location} is empty")
    if len(secret) > MAX_SECRET_BYTES:
        raise CredentialsUnavailable(f"{location} is too large to be a {what}")
    for form, problem in (MISTAKES | KEY_MISTAKES if what == "key" else MISTAKES).items():
        if re.fullmatch(form, secret):
            raise CredentialsUnavailable(f"{location} {problem.format(what=what)}")
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise CredentialsUnavailable(f"{location} contains invalid characters, such as spaces or line breaks")
    return Secret(secret)
