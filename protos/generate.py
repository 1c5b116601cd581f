"""Generates the Python modules of the ``.proto`` files: ``python protos/generate.py``."""

import os
import sys
import sysconfig
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
PACKAGES = PROTOS.parent / "service"
SERVICES = ["connect_actor/v1/connect.proto"]
MESSAGES = ["connect_actor/stored/v1/session.proto"]


def generate(output: Path) -> None:
    """Write the generated modules below ``output``, in the layout of their proto packages.

    Raises:
        RuntimeError: the protobuf compiler refused a file; it has said why on standard error.
    """
    # protoc finds the mypy plug-ins on the PATH: those of this very environment.
    scripts = sysconfig.get_path("scripts")
    os.environ["PATH"] = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    # grpc_tools carries the well-known types; googleapis-common-protos, google/rpc/status.proto.
    well_known = Path(protoc.__file__).parent / "_proto"
    includes = [f"-I{PROTOS}", f"-I{well_known}", f"-I{sysconfig.get_path('purelib')}"]
    messages = [f"--python_out={output}", f"--mypy_out={output}"]
    services = [f"--grpc_python_out={output}", f"--mypy_grpc_out={output}"]
    for options, files in ((messages, SERVICES + MESSAGES), (services, SERVICES)):
        if protoc.main(["protoc", *includes, *options, *files]) != 0:
            raise RuntimeError(f"protoc failed on {', '.join(files)}")


if __name__ == "__main__":
    generate(PACKAGES)
    sys.stdout.write("protos: generated\n")
