"""Base class, field types and validators of all configuration models."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    Strict,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from exporter.secrets import safe_path

KeyPath = tuple[str | int, ...]
"""Keys and list indices that lead to a value in the configuration, such as `("accounts", 0, "name")`."""


def config_error(message: str) -> PydanticCustomError:
    """Return a validation error with this message."""
    return PydanticCustomError("wrong", "{message}", {"message": message})


UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
"""Seconds of each unit in a duration."""


# No message repeats text of the file: a misplaced value may be a secret.


def parse_duration(value: object) -> float:
    """Return the seconds of a duration in the format of Prometheus: `20s`, `5m`, `1h30m`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise config_error("is not a duration; write it with its unit, as in 20s or 5m")
    if isinstance(value, str) and re.fullmatch(r"([0-9]+(\.[0-9]+)?(ms|[smhd]))+", value):
        parts = re.findall(r"([0-9.]+)(ms|[smhd])", value)
        with contextlib.suppress(OverflowError):
            return timedelta(seconds=sum(float(number) * UNITS[unit] for number, unit in parts)).total_seconds()
    raise config_error("is not a duration; write it as in 20s, 5m or 1h30m")


def resolve_path(value: object, info: ValidationInfo) -> Path:
    """Return the path of a file. A relative name starts at the folder of the configuration file, as in Prometheus."""
    if not isinstance(value, str) or "\0" in value:
        raise config_error("must be the name of a file")
    if not value:
        raise config_error("must not be empty")
    if value.startswith("~"):
        raise config_error(BEGINS_WITH_TILDE)
    return base_folder(info) / value


def resolve_state_path(value: object, info: ValidationInfo) -> Path:
    """Return the path of a state file. It must be a regular file or not exist."""
    path = resolve_path(value, info)
    if value == ":memory:" or str(value).startswith("file:"):
        raise config_error("must be the name of a file; SQLite's :memory: and file: URIs are not supported")
    # os.path does not raise if a folder cannot be searched; pathlib does.
    if os.path.isdir(path) or str(value).endswith("/"):  # noqa: PTH112
        raise config_error("is a folder; name a file in it, such as state.db")
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113
        raise config_error("is not a regular file")
    for parent in path.parents:
        if os.path.exists(parent):  # noqa: PTH110
            if not os.path.isdir(parent):  # noqa: PTH112
                raise config_error(f"is below {safe_path(parent)}, which is not a folder")
            break
    return path


def checks_secrets(info: ValidationInfo) -> bool:
    """Return True if secret files are to be checked as well."""
    return bool((info.context or {}).get("check_secrets"))


def base_folder(info: ValidationInfo) -> Path:
    """Return the folder at which relative file names start."""
    folder: Path = (info.context or {}).get("folder", Path())
    return folder


def _check_not_empty(items: tuple[object, ...]) -> tuple[object, ...]:
    # min_length would count only the valid items.
    if not items:
        raise config_error("must not be empty")
    return items


BEGINS_WITH_TILDE = "begins with ~, which only a shell expands; write the full path, or ./~ if the name begins with ~"

Seconds = Annotated[float, BeforeValidator(parse_duration)]
Text = Annotated[str, Strict(), Field(min_length=1, max_length=200)]
Count = Annotated[int, Strict()]
FileName = Annotated[Path, BeforeValidator(resolve_path)]
StateFileName = Annotated[Path, BeforeValidator(resolve_state_path)]
NotEmpty = AfterValidator(_check_not_empty)


class ConfigModel(BaseModel):
    """Immutable part of the configuration. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)

    @classmethod
    def cross_field_errors(
        cls,
        given: Mapping[str, object],  # noqa: ARG003
        info: ValidationInfo,  # noqa: ARG003
    ) -> Iterator[tuple[KeyPath, PydanticCustomError]]:
        """Yield errors that involve several keys, each with its key path relative to this model."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _collect_errors(cls, given: object, validate: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        # An "after" validator would run only if all fields are valid.
        errors = cls.cross_field_errors(given, info) if isinstance(given, dict) else ()
        problems = [InitErrorDetails(type=error, loc=path, input=None) for path, error in errors]
        try:
            model = validate(given)
        except ValidationError as error:
            problems = [_copy_error(each) for each in error.errors(include_url=False, include_input=False)] + problems
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems, hide_input=True)
        return model


def _copy_error(error: ErrorDetails) -> InitErrorDetails:
    kind = PydanticCustomError(error["type"], "{message}", {**error.get("ctx", {}), "message": error["msg"]})
    return InitErrorDetails(type=kind, loc=error["loc"], input=None)


def exactly_one_error(keys: tuple[str, ...], given: Mapping[str, object]) -> PydanticCustomError | None:
    """Return an error unless exactly one of the keys has a value."""
    present = [key for key in keys if given.get(key) is not None]
    return None if len(present) == 1 else PydanticCustomError("exactly_one", "", {"keys": keys, "present": present})
