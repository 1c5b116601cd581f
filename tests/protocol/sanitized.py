"""``python -m tests.protocol.sanitized SHARED_OBJECT``: that build's answers, good and bad inputs.

For a build with the address sanitizer, or under valgrind (see ``test_message_step``): few calls,
no test framework, since either makes Python many times slower.
"""

import os
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location

from connect_actor.errors import MalformedRequestError
from connect_actor.protocol.message_step import PYTHON
from connect_actor.protocol.payload import Header

_MODULE = "connect_actor.protocol._message_step"
_KEY, _NONCE = os.urandom(32), os.urandom(12)
_HEADER = Header(os.urandom(32), 1, 2, 3, -4)


def main(path: str) -> None:
    """Compare with the Python code over sizes around every block's end, and refuse what is bad."""
    spec = spec_from_file_location(_MODULE, path, loader=ExtensionFileLoader(_MODULE, path))
    if spec is None or spec.loader is None:
        raise ImportError(path)
    native = module_from_spec(spec)
    spec.loader.exec_module(native)
    for size in (*range(70), 255, 256, 257, 1_024, 65_537):
        data, text = os.urandom(size % 67), os.urandom(size)
        sealed = PYTHON.seal(_KEY, data, _HEADER, _NONCE, text)
        assert native.seal_message(_KEY, data, _HEADER, _NONCE, text) == sealed
        assert native.open_message(_KEY, data, _HEADER, _NONCE, sealed[0]) == (text, *sealed[1:])
        assert native.open_message(_KEY, data, _HEADER, _NONCE, sealed[0] + b"x") is None
        assert native.open_message(_KEY, data, _HEADER, _NONCE, bytes(16)) is None
    for bad in (
        (),
        (_KEY[1:], b"", _HEADER, _NONCE, bytes(16)),
        (_KEY, b"", _HEADER[:4], _NONCE, bytes(16)),
        (_KEY, b"", _HEADER._replace(ratchet_key=b""), _NONCE, bytes(16)),
        (_KEY, b"", _HEADER, _NONCE[1:], bytes(16)),
        (_KEY, b"", _HEADER, _NONCE, bytes(15)),
        (_KEY, b"", _HEADER._replace(message_number=2**32), _NONCE, bytes(16)),
        (_KEY, b"", _HEADER._replace(created_at=2**63), _NONCE, bytes(16)),
    ):
        try:
            native.open_message(*bad)
        except (TypeError, MalformedRequestError):
            continue
        raise AssertionError(bad)


if __name__ == "__main__":
    main(sys.argv[1])
