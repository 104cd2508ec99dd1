"""What every section of a configuration file has, whatever it is about."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Self

import durationpy
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

Location = tuple[str | int, ...]
"""Where something stands in the configuration: `("accounts", 0, "name")`."""


def config_error(message: str) -> PydanticCustomError:
    """An error with a message of ours."""
    return PydanticCustomError("wrong", "{message}", {"message": message})


# None of the messages repeats text of the file: what stands in the wrong place may be a secret.


def seconds(value: object) -> float:
    """A duration as Prometheus writes it: `20s`, `5m`, `1h30m`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise config_error("is not a duration; write it with its unit, as in 20s or 5m")
    try:
        if isinstance(value, str) and re.fullmatch(r"([0-9]+(\.[0-9]+)?(ms|[smhd]))+", value):
            return float(durationpy.from_str(value).total_seconds())
    except ValueError:
        pass
    raise config_error("is not a duration; write it as in 20s, 5m or 1h30m")


def file_name(value: object, info: ValidationInfo) -> Path:
    """A relative name is one beside the configuration file, as in Prometheus' own."""
    if not isinstance(value, str) or "\0" in value:
        raise config_error("must be the name of a file")
    if not value:
        raise config_error("must not be empty")
    if value.startswith("~"):
        raise config_error(BEGINS_WITH_TILDE)
    return folder_of(info) / value


def state_file_name(value: object, info: ValidationInfo) -> Path:
    """Return the path of a state file, which is a regular file or can be created."""
    path = file_name(value, info)
    if value == ":memory:" or str(value).startswith("file:"):
        raise config_error("must be the name of a file; SQLite's :memory: and file: URIs are not supported")
    # os.path never raises, pathlib does if a folder may not be searched.
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
    """Return True if the files of secrets are to be checked, too."""
    return bool((info.context or {}).get("check_secrets"))


def folder_of(info: ValidationInfo) -> Path:
    """What relative file names start from."""
    folder: Path = (info.context or {}).get("folder", Path())
    return folder


def _not_empty(items: tuple[object, ...]) -> tuple[object, ...]:
    # min_length would count only the items that are good.
    if not items:
        raise config_error("must not be empty")
    return items


BEGINS_WITH_TILDE = "begins with ~, which only a shell replaces; write the full path, or ./~ for a file of that name"

Seconds = Annotated[float, BeforeValidator(seconds)]
Text = Annotated[str, Strict(), Field(min_length=1, max_length=200)]
Count = Annotated[int, Strict()]
FileName = Annotated[Path, BeforeValidator(file_name)]
StateFileName = Annotated[Path, BeforeValidator(state_file_name)]
NotEmpty = AfterValidator(_not_empty)


class ConfigModel(BaseModel):
    """A part of the configuration: unknown keys are errors, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)

    @classmethod
    def cross_field_errors(
        cls,
        given: Mapping[str, object],  # noqa: ARG003
        info: ValidationInfo,  # noqa: ARG003
    ) -> Iterator[tuple[Location, PydanticCustomError]]:
        """What is wrong between the keys of a section as it was given, each with its place below the section."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _all_at_once(cls, given: object, validate: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        # A validator that runs after the fields would run only when all of them are right.
        whole = cls.cross_field_errors(given, info) if isinstance(given, dict) else ()
        problems = [InitErrorDetails(type=kind, loc=place, input=None) for place, kind in whole]
        try:
            section = validate(given)
        except ValidationError as error:
            problems = [_again(each) for each in error.errors(include_url=False, include_input=False)] + problems
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems, hide_input=True)
        return section


def _again(error: ErrorDetails) -> InitErrorDetails:
    kind = PydanticCustomError(error["type"], "{message}", {**error.get("ctx", {}), "message": error["msg"]})
    return InitErrorDetails(type=kind, loc=error["loc"], input=None)


def one_of(keys: tuple[str, ...], given: Mapping[str, object]) -> PydanticCustomError | None:
    """The problem with a section that has none or several of the keys of which it needs one."""
    have = [key for key in keys if given.get(key) is not None]
    return None if len(have) == 1 else PydanticCustomError("one_of", "", {"keys": keys, "have": have})
