"""A response of the cloud: Tedee's envelope, or other bytes instead."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from .connection import Delivery, in_full

JSON_TYPE = "application/json; charset=utf-8"


@dataclass(frozen=True)
class Response:
    """Status, headers and body of a response.

    The body is the envelope around `result`, or `raw` if that is set. `genuine` is true if the result is the world's,
    edited or not, and false for an error or a result that is invented. `deliver` sends the response.
    """

    result: object = None
    status: int = 200
    success: bool = True
    messages: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    content_type: str = JSON_TYPE
    genuine: bool = False
    deliver: Delivery = in_full

    @classmethod
    def error(cls, status: int, *messages: str, headers: Mapping[str, str] | None = None) -> Self:
        """Return an error in Tedee's envelope."""
        return cls(status=status, success=False, messages=messages, headers=headers or {})

    @classmethod
    def json(cls, value: object, status: int = 200) -> Self:
        """Return a response with a JSON value as the whole body, without the envelope."""
        return cls(status=status, success=False, raw=encode(value))

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """Return the response with additional headers."""
        return replace(self, headers={**self.headers, **headers})

    def body(self) -> bytes:
        """Return the body before compression."""
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
    """Return JSON in the format of the API: compact, in UTF-8 without escapes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
