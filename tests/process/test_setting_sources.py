"""What both programs say of settings that can't be used: which, as it was written, and why."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from connect_actor.setting_sources import SettingsError, SourcedSettings
from connect_actor.settings import Settings, load_settings
from connect_loadgen.settings.load import ConfigurationError, DiffSettings, RunSettings
from connect_loadgen.settings.load import load_settings as loadgen_settings


def service_says(*flags: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(flags)
    return str(refused.value)


def loadgen_says(*flags: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        loadgen_settings(RunSettings, flags)
    return str(refused.value)


Says = Callable[..., str]

# --- Names ----------------------------------------------------------------------------------------


def test_a_setting_is_named_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "expected a finite number (got"
    assert service_says("--channel-lifetime=inf") == f"--channel-lifetime: {why} 'inf')"
    monkeypatch.setenv("connect_actor_Channel_Lifetime", "nan")
    assert service_says() == f"connect_actor_Channel_Lifetime: {why} 'nan')"
    assert service_says("--channel-lifetime", "inf").startswith("--channel-lifetime: ")
    monkeypatch.delenv("connect_actor_Channel_Lifetime")
    file = tmp_path / "service.toml"
    file.write_text("channel_lifetime = inf")
    assert service_says(f"--config={file}") == f"channel_lifetime in {file}: {why} inf)"


@pytest.mark.parametrize("source", ["flag", "variable", "file"])
def test_a_combination_names_its_settings_as_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    file = tmp_path / "service.toml"
    match source:
        case "flag":
            said = service_says("--tls-certificate=a.pem")
            names = "--tls-certificate and --tls-private-key belong together"
        case "variable":
            monkeypatch.setenv("CONNECT_ACTOR_TLS_CERTIFICATE", "a.pem")
            said = service_says()
            names = "CONNECT_ACTOR_TLS_CERTIFICATE and CONNECT_ACTOR_TLS_PRIVATE_KEY belong"
        case _:
            file.write_text("tls_certificate = 'a.pem'")
            said = service_says(f"--config={file}")
            names = f"tls_certificate in {file} and tls_private_key belong together"
    assert said.startswith(names)
    assert "`" not in said


def test_every_fault_is_named() -> None:
    said = service_says("--workers=0", "--idle-timeout=soon", "--journal=paper")
    assert said == (
        "--workers: expected at least 1 (got '0'); --journal: expected one of sqlite, memory"
        " (got 'paper'); --idle-timeout: expected a number (got 'soon')"
    )


@pytest.mark.parametrize(
    "name",
    ["CONNECT_ACTOR_IDLE_TIMOUT", "connect_actor_idle_timout", "Connect_Actor_Idle_Timout"],
)
def test_a_misspelt_variable_is_refused_in_any_case(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "3")
    assert service_says() == (
        f"environment variable {name}: no setting of this name"
        " (did you mean CONNECT_ACTOR_IDLE_TIMEOUT?)"
    )


def test_misspelt_flags_and_keys_are_refused_with_the_nearest_name(tmp_path: Path) -> None:
    assert service_says("--idle-timout=3") == (
        "--idle-timout: no flag of this name (did you mean --idle-timeout?)"
    )
    assert "did you mean --channels?" in loadgen_says("--chanels=3")
    file = tmp_path / "service.toml"
    for key in ("idle_timout", "_env_prefix", "cli_args", "model_cls"):
        file.write_text(f"{key} = 3")
        assert f"{file}: {key}: no setting of this name" in service_says(f"--config={file}")


def test_two_keys_of_one_setting_are_refused_in_any_case(tmp_path: Path) -> None:
    file = tmp_path / "service.toml"
    file.write_text("Workers = 2\nIDLE_TIMEOUT = 'x'")
    assert service_says(f"--config={file}").startswith(f"IDLE_TIMEOUT in {file}: expected a number")
    file.write_text("Workers = 2\nworkers = 3")
    assert "Workers and workers are the same setting" in service_says(f"--config={file}")


def test_two_variables_of_one_setting_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECT_ACTOR_STRATEGY", "full")
    monkeypatch.setenv("connect_actor_strategy", "cached")
    said = service_says()
    assert "CONNECT_ACTOR_STRATEGY" in said
    assert "connect_actor_strategy are the same setting" in said


def test_the_file_may_be_named_by_a_variable_in_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "service.toml").write_text("workers = 3")
    monkeypatch.setenv("connect_actor_config", str(tmp_path / "service.toml"))
    assert load_settings([]).workers == 3


def test_what_kubernetes_sets_for_a_service_of_this_name_is_no_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "50051"),
        ("SERVICE_PORT_GRPC", "50051"),
        ("PORT", "tcp://10.0.0.1:50051"),
        ("PORT_50051_TCP", "tcp://10.0.0.1:50051"),
        ("PORT_50051_TCP_ADDR", "10.0.0.1"),
    ):
        monkeypatch.setenv(f"CONNECT_ACTOR_{name}", value)
    load_settings([])
    monkeypatch.setenv("CONNECT_ACTOR_PORT", "50051")
    assert "CONNECT_ACTOR_PORT: no setting" in service_says()


def test_a_value_that_is_missing_or_too_much_is_named() -> None:
    assert service_says("--workers") == "--workers: needs a value"
    assert loadgen_says("--channels") == "--channels: needs a value"
    assert loadgen_says("--dry-run=maybe") == "--dry-run: expected true or false (got 'maybe')"
    assert loadgen_says("--no-dry-run=1") == "--no-dry-run: takes no value"


@pytest.mark.parametrize("flags", [["--dry-run"], ["--dry-run=true"], ["--dry-run", "yes"]])
def test_a_switch_needs_no_value(flags: list[str]) -> None:
    assert loadgen_settings(RunSettings, flags).dry_run
    assert not loadgen_settings(RunSettings, [*flags, "--no-dry-run"]).dry_run


def test_what_is_missing_behind_a_command_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"^BEFORE: is missing; AFTER: is missing$"):
        loadgen_settings(DiffSettings, [])


def test_no_secret_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "service.toml"
    file.touch(0o600)
    for value in ("1234567890", "['1234567890']", '"1234567890\\u0000"'):
        file.write_text(f"sealing_keys = {value}")
        said = service_says(f"--config={file}")
        assert said.startswith("sealing_keys in ")
        assert "1234567890" not in said
    assert "1234567890" not in service_says("--sealing-key=1234567890")
    monkeypatch.setenv("CONNECT_ACTOR_SEALING_KEY", "1234567890")
    assert "1234567890" not in service_says()


# --- Values ---------------------------------------------------------------------------------------

# What people write, by mistake or not, in TOML's words.
ODD = (
    "true",
    "1",
    "0",
    "-1",
    "1.0",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "99999999999999999999999999",
    "''",
    "' '",
    "'x'",
    "'true'",
    "'1.0'",
    "'a\\u0000b'",
    '"a\\u0000b"',
    "[]",
    "[1]",
    "{}",
    "{ a = 1 }",
    "2026-11-30",
    "07:30:00",
)
# Of pydantic, argparse and Python.
THEIR_WORDS = ("Input should", "Value error", "valid", "Exceeds", "Assertion", "Traceback", "`")


def whole_numbers(settings: type[SourcedSettings]) -> list[str]:
    return [name for name, field in settings.model_fields.items() if field.annotation is int]


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("source", ["flags", "variables", "file"])
@pytest.mark.parametrize("program", ["connect-actor", "loadgen"])
def test_each_setting_takes_a_value_or_says_in_our_words_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, source: str, value: str
) -> None:
    if source != "file" and "\\" in value:
        pytest.skip("no zero byte can be in a flag or variable")
    settings: type[SourcedSettings] = Settings if program == "connect-actor" else RunSettings
    says, head = (service_says, "") if settings is Settings else (loadgen_says, "[run]\n")
    names = [name for name in settings.model_fields if name != "config"]
    file, plain, flags = tmp_path / "settings.toml", value.strip("'\""), []
    spelt: dict[str, str] = {}
    match source:
        case "flags":
            spelt = {name: f"--{name.replace('_', '-')}" for name in names}
            flags = [f"{flag}={plain}" for flag in spelt.values()]
        case "variables":
            prefix = "CONNECT_ACTOR_" if settings is Settings else "LOADGEN_"
            spelt = {name: f"{prefix}{name.upper()}" for name in names}
            for variable in spelt.values():
                monkeypatch.setenv(variable, plain)
        case _:
            spelt = {name: f"{name} in {file}" for name in names}
            file.touch(0o600)  # it holds sealing keys
            file.write_text(head + "".join(f"{name} = {value}\n" for name in names))
            flags = [f"--config={file}"]
    # No value is right for all of them.
    for fault in says(*flags).split("; "):
        assert fault.partition(": ")[0] in spelt.values()
        assert not [word for word in THEIR_WORDS if word in fault], fault
        assert "\n" not in fault


# The last one is a digit in Arabic.
@pytest.mark.parametrize("value", ["true", "1.0", "'1.0'", "'1e3'", "nan", "inf", "'\u0661'"])
def test_what_is_no_whole_number_is_never_taken_for_one(tmp_path: Path, value: str) -> None:
    file = tmp_path / "settings.toml"
    for settings, says, head in (
        (Settings, service_says, ""),
        (RunSettings, loadgen_says, "[run]\n"),
    ):
        names = whole_numbers(settings)
        file.write_text(head + "".join(f"{name} = {value}\n" for name in names))
        faults = says(f"--config={file}").split("; ")
        assert len(faults) == len(names) > 8
        for name, fault in zip(names, faults, strict=True):
            assert fault.startswith(f"{name} in {file}: expected a whole number (got ")


def test_an_empty_value_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECT_ACTOR_DATA_DIR", "")
    assert service_says().startswith("CONNECT_ACTOR_DATA_DIR: is empty")
    monkeypatch.setenv("CONNECT_ACTOR_CONFIG", "")
    assert "CONNECT_ACTOR_CONFIG: is empty" in service_says()
    assert loadgen_says("--output=").startswith("--output: is empty")
    assert loadgen_says("--config=").startswith("--config: is empty")
    assert loadgen_settings(RunSettings, ["--storms="]).storms == ""


# --- The file -------------------------------------------------------------------------------------


@pytest.fixture(params=["connect-actor", "loadgen"])
def says(request: pytest.FixtureRequest) -> Says:
    return service_says if request.param == "connect-actor" else loadgen_says


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff\xfea\x00", "is in UTF-16: save it as UTF-8"),
        (b"\xfe\xff\x00a", "is in UTF-16: save it as UTF-8"),
        (b"# \xe9", "is not UTF-8 text: see its byte 2"),
        (b"\x00", "is not TOML: "),
        (b"[run", "is not TOML: "),
        (b"x = " + 5_000 * b"9", "is not TOML: "),
        (b"x = " + 5_000 * b"[", "is nested too deep"),
        (b"x" + 500 * b".x" + b" = 1", "is nested too deep"),
        (b"#" + (1 << 20) * b"x", "is longer than 1,048,576 bytes"),
    ],
)
def test_a_file_that_is_no_configuration_is_told_for_what_it_is(
    tmp_path: Path, says: Says, content: bytes, why: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    assert says(f"--config={file}").startswith(f"configuration file {file} {why}")


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(b"\xef\xbb\xbfidle_timeout = 30\r\n")
    assert load_settings([f"--config={file}"]).idle_timeout == 30
    file.write_bytes(b"\xef\xbb\xbf[run]\nchannels = 7")
    assert loadgen_settings(RunSettings, [f"--config={file}"]).channels == 7


def test_a_file_that_cannot_be_read_is_told_for_what_it_is(tmp_path: Path, says: Says) -> None:
    for path, why in (
        (tmp_path, "is a directory: name the file in it"),
        (tmp_path / "none", "does not exist"),
        (tmp_path / ("x" * 300), "can't be read: File name too long"),
        ("/dev/zero", "is longer than"),
    ):
        assert says(f"--config={path}").startswith(f"configuration file {path} {why}")
    (tmp_path / "file").touch()
    beneath = tmp_path / "file" / "settings.toml"
    assert says(f"--config={beneath}").endswith("can't be read: Not a directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_a_file_of_another_user_is_told_for_what_it_is(tmp_path: Path, says: Says) -> None:
    file = tmp_path / "settings.toml"
    file.touch(0o000)
    assert says(f"--config={file}") == f"configuration file {file} can't be read: Permission denied"


def test_a_file_may_be_a_pipe() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"workers = 2")
    os.close(writing)
    try:
        assert load_settings([f"--config=/dev/fd/{reading}"]).workers == 2
    finally:
        os.close(reading)


def test_a_file_names_no_other(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("config = 'other.toml'")
    assert service_says(f"--config={file}").endswith("a file can't name another")
