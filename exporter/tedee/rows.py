"""Parsing of the rows in Tedee's responses. Each field is validated separately.

A value that cannot be used is None and reported as a Rejection; the row and the other rows are not affected.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Meta, MsgspecError

from exporter.fields import Converter, KeyPath

MAX_REJECTIONS = 1_000
"""Limit of the rejected values that are recorded per response. Further ones are only counted."""


class Rejection(NamedTuple):
    """A value of a response that could not be used."""

    device_id: int | None
    field: str
    value: str
    """The value in Python syntax, shortened; only its type if the rows may contain personal data."""


class RejectionCollector:
    """Counts the values of a response that could not be used, and records the first MAX_REJECTIONS of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """By field."""
        self.recorded: list[Rejection] = []

    def add(self, rejection: Rejection) -> None:
        """Add a value."""
        self.counts[rejection.field] += 1
        if len(self.recorded) < MAX_REJECTIONS:
            self.recorded.append(rejection)

    def merge(self, others: "RejectionCollector", device_id: int | None) -> None:
        """Add the values of the row of a device."""
        if not others.counts:
            return
        self.counts.update(others.counts)
        self.recorded += [
            each._replace(device_id=device_id) for each in others.recorded[: MAX_REJECTIONS - len(self.recorded)]
        ]


def shorten(value: object) -> str:
    """Return a value in Python syntax, shortened."""
    text = ascii(value) if not isinstance(value, dict | list) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004


def name_type(value: object) -> str:
    """Return the name of the type of a value, such as `str`."""
    return type(value).__name__


_YEAR_9999 = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


class Timestamp(float):
    """Unix time with fractions."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Timestamp":
        """Parse a date in one of the three formats of the API.

        Raises:
            TypeError: It is not text.
            ValueError: It is not a date, or out of range.
        """
        date = datetime.fromisoformat(text)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        if not 0 <= seconds < _YEAR_9999:
            # Tedee's platform uses the minimum and maximum dates for "never" and "for ever".
            raise ValueError("out of range")
        return cls(seconds)


def _decode(kind: type[Timestamp], value: str) -> Timestamp:
    return kind.parse(value)


RENAMED = {"lockProperties": "deviceState", "batteryLevelModifiedDateTime": "batteryLevelModifiedTime"}
"""Fields of other versions of the API, with their names in this module."""
_OLD_NAMES = tuple(name.encode() for name in RENAMED)


def _normalize(item: dict[str, object]) -> dict[str, object]:
    for old, new in RENAMED.items():
        if old in item:
            item.setdefault(new, item[old])
    # JSON can contain NUL and half a surrogate pair (a name that was cut within an emoji). Prometheus would reject the
    # whole scrape because of them.
    for key, value in item.items():
        if isinstance(value, str) and not value.isprintable():
            item[key] = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
    return item


T = TypeVar("T")


@lru_cache(maxsize=1024)
def intern(value: T) -> T:
    """Return the same object for equal values, to save memory."""
    return value


Number = Annotated[int, Meta(ge=-(2**31), lt=2**31)]
DeviceId = Annotated[int, Meta(ge=0, lt=2**53)]
"""Limited to the integers that a float represents exactly, since JSON numbers may be floats."""
Percent = Annotated[int, Meta(ge=0, le=100)]
ShortText = Annotated[str, Meta(max_length=200)]
"""Text that may be interned."""


class Row(Protocol):
    """A parsed row."""

    @property
    def id(self) -> int:
        """Tedee's id of the device or event."""
        ...


RowT = TypeVar("RowT", bound=Row)
KeyT = TypeVar("KeyT")


class ParseResult(NamedTuple, Generic[KeyT, RowT]):
    """Parsed rows of a response, and the values that could not be used."""

    rows: dict[KeyT, RowT]
    """By id, or by kind and id if the response has several kinds of devices."""
    rejection_counts: Mapping[str, int]
    """Number of values that could not be used, by field."""
    rejections: tuple[Rejection, ...]
    """The first MAX_REJECTIONS of these values."""
    raw_rows: Sequence[bytes]
    """The rows in JSON as they were received, or with the fields in use. Parsing them again gives the same result."""


MAX_DIGITS = sys.int_info.default_max_str_digits
"""Limit of the digits of a number, 4300. A row of Tedee has 200 to 1,200 bytes."""


class RowParser(Generic[RowT]):
    """Parses the rows of one kind.

    Parsers are created before any thread starts: msgspec 0.22 crashes if several threads are the first to use a type.
    """

    def __init__(self, kind: type[RowT], describe: Callable[[object], str] = shorten) -> None:
        """Create a parser.

        Args:
            kind: Type of a parsed row.
            describe: Returns the text that a Rejection shows of a value.
        """
        self._kind = kind
        self._describe = describe
        self._decoder: msgspec.json.Decoder[RowT] = msgspec.json.Decoder(kind, dec_hook=_decode)
        self._converter: Converter | None = None

    def parse(self, raw_row: bytes, rejections: RejectionCollector) -> RowT | None:
        """Return a parsed row; None if it cannot be used. Values that cannot be used are added to the rejections."""
        row = bytes(raw_row)
        # An escape can be a broken character. A long row can contain a number that `json.loads` rejects.
        if b"\\" not in row and len(row) < MAX_DIGITS and not any(name in row for name in _OLD_NAMES):
            with suppress(MsgspecError, UnicodeError, RecursionError):
                return self._decoder.decode(row.decode())
        return self._parse_fields(row, rejections)

    def _parse_fields(self, row: bytes, rejections: RejectionCollector) -> RowT | None:
        """Parse each field of a row separately. It takes several times as long as parsing the whole row."""
        unusable = RejectionCollector()

        def reject(path: KeyPath, value: object, _error: Exception) -> None:
            field = next((part for part in reversed(path) if isinstance(part, str)), "id")
            unusable.add(Rejection(None, field, self._describe(value)))

        item: Any = None
        problem = "not JSON"
        parsed: RowT | msgspec.UnsetType = msgspec.UNSET
        self._converter = self._converter or Converter(self._kind, _decode)
        with suppress(ValueError, RecursionError):
            item = json.loads(row, object_hook=_normalize)
            problem = ""
            parsed = self._converter.convert(item, reject)
        if isinstance(parsed, msgspec.UnsetType):
            # A row is left out only if it is not an object or has no usable id.
            value = item.get("id") if isinstance(item, dict) else item
            rejections.add(Rejection(None, "id", problem or self._describe(value)))
            return None
        rejections.merge(unusable, parsed.id)
        return parsed
