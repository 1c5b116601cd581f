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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliApp,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as _LibraryError

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


class SourcedSettings(BaseSettings):
    """Settings that flags, environment and file give, in falling order."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        cli_kebab_case=True,
        validate_default=False,
    )

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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, whose values come as init arguments."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings


def _is_whole(value: object) -> bool:
    if isinstance(value, str):
        return _WHOLE_NUMBER.fullmatch(value) is not None
    return isinstance(value, int) and not isinstance(value, bool)


def read_settings(
    settings_type: type[_Settings],
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    tables: Sequence[str] = (),
    table: str | None = None,
    also_known: Iterable[str] = (),
) -> _Settings:
    """Read settings from all sources.

    Args:
        settings_type: what to read; its ``env_prefix`` is that of the variables.
        arguments: the flags, as on a command line.
        environment: where misspelt variables are looked for; the process's own by default.
        tables: that the file may have; without any, settings stand at its top.
        table: the one that holds these settings.
        also_known: names of settings of other commands, which the environment may hold as well.

    Raises:
        SettingsError: a source can't be read, or a value isn't acceptable; names each.
        SystemExit: ``--help`` was asked for.
    """
    environment = os.environ if environment is None else environment
    variables = _variables(settings_type, environment, also_known)
    file = _file_named(arguments) or environment.get(variables.get("config", ""))
    # An empty name is refused below, as that of any setting.
    keys, content = _settings_in(Path(file), settings_type, tables, table) if file else ({}, {})
    given = _Given(settings_type, arguments, variables, keys, file)
    try:
        return CliApp.run(
            settings_type, cli_args=list(arguments), cli_exit_on_error=False, **content
        )
    except ValidationError as error:
        # Each once: a field of several types has a fault for each of these.
        faults = {
            str(fault["loc"][:1]): _described(fault, given)
            for fault in reversed(error.errors(include_url=False))
        }
        raise SettingsError("; ".join(reversed(faults.values()))) from None
    except _LibraryError as error:
        raise SettingsError(_of_flags(str(error), settings_type)) from None
    except UnicodeEncodeError:
        raise SettingsError("a flag or environment variable is not UTF-8 text") from None


# --- The environment ------------------------------------------------------------------------------


def _variables(
    settings_type: type[SourcedSettings], environment: Mapping[str, str], also_known: Iterable[str]
) -> dict[str, str]:
    """Return the variable of each setting that has one, as it is spelt there.

    Variables are read whatever their case.

    Raises:
        SettingsError: no setting is called like one, or two are of one setting.
    """
    prefix = settings_type.model_config["env_prefix"] or ""
    known = {*settings_type.model_fields, *also_known}
    found: dict[str, str] = {}
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
                f"environment variables {found[key]} and {name} are the same setting: unset one"
            )
        found[key] = name
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


def _file_named(arguments: Sequence[str]) -> str | None:
    """Return the file that flags name; the last one counts."""
    named = None
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag == "--config":
            named = value if equals else "".join(arguments[index + 1 : index + 2])
    # Without a value the parser of flags refuses it.
    return named or None


def _settings_in(
    path: Path,
    settings_type: type[SourcedSettings],
    tables: Sequence[str],
    table: str | None,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return how a file writes the settings that it gives, in any case, and their values."""
    content = read_toml(path)
    if table is not None:
        for name, value in content.items():
            if name not in tables or not isinstance(value, dict):
                raise SettingsError(
                    f"configuration file {path}: {name!r} is none of the tables"
                    f" {', '.join(f'[{known}]' for known in tables)}"
                )
        content = dict(content.get(table, {}))
    keys: dict[str, str] = {}
    for name in content:
        key = name.lower()
        if key not in settings_type.model_fields:
            near = _near(key, settings_type.model_fields, str)
            raise SettingsError(f"configuration file {path}: {name}: no setting of this name{near}")
        if key in keys:
            raise SettingsError(
                f"configuration file {path}: {keys[key]} and {name} are the same setting: leave one"
            )
        if key == "config":
            raise SettingsError(f"configuration file {path}: a file can't name another")
        if _is_secret(settings_type.model_fields[key].annotation):
            _require_private(path, name)
        keys[key] = name
    return keys, {key: content[name] for key, name in keys.items()}


def _require_private(path: Path, name: str) -> None:
    try:
        forbid_reading_by_others(path, path.stat())
    except AccessFileError as error:
        raise SettingsError(f"{error} (it sets {name})") from None
    except OSError as error:
        raise SettingsError(f"configuration file {path} can't be read: {error.strerror}") from None


# --- Words ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Given:
    """How the settings were written."""

    settings_type: type[SourcedSettings]
    arguments: Sequence[str]
    variables: Mapping[str, str]
    keys: Mapping[str, str]
    """Of the file."""
    file: str | None

    def spelling(self, setting: str, like: str | None = None) -> str:
        """Return a setting as it was written, or as it would be.

        Args:
            setting: its name.
            like: a setting that was given: one that was not is written in the same way.
        """
        if not self._is_given(setting):
            return self._unwritten(setting, like)
        if self._is_flag(setting):
            return _flag(setting)
        return self.variables.get(setting) or f"{self.keys[setting]} in {self.file}"

    def _unwritten(self, setting: str, like: str | None) -> str:
        if self.settings_type.model_fields[setting].is_required():
            return setting.upper()
        if like is None or self._is_flag(like):
            return _flag(setting)
        if like in self.variables:
            return f"{self.settings_type.model_config['env_prefix']}{setting.upper()}"
        return setting

    def spelt(self, message: str) -> str:
        """Replace marked names by their spellings."""
        marked = [
            name for name in _MARKED.findall(message) if name in self.settings_type.model_fields
        ]
        like = next((name for name in marked if self._is_given(name)), None)
        for name in marked:
            message = message.replace(f"`{name}`", self.spelling(name, like))
        return message

    def _is_given(self, setting: str) -> bool:
        return self._is_flag(setting) or setting in self.variables or setting in self.keys

    def _is_flag(self, setting: str) -> bool:
        written = {argument.partition("=")[0] for argument in self.arguments}
        return not written.isdisjoint((_flag(setting), _flag(f"no_{setting}")))


def _flag(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _described(fault: ErrorDetails, given: _Given) -> str:
    """Return what one fault says, in one line."""
    reason = _reason(fault)
    if not fault["loc"]:
        return given.spelt(reason)
    setting = str(fault["loc"][0])
    named = given.spelling(setting)
    fields = given.settings_type.model_fields
    if fault["type"] == "missing" or _is_secret(fields[setting].annotation):
        return f"{named}: {given.spelt(reason)}"
    return f"{named}: {given.spelt(reason)} (got {_shown(fault['input'])})"


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or SecretStr in getattr(annotation, "__args__", ())


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_REASONS = {
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
"""By pydantic's name of the fault, or the beginning of it."""

_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _reason(fault: ErrorDetails) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        bound = context[name]
        return f"expected {words} {int(bound) if bound == int(bound) else bound:,}"
    match kind:
        case "value_error":
            return str(context["error"])
        case "literal_error":
            choices = re.findall(r"'([^']*)'", str(context["expected"]))
            return f"expected one of {', '.join(choices)}"
    return _REASONS.get(kind) or _REASONS.get(kind.partition("_")[0], "can't be used")


def _of_flags(message: str, settings_type: type[SourcedSettings]) -> str:
    """Return in our words what the parser of flags has refused."""
    message = message.removeprefix("error parsing CLI: ")
    flags = list(map(_flag, settings_type.model_fields))
    if message.startswith("unrecognized arguments: "):
        # Only the first one, without a value, which might be a secret.
        name = message.removeprefix("unrecognized arguments: ").split()[0].partition("=")[0]
        what = "no flag of this name" if name.startswith("-") else "is no flag"
        return f"{name}: {what}{_near(name, flags, str)}"
    if message.startswith("argument "):
        # With the flag that denies it, if it is one that takes no value.
        name, _, reason = message.removeprefix("argument ").partition(": ")
        name = name.partition("/")[0]
        if reason.startswith("ignored explicit argument"):
            return f"{name}: takes no value"
        return f"{name}: {'needs a value' if reason == 'expected one argument' else reason}"
    if message.startswith("the following arguments are required: "):
        return f"{message.partition(': ')[2]}: missing"
    return message


def _near(name: str, known: Iterable[str], spelt: Callable[[str], str]) -> str:
    found = get_close_matches(name, list(known), n=1)
    return f" (did you mean {spelt(found[0])}?)" if found else ""
