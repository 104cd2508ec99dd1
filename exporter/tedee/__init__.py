"""Client of the Tedee API: requests, parsing of responses, credentials and errors."""

import sys
import warnings


def _import_requests() -> None:
    """Import requests without charset_normalizer, which takes 3 MiB and guesses the encodings of texts.

    The exporter reads bytes only. requests works without it, with a warning.
    """
    if "requests" in sys.modules:
        return
    sys.modules["charset_normalizer"] = None  # type: ignore[assignment]  # its import raises ImportError
    try:
        with warnings.catch_warnings(action="ignore"):
            import requests  # noqa: F401, PLC0415
    finally:
        del sys.modules["charset_normalizer"]


_import_requests()
