"""What the cloud is about to say: Tedee's envelope, or other bytes in its place."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

JSON_TYPE = "application/json; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of one answer.

    The body is the envelope around `result`, unless `raw` bytes stand in for it. `genuine` says that the result is
    the world's own, or an edit of it, and not an invention.
    """

    result: object = None
    status: int = 200
    success: bool = True
    messages: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    content_type: str = JSON_TYPE
    genuine: bool = False

    @classmethod
    def error(cls, status: int, *messages: str, headers: Mapping[str, str] | None = None) -> Self:
        """A refusal in Tedee's envelope."""
        return cls(status=status, success=False, messages=messages, headers=headers or {})

    @classmethod
    def json(cls, value: object, status: int = 200) -> Self:
        """Any JSON value as the whole body, without the envelope."""
        return cls(status=status, success=False, raw=encode(value))

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """The same with more headers."""
        return replace(self, headers={**self.headers, **headers})

    def body(self) -> bytes:
        """The bytes to send, before any compression."""
        if self.raw is not None:
            return self.raw
        return encode(
            {
                "result": self.result,
                "success": self.success,
                "errorMessages": list(self.messages),
                "statusCode": self.status,
            }
        )


def encode(value: object) -> bytes:
    """JSON as the API writes it: compact, and UTF-8 as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
