"""Ships the proto files, and builds two small C extensions where this machine can.

Without the allocation hook the service says so in ``connect_allocation_probe_info`` and lacks two
metrics. Without the message step, which needs OpenSSL's headers (3.0 or later), each message takes
longer, and ``connect_message_step_info`` says ``python``.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

# Complete: protoc's -I takes the directory as it is.
_PROTOS = {
    "protos/connect_actor/v1": "connect_actor/protos/connect_actor/v1",
    "protos/google": "connect_actor/protos/google",
}
# Module, libraries, and what is lost without it.
_EXTENSIONS = (
    ("connect_actor.observe._allocation_hook", [], "allocation figures will be absent"),
    ("connect_actor.protocol._message_step", ["crypto"], "messages will take more CPU"),
)


class NativeBuild(BuildHookInterface[Any]):
    """Puts the extensions into the wheel; for an editable install, beside their sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, unless the target is a source distribution."""
        if self.target_name != "wheel":
            return
        if version != "editable":
            build_data["force_include"] |= _PROTOS
        self._temporary = TemporaryDirectory()
        extensions = [
            Extension(
                module,
                [str(Path(self.root, "service", *module.split(".")).with_suffix(".c"))],
                libraries=libraries,
                define_macros=[("OPENSSL_NO_DEPRECATED", None)],
                extra_compile_args=["-std=c11", "-O2"],
                optional=True,
            )
            for module, libraries, _ in _EXTENSIONS
        ]
        command = build_ext(Distribution({"ext_modules": extensions}))
        command.build_temp = str(Path(self._temporary.name, "objects"))
        command.build_lib = (
            str(Path(self.root, "service"))
            if version == "editable"
            else str(Path(self._temporary.name, "modules"))
        )
        command.ensure_finalized()
        names = {module: command.get_ext_filename(module) for module, _, _ in _EXTENSIONS}
        for name in names.values():
            Path(command.build_lib, name).unlink(missing_ok=True)
        command.run()
        for module, _, loss in _EXTENSIONS:
            built = Path(command.build_lib, names[module])
            if not built.exists():
                self.app.display_warning(f"{module} was not built: {loss}")
                continue
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            if version != "editable":
                build_data["force_include"][str(built)] = names[module]

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was only needed meanwhile."""
        del version, build_data, artifact_path
        if self.target_name == "wheel":
            self._temporary.cleanup()
