"""Ships the proto files, and builds the allocation hook, a small C extension, if this machine can.

Without it the service says so in ``connect_allocation_probe_info`` and lacks two metrics.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

_MODULE = "connect_actor.observe._allocation_hook"
# Complete: protoc's -I takes the directory as it is.
_PROTOS = {
    "protos/connect_actor/v1": "connect_actor/protos/connect_actor/v1",
    "protos/google": "connect_actor/protos/google",
}
_SOURCE = "service/connect_actor/observe/_allocation_hook.c"


class AllocationHookBuild(BuildHookInterface[Any]):
    """Puts the extension into the wheel; for an editable install, beside its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, unless the target is a source distribution."""
        if self.target_name != "wheel":
            return
        if version != "editable":
            build_data["force_include"] |= _PROTOS
        self._temporary = TemporaryDirectory()
        extension = Extension(
            _MODULE,
            [str(Path(self.root, _SOURCE))],
            extra_compile_args=["-std=c11", "-O2"],
            optional=True,
        )
        command = build_ext(Distribution({"ext_modules": [extension]}))
        command.build_temp = str(Path(self._temporary.name, "objects"))
        command.build_lib = (
            str(Path(self.root, "service"))
            if version == "editable"
            else str(Path(self._temporary.name, "modules"))
        )
        command.ensure_finalized()
        name = command.get_ext_filename(_MODULE)
        built = Path(command.build_lib, name)
        built.unlink(missing_ok=True)
        command.run()
        if not built.exists():
            self.app.display_warning("no allocation hook: allocation figures will be absent")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if version != "editable":
            build_data["force_include"][str(built)] = name

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was only needed meanwhile."""
        del version, build_data, artifact_path
        if self.target_name == "wheel":
            self._temporary.cleanup()
