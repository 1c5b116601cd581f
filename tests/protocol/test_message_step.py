"""The native step of a message: the bytes of the Python code, and no more trust in what comes."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_actor.errors import AuthenticationFailedError, MalformedRequestError
from connect_actor.protocol import message_step
from connect_actor.protocol.message_step import NATIVE, PYTHON, MessageStep
from connect_actor.protocol.payload import Header
from tests.protocol.vectors import PATH, make_vectors
from tests.support.channels import NOW, make_ends
from tests.support.compiler import (
    COMPILER,
    NATIVE_STEP_EXPECTED,
    needs_native_step,
    needs_openssl_headers,
)
from tests.support.process import Start, scrape

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "service/connect_actor/protocol/_message_step.c"

keys = st.binary(min_size=32, max_size=32)
nonces = st.binary(min_size=12, max_size=12)
headers = st.builds(
    Header,
    keys,
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(-(2**63), 2**63 - 1),
)
KEY, NONCE, DATA = bytes(range(32)), bytes(12), b"who the ends are"
HEADER = Header(b"r" * 32, 1, 2, 3, 4)


@pytest.fixture
def native() -> MessageStep:
    assert NATIVE is not None
    return NATIVE


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    used = message_step.active()
    yield
    message_step.use(native=used is NATIVE)


@pytest.mark.skipif(not NATIVE_STEP_EXPECTED, reason="nothing to build it with")
def test_it_is_built_where_it_can_be_and_used_by_default() -> None:
    assert NATIVE is not None
    assert message_step.active() is NATIVE


@needs_native_step
@given(keys, st.binary(max_size=200), headers, nonces, st.binary(max_size=5_000))
def test_both_implementations_return_identical_bytes(
    key: bytes, data: bytes, header: Header, nonce: bytes, plaintext: bytes
) -> None:
    assert NATIVE is not None
    sealed = PYTHON.seal(key, data, header, nonce, plaintext)
    assert NATIVE.seal(key, data, header, nonce, plaintext) == sealed
    opened = PYTHON.open(key, data, header, nonce, sealed[0])
    assert opened == (plaintext, *sealed[1:])
    assert NATIVE.open(key, data, header, nonce, sealed[0]) == opened


@needs_native_step
@given(st.data(), headers, st.binary(max_size=100))
def test_whatever_bit_is_flipped_neither_opens_it(
    drawn: st.DataObject, header: Header, plaintext: bytes
) -> None:
    assert NATIVE is not None
    sealed = PYTHON.seal(KEY, DATA, header, NONCE, plaintext)[0]
    parts = {"key": KEY, "data": DATA, "ratchet key": header.ratchet_key, "nonce": NONCE,
             "text": sealed}  # fmt: skip
    which = drawn.draw(st.sampled_from(sorted(parts)))
    changed = bytearray(parts[which])
    bit = drawn.draw(st.integers(0, 8 * len(changed) - 1))
    changed[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(changed)
    other = header._replace(ratchet_key=parts["ratchet key"])
    for step in (PYTHON, NATIVE):
        given_ = (parts["key"], parts["data"], other, parts["nonce"], parts["text"])
        assert step.open(*given_) is None


@needs_native_step
@pytest.mark.parametrize("field", Header._fields[1:])
def test_every_number_of_the_header_is_authenticated(native: MessageStep, field: str) -> None:
    sealed = native.seal(KEY, DATA, HEADER, NONCE, b"text")[0]
    other = HEADER._replace(**{field: getattr(HEADER, field) + 1})
    assert native.open(KEY, DATA, other, NONCE, sealed) is None
    assert native.open(KEY, DATA, HEADER, NONCE, sealed) is not None


@needs_native_step
@pytest.mark.parametrize("step", [PYTHON, NATIVE], ids=["python", "native"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("previous_chain_length", 2**32),
        ("message_number", 2**32),
        ("message_number", -1),
        ("request_id", 2**64),
        ("request_id", -1),
        ("created_at", 2**63),
        ("created_at", -(2**63) - 1),
        ("created_at", "now"),
    ],
)
def test_a_number_that_does_not_fit_its_field_is_refused_alike(
    step: MessageStep, field: str, value: object
) -> None:
    header = HEADER._replace(**{field: value})  # type: ignore[arg-type] # on purpose
    with pytest.raises(MalformedRequestError, match="doesn't fit 32 bits"):
        step.seal(KEY, DATA, header, NONCE, b"")
    with pytest.raises(MalformedRequestError, match="doesn't fit 32 bits"):
        step.open(KEY, DATA, header, NONCE, bytes(16))


@needs_native_step
@pytest.mark.parametrize(
    "wrong",
    [
        (KEY[:-1], DATA, HEADER, NONCE, bytes(16)),
        (KEY + b"k", DATA, HEADER, NONCE, bytes(16)),
        (bytearray(KEY), DATA, HEADER, NONCE, bytes(16)),
        (KEY, None, HEADER, NONCE, bytes(16)),
        (KEY, DATA, list(HEADER), NONCE, bytes(16)),
        (KEY, DATA, HEADER[:4], NONCE, bytes(16)),
        (KEY, DATA, HEADER._replace(ratchet_key=b"r" * 31), NONCE, bytes(16)),
        (KEY, DATA, HEADER._replace(ratchet_key=b"r" * 33), NONCE, bytes(16)),
        (KEY, DATA, HEADER, NONCE[:-1], bytes(16)),
        (KEY, DATA, HEADER, NONCE, bytes(15)),
        (KEY, DATA, HEADER, NONCE, "text"),
        (KEY, DATA, HEADER, NONCE),
        (),
    ],
)
def test_what_has_the_wrong_type_or_size_is_never_read(
    native: MessageStep, wrong: tuple[object, ...]
) -> None:
    with pytest.raises(TypeError, match="expected chain key"):
        native.open(*wrong)  # type: ignore[arg-type]


@needs_native_step
def test_a_failed_tag_leaves_no_error_for_python_s_own_openssl(native: MessageStep) -> None:
    import hashlib  # noqa: PLC0415 - _hashlib reads the queue that is shared

    for _ in range(3):
        assert native.open(KEY, DATA, HEADER, NONCE, bytes(40)) is None
        assert hashlib.new("sha512_256").digest_size == 32


@pytest.mark.parametrize("native_wanted", [False, True])
def test_the_golden_vectors_hold_for_either(native_wanted: bool) -> None:  # noqa: FBT001
    message_step.use(native=native_wanted)
    assert make_vectors() == json.loads(PATH.read_text())


def test_switched_off_the_python_code_serves() -> None:
    assert message_step.use(native=False) is PYTHON
    assert message_step.active() is PYTHON


@needs_native_step
def test_two_ends_understand_each_other_whichever_each_uses() -> None:
    ends = make_ends()
    for number in range(1, 60):
        up = number // 7 % 2 == 0
        sender, receiver = (ends.peer, ends.service) if up else (ends.service, ends.peer)
        message_step.use(native=number % 2 == 0)
        payload, _ = sender.encrypt(b"%d" % number, now=NOW, random=ends.random)
        if number % 5 == 0:
            continue  # lost
        message_step.use(native=number % 3 == 0)
        forged = payload._replace(ciphertext=bytes(len(payload.ciphertext)))
        before = receiver.encode()
        with pytest.raises(AuthenticationFailedError):
            receiver.decrypt(forged, now=NOW)
        assert receiver.encode() == before
        assert receiver.decrypt(payload, now=NOW)[0] == b"%d" % number


@needs_native_step
@pytest.mark.parametrize(("wanted", "used"), [("true", "native"), ("false", "python")])
def test_a_service_uses_what_its_setting_says_and_tells_which(
    start: Start, wanted: str, used: str
) -> None:
    service = start(f"--native-message-step={wanted}")
    told = scrape(service.ready["metrics"])
    assert re.findall(r'connect_message_step_info\{.*implementation="(\w+)"', told) == [used]


@needs_openssl_headers
@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD")
def test_the_address_sanitizer_finds_nothing(tmp_path: Path) -> None:
    library = subprocess.run(  # noqa: S603
        [*COMPILER, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(library).is_absolute():
        pytest.skip("no address sanitizer")
    built = tmp_path / "sanitized.so"
    include = sysconfig.get_paths()["include"]
    subprocess.run(  # noqa: S603
        [*COMPILER, "-std=c11", "-g", "-O1", "-fsanitize=address", "-shared", "-fPIC", "-Wall",
         "-Werror=deprecated-declarations", "-DOPENSSL_NO_DEPRECATED",
         f"-I{include}", str(SOURCE), "-o", str(built), "-lcrypto"],
        check=True,
    )  # fmt: skip
    run = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "tests.protocol.sanitized", str(built)],
        cwd=ROOT,
        env={
            **os.environ,
            "LD_PRELOAD": library,
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONMALLOC": "malloc",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
