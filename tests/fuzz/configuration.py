"""Target of the configuration: file, environment and flags."""

import contextlib
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from unittest.mock import patch

from connect_actor.process.exit_codes import USAGE
from connect_actor.process.limits import connection_bounds
from connect_actor.settings import ENVIRONMENT_PREFIX, Settings, SettingsError, load_settings
from tests.fuzz.target import require

__all__ = ["ConfigurationTarget"]

# Between an input's file, its environment (a name=value a line) and its flags (one a line).
_PART = b"\x1e"


class ConfigurationTarget:
    """Any configuration is refused with a message, or is one that the service can run with."""

    name: ClassVar[str] = "configuration"
    style: ClassVar[str] = "text"
    max_steps: ClassVar[int] = 0
    # The operator's own, and read once: a number of 65,000 digits takes 90 bytes for each of them.
    base_bytes: ClassVar[int] = 8 * 1024 * 1024

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "connect-actor.toml"

    def seeds(self) -> Mapping[str, bytes]:
        lines, variables, flags = [], [], []
        for name, field in Settings.model_fields.items():
            value = field.get_default()
            if value is None or name == "config":
                continue
            written = f'"{value}"' if isinstance(value, str | Path) else str(value)
            lines.append(f"{name} = {written}")
            variables.append(f"{ENVIRONMENT_PREFIX}{name.upper()}={value}")
            flags.append(f"--{name.replace('_', '-')}={value}")
        file, environment, command = (
            "\n".join(part).encode() for part in (lines, variables, flags)
        )
        return {
            "file": file,
            "environment": _PART + environment,
            "flags": _PART + _PART + command,
            "all": _PART.join((b"strategy = 'full'", variables[0].encode(), flags[-1].encode())),
        }

    def run(self, data: bytes) -> bool:
        file, environment, flags, *_ = [*data.split(_PART), b"", b""]
        self._file.write_bytes(file)
        variables = {}
        for line in environment.replace(b"\x00", b"").split(b"\n"):
            name, equals, value = line.partition(b"=")
            if name and equals:
                variables[os.fsdecode(name)] = os.fsdecode(value)
        # No argument, and no variable, can hold a zero byte.
        arguments = [os.fsdecode(flag) for flag in flags.replace(b"\x00", b"").split(b"\n") if flag]
        said = io.StringIO()
        with (
            patch.dict(os.environ, variables),
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(said),
        ):
            try:
                settings = load_settings([f"--config={self._file}", *arguments])
            except SettingsError as error:
                require(bool(str(error)), "refused without a word")
                return False
            except SystemExit as left:
                require(left.code in (0, USAGE), f"left with {left.code}")
                require(bool(said.getvalue()), "left without a word")
                return False
        for address in (settings.listen, settings.metrics_listen):
            host, _, port = address.rpartition(":")
            require(bool(host) and 0 <= int(port) < 2**16, f"can't listen on {address!r}")
        for setting, chosen in settings:
            if isinstance(chosen, float):
                require(chosen < 2**63 / 1_000, f"{setting} is {chosen}: no timer takes that")
        counts = (settings.max_frame_bytes, *dict(connection_bounds(settings).options()).values())
        require(max(counts) < 2**31, "more than gRPC can count")
        return True

    def close(self) -> None:
        self._folder.cleanup()
