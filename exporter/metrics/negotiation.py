"""Content negotiation: the format and the encoding that a scraper prefers (RFC 9110, sections 12.4 and 12.5)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from prometheus_client.openmetrics.exposition import ALLOWUTF8, UNDERSCORES, VALUES

TEXT, OPENMETRICS = "text/plain", "application/openmetrics-text"

FORMATS = ((TEXT, "0.0.4"), (OPENMETRICS, "1.0.0"), (TEXT, "1.0.0"))
"""Media type and version of each format that is offered. The first is used if a scraper has no preference. Both
versions of the text format have the same bytes, because all metric and label names are valid in 0.0.4."""

ESCAPINGS = frozenset({ALLOWUTF8, UNDERSCORES, VALUES})
"""The escaping schemes that do not change the names of the metrics. `dots` would double their underscores."""

EXACT = 3
"""The specificity of a media range without wildcards."""

MAX_ELEMENTS = 64
"""Elements of a header that are read. All elements of the largest accepted header would take milliseconds."""

_ELEMENT = re.compile(r'(?:[^,"]++|"(?:[^"\\]|\\.)*+"?)++')
_WEIGHT = re.compile(r"0?\.[0-9]+|0\.?|1(\.0*)?")


@dataclass(frozen=True, slots=True)
class _Preference:
    """An element of a header: a media range or a coding, with its parameters and its weight from 0 to 1."""

    value: str
    parameters: Mapping[str, str]
    weight: float

    def specificity(self, media_type: str, version: str) -> int:
        """Return how precisely a media range names a format; 0 if it does not match it."""
        requested = self.parameters.get("version")
        if self.value == media_type and requested in {version, "", None}:
            return EXACT + bool(requested)
        return {f"{media_type.partition('/')[0]}/*": 2, "*/*": 1}.get(self.value, 0)


@lru_cache(maxsize=32)
def content_type(accept: str) -> str:
    """Return the content type of the format that an `Accept` header prefers.

    If formats have the same weight, a format that is named takes precedence over one that a wildcard matches, and then
    the one that is named first, as in Prometheus' own client library. If the header accepts no format, the first of
    FORMATS is used.
    """
    preferences = list(_preferences(accept))
    best, result = (0.0, 0, 0), (FORMATS[0], _Preference("", {}, 0.0))
    for offered in FORMATS:
        matches = [(each.specificity(*offered), each.weight, -index) for index, each in enumerate(preferences)]
        specificity, weight, order = max(matches, default=(0, 0.0, 0))
        rank = (weight, min(specificity, EXACT), order)
        if specificity and weight and rank > best:
            best, result = rank, (offered, preferences[-order])
    (media_type, version), preference = result
    unescaped = f"{media_type}; version={version}; charset=utf-8"
    if (media_type, version) == FORMATS[0] or not preference.parameters.get("version"):
        return unescaped
    escaping = preference.parameters.get("escaping", "")
    return f"{unescaped}; escaping={escaping if escaping in ESCAPINGS else UNDERSCORES}"


@lru_cache(maxsize=32)
def prefers_gzip(accept_encoding: str) -> bool:
    """Return True if an `Accept-Encoding` header prefers gzip to an uncompressed response."""
    weights = {each.value: each.weight for each in _preferences(accept_encoding)}
    # If the header does not name identity, it is acceptable (RFC 9110, 12.5.3). If it does not name gzip, gzip is used
    # only if identity is excluded.
    gzip, identity = (weights.get(coding, weights.get("*", default)) for coding, default in _DEFAULT_WEIGHTS)
    return 0 < gzip >= identity


_DEFAULT_WEIGHTS = (("gzip", 0.0001), ("identity", 0.0002))
"""The weights of codings that a header does not name, below the smallest weight of a header."""


def _preferences(header: str) -> Iterator[_Preference]:
    for element in islice(_ELEMENT.finditer(header), MAX_ELEMENTS):
        value, *rest = element[0].split(";")
        pairs = (each.partition("=") for each in rest)
        parameters = {name.strip().lower(): text.strip().strip('"') for name, _, text in pairs}
        weight = parameters.get("q", "1")
        # An invalid weight counts as 1, as in Prometheus' own client library.
        yield _Preference(value.strip().lower(), parameters, float(weight) if _WEIGHT.fullmatch(weight) else 1.0)
