"""Where settings come from (file, environment, flags), and the words for what is wrong with them.

Both programs read theirs here. A message names a setting as it was written where it was given:
``--idle-timeout``, ``CONNECT_ACTOR_IDLE_TIMEOUT``, or ``idle_timeout`` and the file. It never shows
the value of a secret.

A validator's own message marks each setting that it names: ```tls_certificate` needs …``. The mark
is replaced by the spelling in use.
"""

import os
import re
import tomllib
from argparse import SUPPRESS, ArgumentError, ArgumentParser
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from connect_actor.files import AccessFileError, forbid_reading_by_others

__all__ = ["SettingsError", "SourcedSettings", "read_settings", "read_toml"]

# No configuration is as long; what is read endlessly (/dev/zero) ends here.
_MAX_FILE = 1 << 20
# Settings have at most two parts. Python's TOML parser takes memory by the square of a key's: 6 KB
# of dots had it hold 37 MB.
_MAX_KEY_DEPTH = 100
# Characters of a refused value that are shown.
_SHOWN = 60

_WHOLE_NUMBER = re.compile(r"\s*[+-]?[0-9]+(_[0-9]+)*\s*")
_MARKED = re.compile(r"`([a-z0-9_]+)`")
# What Kubernetes puts into each container for a Service that is called like the program.
_KUBERNETES = re.compile(r"(service_(host|port)\w*|port_\d+_\w+)=.*|port=\w+://.*", re.DOTALL)

_Settings = TypeVar("_Settings", bound="SourcedSettings")


class SettingsError(ValueError):
    """The configuration can't be used; the message is one line that says what to change."""


class SourcedSettings(BaseModel):
    """Settings that flags, environment and file give, in falling order.

    A field without a default is an argument without a flag.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    config: Path | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _no_lookalikes(cls, value: object, info: ValidationInfo) -> object:
        """Refuse what pydantic would take for a value of another type, and what is none at all."""
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, str) and "\0" in value:
            raise ValueError("a zero byte has no place here")
        if value == "" and field.default != "":
            raise ValueError("is empty: give a value, or leave it out")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if field.annotation is int and not _is_whole(value):
            raise ValueError("expected a whole number")
        if field.annotation is float and not (is_number or isinstance(value, str)):
            raise ValueError("expected a number")
        if field.annotation is bool and is_number:
            raise ValueError("expected true or false")
        return value


def _is_whole(value: object) -> bool:
    if isinstance(value, str):
        return _WHOLE_NUMBER.fullmatch(value) is not None
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class _Given:
    """A setting as one source gives it."""

    value: object
    spelling: str
    likewise: Callable[[str], str]
    """Returns how that source would spell another setting."""


_Source = Mapping[str, _Given]


def read_settings(
    settings_type: type[_Settings],
    arguments: Sequence[str],
    *,
    program: str,
    prefix: str,
    environment: Mapping[str, str] | None = None,
    tables: Sequence[str] = (),
    table: str | None = None,
    also_known: Iterable[str] = (),
) -> _Settings:
    """Read settings from all sources.

    Args:
        settings_type: what to read.
        arguments: the flags, as on a command line.
        program: what ``--help`` calls the program.
        prefix: that of the environment variables.
        environment: where these are looked up; the process's own by default.
        tables: that the file may have; without any, settings stand at its top.
        table: the one that holds these settings.
        also_known: names of settings of other commands, which the environment may hold as well.

    Raises:
        SettingsError: a source can't be read, or a value isn't acceptable; names each.
        SystemExit: ``--help`` was asked for.
    """
    environment = os.environ if environment is None else environment
    flags = _flags(settings_type, program, arguments)
    known = {*settings_type.model_fields, *also_known}
    given = {**_variables(known, prefix, environment), **flags}
    # An empty name is refused below, as that of any setting.
    if "config" in given and (path := given["config"].value):
        given = {**_settings_in(Path(str(path)), settings_type, tables, table), **given}
    values = {name: one.value for name, one in given.items() if name in settings_type.model_fields}
    try:
        return settings_type.model_validate(values)
    except ValidationError as error:
        # Each setting once: a field of several types has a fault for each of these.
        faults = {str(fault["loc"][:1]): fault for fault in reversed(error.errors())}
        told = [_described(fault, settings_type, given) for fault in reversed(faults.values())]
        raise SettingsError("; ".join(told)) from None
    except UnicodeEncodeError:
        raise SettingsError("a flag or environment variable is not UTF-8 text") from None


# --- Flags ----------------------------------------------------------------------------------------


def _flags(
    settings_type: type[SourcedSettings], program: str, arguments: Sequence[str]
) -> dict[str, _Given]:
    """Return the settings that flags give, as text.

    Raises:
        SettingsError: there is no such flag, or its value is missing.
        SystemExit: ``--help`` was asked for.
    """
    fields = settings_type.model_fields
    required = [name.upper() for name, field in fields.items() if field.is_required()]
    parser = ArgumentParser(
        usage=" ".join([program, "[flags]", *required]),
        description=settings_type.__doc__,
        argument_default=SUPPRESS,
        allow_abbrev=False,
        exit_on_error=False,
    )
    for name, field in fields.items():
        _add_flag(parser, name, field)
    try:
        parsed, rest = parser.parse_known_args(arguments)
    except ArgumentError as error:
        what = "needs a value" if "expected one" in error.message else "takes no value"
        raise SettingsError(f"{error.argument_name}: {what}") from None
    if rest:
        # Only the first one, without a value, which might be a secret.
        unknown = rest[0].partition("=")[0]
        what = "no flag of this name" if unknown.startswith("-") else "is no flag"
        raise SettingsError(f"{unknown}: {what}{_near(unknown, map(_flag, fields), str)}")
    return {
        # A flag of several values that stands there once may hold all of them.
        name: _Given(
            value[0] if isinstance(value, list) and len(value) == 1 else value,
            _spelled(name, fields[name]),
            _flag,
        )
        for name, value in vars(parsed).items()
    }


_METAVARS: Mapping[object, str] = {int: "N", float: "X", Path: "PATH"}


def _add_flag(parser: ArgumentParser, name: str, field: FieldInfo) -> None:
    kinds = get_args(field.annotation)
    kind = kinds[0] if NoneType in kinds else field.annotation
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    metavar = f"{{{','.join(choices)}}}" if choices else _METAVARS.get(kind, "TEXT")
    is_told = not field.is_required() and field.default is not None
    default = f" (default: {_written(field.default)})" if is_told else ""
    text = f"{field.description}{default}".replace("%", "%%")
    if field.is_required():
        # Validation reports it if it is missing, with everything else.
        parser.add_argument(name, metavar=name.upper(), nargs="?", help=text)
    elif kind is bool:
        parser.add_argument(_flag(name), metavar="{true,false}", nargs="?", const="true", help=text)
        parser.add_argument(
            _flag(f"no_{name}"), dest=name, action="store_const", const="false", help=SUPPRESS
        )
    else:
        action = "append" if get_origin(kind) is tuple else "store"
        hidden = SUPPRESS if _is_secret(field) else text
        parser.add_argument(_flag(name), metavar=metavar, action=action, help=hidden)


def _written(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(map(str, default)) or "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def _flag(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _spelled(setting: str, field: FieldInfo) -> str:
    return setting.upper() if field.is_required() else _flag(setting)


# --- The environment ------------------------------------------------------------------------------


def _variables(
    known: Iterable[str], prefix: str, environment: Mapping[str, str]
) -> dict[str, _Given]:
    """Return the settings that variables give; these are read whatever their case.

    Raises:
        SettingsError: no setting is called like one, or two are of one setting.
    """
    found: dict[str, _Given] = {}
    for name, value in environment.items():
        if not name.upper().startswith(prefix):
            continue
        key = name[len(prefix) :].lower()
        if key not in known:
            if _KUBERNETES.fullmatch(f"{key}={value}"):
                continue
            near = _near(key, known, lambda setting: f"{prefix}{setting.upper()}")
            raise SettingsError(f"environment variable {name}: no setting of this name{near}")
        if key in found:
            raise SettingsError(
                f"environment variables {found[key].spelling} and {name} are the same setting:"
                " unset one"
            )
        found[key] = _Given(value, name, lambda setting: f"{prefix}{setting.upper()}")
    return found


# --- The file -------------------------------------------------------------------------------------


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; a byte order mark before it is left out.

    Raises:
        SettingsError: it can't be read, or is none; the message says why.
    """
    named = f"configuration file {path}"
    content = _content_of(path, named)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SettingsError(f"{named} is in UTF-16: save it as UTF-8")
    too_deep = SettingsError(f"{named} is nested too deep")
    if any(line.count(b".") > _MAX_KEY_DEPTH for line in content.splitlines()):
        raise too_deep
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise too_deep from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{named} is not UTF-8 text: see its byte {error.start}") from None
    except ValueError as error:
        # Also a number of too many digits.
        raise SettingsError(f"{named} is not TOML: {error}") from None


def _content_of(path: Path, named: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        raise SettingsError(f"{named} does not exist") from None
    except IsADirectoryError:
        raise SettingsError(f"{named} is a directory: name the file in it") from None
    except OSError as error:
        raise SettingsError(f"{named} can't be read: {error.strerror}") from None
    except ValueError as error:  # a zero byte in its name
        raise SettingsError(f"{named} can't be read: {error}") from None
    if len(content) > _MAX_FILE:
        raise SettingsError(f"{named} is longer than {_MAX_FILE:,} bytes")
    return content


def _settings_in(
    path: Path,
    settings_type: type[SourcedSettings],
    tables: Sequence[str],
    table: str | None,
) -> dict[str, _Given]:
    """Return the settings that a file gives; their names are read whatever their case.

    Raises:
        SettingsError: it can't be read, or holds what is no setting.
    """
    content = read_toml(path)
    if table is not None:
        for name, value in content.items():
            if name not in tables or not isinstance(value, dict):
                raise SettingsError(
                    f"configuration file {path}: {name!r} is none of the tables"
                    f" {', '.join(f'[{known}]' for known in tables)}"
                )
        content = dict(content.get(table, {}))
    found: dict[str, _Given] = {}
    for name, value in content.items():
        key = name.lower()
        if key not in settings_type.model_fields:
            near = _near(key, settings_type.model_fields, str)
            raise SettingsError(f"configuration file {path}: {name}: no setting of this name{near}")
        if key in found:
            raise SettingsError(
                f"configuration file {path}: {found[key].spelling.partition(' ')[0]} and {name} are"
                " the same setting: leave one"
            )
        if key == "config":
            raise SettingsError(f"configuration file {path}: a file can't name another")
        if _is_secret(settings_type.model_fields[key]):
            _require_private(path, name)
        found[key] = _Given(value, f"{name} in {path}", str)
    return found


def _require_private(path: Path, name: str) -> None:
    try:
        forbid_reading_by_others(path, path.stat())
    except AccessFileError as error:
        raise SettingsError(f"{error} (it sets {name})") from None
    except OSError as error:
        raise SettingsError(f"configuration file {path} can't be read: {error.strerror}") from None


# --- Words ----------------------------------------------------------------------------------------


def _described(fault: ErrorDetails, settings_type: type[SourcedSettings], given: _Source) -> str:
    """Return what one fault says, in one line."""
    fields = settings_type.model_fields
    reason = _reason(fault)
    marked = [name for name in _MARKED.findall(reason) if name in fields]
    # A setting that was not given is spelled as the source of another one would.
    likewise = next((given[name].likewise for name in marked if name in given), _flag)
    for name in marked:
        spelling = given[name].spelling if name in given else likewise(name)
        reason = reason.replace(f"`{name}`", spelling)
    if not fault["loc"]:
        return reason
    name = str(fault["loc"][0])
    if name not in given:
        return f"{_spelled(name, fields[name])}: {reason}"
    shown = "" if _is_secret(fields[name]) else f" (got {_shown(fault['input'])})"
    return f"{given[name].spelling}: {reason}{shown}"


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in (field.annotation, *get_args(field.annotation))


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_REASONS = {
    "value_error": "{error}",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "literal_error": "expected one of {expected}",
    "int": "expected a whole number",
    "float": "expected a number",
    "finite": "expected a finite number",
    "bool": "expected true or false",
    "string": "expected text, in quotes",
    "path": "expected a path, in quotes",
    "tuple": "expected a list",
    "missing": "is missing",
    "too_short": "expected at least one",
}
"""By pydantic's name of the fault, or the first word of it."""


def _reason(fault: ErrorDetails) -> str:
    kind = fault["type"]
    template = _REASONS.get(kind) or _REASONS.get(kind.partition("_")[0], "can't be used")
    return template.format_map(
        {name: _plain(value) for name, value in fault.get("ctx", {}).items()}
    )


def _plain(value: object) -> str:
    if isinstance(value, int | float):
        return f"{int(value) if value == int(value) else value:,}"
    # Of a list of choices, each in quotes.
    return ", ".join(re.findall("'([^']*)'", value)) if isinstance(value, str) else str(value)


def _near(name: str, known: Iterable[str], spelt: Callable[[str], str]) -> str:
    found = get_close_matches(name, list(known), n=1)
    return f" (did you mean {spelt(found[0])}?)" if found else ""
