"""The settings reference, made from the settings themselves.

``python -m tests.docs.reference`` (``make docs``) writes it and the pages of ``pages.py``.
"""

from pathlib import Path
from typing import get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from connect_actor.settings import Settings
from connect_loadgen.bench.settings import BenchSettings
from connect_loadgen.crash.settings import CrashSettings
from connect_loadgen.experiments.audit import AuditSettings
from connect_loadgen.experiments.compare import CompareSettings
from connect_loadgen.experiments.reach import ReachSettings
from connect_loadgen.settings.load import CommandSettings, DiffSettings, LoadSettings, RunSettings
from connect_loadgen.settings.overload import OverloadSettings
from connect_loadgen.settings.soak import SoakSettings
from tests.docs.pages import PAGES

__all__ = ["REFERENCE", "reference"]

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"

_HEAD = """\
# Configuration reference

Made from the settings' own definitions by `make docs`; a test holds the two together. Sources in
rising order: defaults, TOML file (`--config FILE`), environment, flags. The file is UTF-8.
Variables are read in any case.

A name that no setting has is an error in each source (but for the variables that Kubernetes sets
for a Service called like the program), and so is an empty value. The message names the setting as
it was written there. A whole number is written without a decimal point.
"""

_SERVICE = """\

## The service: `connect-actor serve`

A flag `--idle-timeout 30` is `CONNECT_ACTOR_IDLE_TIMEOUT=30` in the environment and
`idle_timeout = 30` in the file. `CONNECT_ACTOR_CONFIG` names the file, too.

"""

_LOADGEN = """\

## The load generator: all commands

A flag `--frame-operations 64` is `LOADGEN_FRAME_OPERATIONS=64` in the environment and
`frame_operations = 64` in the file's table of the command's name, such as `[run]`. Commands below
list only what is theirs: settings of their own, and defaults that differ.

"""
_LOAD = """\

## The load: `loadgen run`, `compare`, `audit`, `overload` and `soak`

"""
_COMMAND = """\

## `loadgen {command}`

{about}

"""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"`{','.join(map(str, value))}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def _choices(field: FieldInfo) -> str:
    annotation = field.annotation
    if str(get_origin(annotation)) == "typing.Literal":
        return " (" + ", ".join(f"`{choice}`" for choice in annotation.__args__) + ")"  # type: ignore[union-attr] # a Literal
    return ""


def _name(name: str, field: FieldInfo) -> str:
    # What has no default stands in its place, without a flag.
    return name.upper() if field.is_required() else f"--{name.replace('_', '-')}"


def _table(settings: type[BaseModel], beyond: type[BaseModel] | None = None) -> str:
    """Return the settings, but those that ``beyond`` has with the same default and meaning."""
    known = {} if beyond is None else beyond.model_fields
    rows = [
        f"| `{_name(name, field)}` | {_default(field)}"
        f" | {' '.join((field.description or '').split()).replace('|', '/')}{_choices(field)} |"
        for name, field in settings.model_fields.items()
        if name not in known or _said(field) != _said(known[name])
    ]
    if not rows:
        return "No settings of its own.\n"
    return "\n".join(["| flag | default | meaning |", "|---|---|---|", *rows]) + "\n"


def _said(field: FieldInfo) -> tuple[str, str | None]:
    return _default(field), field.description


def _beyond(settings: type[CommandSettings]) -> type[CommandSettings]:
    return LoadSettings if issubclass(settings, LoadSettings) else CommandSettings


def reference() -> str:
    """Return the whole reference, in Markdown."""
    return (
        _HEAD
        + _SERVICE
        + _table(Settings)
        + _LOADGEN
        + _table(CommandSettings)
        + _LOAD
        + _table(LoadSettings, CommandSettings)
        + "".join(
            _COMMAND.format(command=settings.command, about=settings.__doc__)
            + _table(settings, _beyond(settings))
            for settings in (
                RunSettings,
                CompareSettings,
                DiffSettings,
                AuditSettings,
                ReachSettings,
                OverloadSettings,
                SoakSettings,
                CrashSettings,
                BenchSettings,
            )
        )
    )


if __name__ == "__main__":
    REFERENCE.write_text(reference())
    for path, page in PAGES.items():
        path.write_text(page())
