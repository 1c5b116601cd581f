"""Tests that need a C compiler, or what it makes: skipped only where there can be none."""

import os
import shutil
import sysconfig
from pathlib import Path

import pytest

from connect_actor.observe import allocation
from connect_actor.protocol import message_step

__all__ = [
    "COMPILER",
    "HOOK_EXPECTED",
    "NATIVE_STEP_EXPECTED",
    "needs_compiler",
    "needs_hook",
    "needs_native_step",
    "needs_openssl_headers",
]

COMPILER = os.environ.get("CC", "").split() or (sysconfig.get_config_var("CC") or "cc").split()
"""The compiler's command."""

_HEADER = Path(sysconfig.get_paths()["include"], "Python.h")
_CAN_BUILD = shutil.which(COMPILER[0]) is not None and _HEADER.exists()

HOOK_EXPECTED = _CAN_BUILD or allocation._hook is not None
"""Whether this machine has the hook, or `make setup` should have built it."""

_CAN_BUILD_STEP = _CAN_BUILD and Path("/usr/include/openssl/evp.h").exists()

NATIVE_STEP_EXPECTED = _CAN_BUILD_STEP or message_step.NATIVE is not None
"""The same of the native message step."""

needs_compiler = pytest.mark.skipif(not _CAN_BUILD, reason="no C compiler, or no Python.h")
needs_openssl_headers = pytest.mark.skipif(
    not _CAN_BUILD_STEP, reason="no C compiler, or no headers of OpenSSL"
)
needs_native_step = pytest.mark.skipif(
    not NATIVE_STEP_EXPECTED, reason="no native message step: no headers of OpenSSL"
)
needs_hook = pytest.mark.skipif(not HOOK_EXPECTED, reason="no C compiler: no allocation hook")
