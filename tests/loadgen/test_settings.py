"""What a command is told: file, environment, flags; and a clear line for what is wrong."""

from pathlib import Path

import pytest

from connect_loadgen.experiments.audit import AuditSettings
from connect_loadgen.experiments.compare import CompareSettings
from connect_loadgen.settings.load import (
    ConfigurationError,
    LoadSettings,
    RunSettings,
    load_settings,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "loadgen.toml"


def refusal(settings_type: type[LoadSettings], *arguments: str) -> str:
    """Return the one line that a bad configuration gets."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(settings_type, arguments)
    line = str(caught.value)
    assert "\n" not in line
    return line


# --- Sources --------------------------------------------------------------------------------------


def test_flags_win_over_the_environment_which_wins_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("[run]\nchannels = 1\nconcurrency = 100\nseed = 100\n")
    monkeypatch.setenv("LOADGEN_CONCURRENCY", "200")
    monkeypatch.setenv("LOADGEN_SEED", "200")
    settings = load_settings(RunSettings, [f"--config={file}", "--seed=300"])
    assert (settings.channels, settings.concurrency, settings.seed) == (1, 200, 300)


def test_the_environment_can_name_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("[run]\nchannels = 7\n")
    monkeypatch.setenv("LOADGEN_CONFIG", str(file))
    assert load_settings(RunSettings, []).channels == 7


def test_each_command_reads_its_own_table(file: Path) -> None:
    file.write_text("[run]\nchannels = 1\n[compare]\nchannels = 2\n[audit]\nchannels = 3\n")
    arguments = [f"--config={file}"]
    assert load_settings(RunSettings, arguments).channels == 1
    assert load_settings(CompareSettings, arguments).channels == 2
    assert load_settings(AuditSettings, arguments).channels == 3


def test_a_list_is_comma_separated_in_flags_and_a_list_in_the_file(file: Path) -> None:
    file.write_text("[run]\npayload_bytes = [1, 2]\n")
    assert load_settings(RunSettings, [f"--config={file}"]).payload_bytes == "1,2"
    assert load_settings(RunSettings, ["--payload-bytes=3,4"]).payload_bytes == "3,4"


def test_a_command_is_taken_apart_as_a_shell_would() -> None:
    settings = load_settings(RunSettings, ["--service-command=python -c 'a b'"])
    assert settings.service_command == ("python", "-c", "a b")


def test_settings_cannot_be_changed() -> None:
    settings = load_settings(RunSettings, [])
    with pytest.raises(ValueError, match="frozen"):
        settings.channels = 3


# --- Quick ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["true", "1", "yes", "on"])
def test_quick_is_smaller_however_it_is_asked_for(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = load_settings(CompareSettings, [])
    monkeypatch.setenv("LOADGEN_QUICK", word)
    quick = load_settings(CompareSettings, [])
    assert quick.quick
    assert (quick.rounds, quick.duration_seconds) == (3, 4)
    assert (ordinary.rounds, ordinary.duration_seconds) == (5, 10)


def test_flags_and_file_win_over_quick(file: Path) -> None:
    file.write_text("[compare]\nduration_seconds = 9.0\n")
    settings = load_settings(CompareSettings, ["--quick", "--rounds=8", f"--config={file}"])
    assert (settings.rounds, settings.duration_seconds) == (8, 9)


def test_not_quick_is_not_quick() -> None:
    assert load_settings(CompareSettings, ["--no-quick"]).rounds == 5
    assert "--quick" in refusal(CompareSettings, "--quick=maybe")


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--channels=0", "--channels: expected at least 1 (got '0')"),
        ("--channels=many", "--channels"),
        ("--seed=-1", "--seed"),
        ("--payload-bytes=64,,64", "--payload-bytes"),
        ("--payload-bytes=1048577", "--payload-bytes"),
        ("--encrypt-weight=-1", "--encrypt-weight"),
        ("--out-of-order=0.6", "--out-of-order"),
        ("--transport=pigeon", "--transport: expected one of stream, unary (got 'pigeon')"),
        ("--rate=0", "--rate"),
        ("--rate=nan", "--rate"),
        ("--rate=inf", "--rate"),
        ("--rate=10..", "--rate: expected operations per second"),
        ("--payload-bytes=normal:1:2", "--payload-bytes: expected a number"),
        ("--think-seconds=3601", "--think-seconds: numbers go from 0 to 3600"),
        ("--channel-skew=-1", "--channel-skew"),
        ("--stop-if=p99", "--stop-if: expected conditions as in"),
        ("--storms=hail@3", "--storms: expected storms as in"),
        ("--storms=restore@10", "--storms: one comes after the load has ended"),
        ("--duration-seconds=0", "--duration-seconds"),
        ("--timeout-seconds=601", "--timeout-seconds"),
        ("--strategy=fastest", "--strategy"),
        ("--listen=here", "--listen: expected host:port: the port is missing (got 'here')"),
        ("--listen=:80", "--listen: expected host:port: the host is missing"),
        ("--listen=here:65536", "--listen: ports go up to 65535"),
        ("--service-command='a", "--service-command: No closing quotation"),
        ("--target=here:x", "--target: expected host:port: x is not a port number"),
        ("--chanels=3", "--chanels: no flag of this name (did you mean --channels?)"),
        ("--channel=3", "--channel: no flag of this name"),
        ("extra", "extra: is no flag"),
        ("--channels", "--channels: needs a value"),
        ("--config", "--config: needs a value"),
    ],
)
def test_a_bad_flag_is_one_line_that_names_it(flag: str, said: str) -> None:
    assert said in refusal(RunSettings, flag)


def test_an_empty_mix_is_refused() -> None:
    assert "the mix is empty" in refusal(RunSettings, "--encrypt-weight=0", "--decrypt-weight=0")


def test_a_concurrency_that_cannot_fill_a_frame_is_refused_where_there_are_frames() -> None:
    flags = ("--concurrency=63", "--frame-operations=64")
    assert "can't fill a frame of 64" in refusal(RunSettings, *flags)
    assert load_settings(RunSettings, [*flags, "--transport=unary"]).concurrency == 63
    assert load_settings(RunSettings, [*flags, "--rate=5"]).concurrency == 63


def test_loops_take_turns_only_if_both_are_described() -> None:
    assert "needs" in refusal(RunSettings, "--alternate-seconds=60")
    in_turn = ("--alternate-seconds=60", "--rate=100", "--concurrency=10")
    assert "can't fill a frame" in refusal(RunSettings, *in_turn)
    settings = load_settings(RunSettings, [*in_turn, "--frame-operations=10"])
    assert settings.alternate_seconds == 60


def test_thinking_is_for_closed_loops_and_needs_no_full_frames() -> None:
    assert "closed loops" in refusal(RunSettings, "--think-seconds=0.1", "--rate=5")
    flags = ["--think-seconds=exponential:0.1", "--concurrency=2"]
    assert load_settings(RunSettings, flags).concurrency == 2


def test_processes_must_have_something_to_share() -> None:
    assert "can't share 3 channels" in refusal(RunSettings, "--processes=4", "--channels=3")
    flags = ("--processes=4", "--frame-operations=64")
    assert "for each process" in refusal(RunSettings, *flags, "--concurrency=255")
    assert load_settings(RunSettings, [*flags, "--concurrency=256"]).processes == 4
    few = ("--processes=4", "--transport=unary", "--concurrency=3")
    assert "can't share a concurrency of 3" in refusal(RunSettings, *few)
    line = refusal(RunSettings, "--processes=2", "--serve-metrics=127.0.0.1:0")
    assert "--serve-metrics shows one" in line


def test_churn_would_lose_the_keys_that_channels_are_to_hold() -> None:
    assert "--skipped-keys" in refusal(RunSettings, "--churn-rate=1", "--skipped-keys=5")


def test_a_file_may_say_a_rate_as_a_number(file: Path) -> None:
    file.write_text("[run]\nrate = 250\nthink_seconds = 0\n")
    assert load_settings(RunSettings, [f"--config={file}"]).rate == "250"


@pytest.mark.parametrize(
    "flag",
    [
        "--strategy=full",
        "--journal=memory",
        "--router=awaiting",
        "--snapshot-interval=3",
        "--data-dir=somewhere",
        "--service-command=mine",
    ],
)
def test_with_a_target_nothing_is_said_about_how_to_start_a_service(flag: str) -> None:
    line = refusal(RunSettings, "--target=here:1", flag)
    assert f"{flag.partition('=')[0]} can't be obeyed" in line


@pytest.mark.parametrize(
    "flag",
    ["--target-metrics=here:1", "--target-tls-ca=ca.pem", "--target-token-file=token"],
)
def test_what_is_said_of_a_target_needs_a_target(flag: str) -> None:
    assert f"{flag.partition('=')[0]} needs --target" in refusal(RunSettings, flag)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--target-tls-server-name=name",), "--target-tls-server-name needs --target-tls-ca"),
        (("--target-tls-ca=ca.pem", "--target-tls-certificate=c.pem"), "belong together"),
        (("--target-tls-ca=ca.pem", "--target-tls-private-key=k.pem"), "belong together"),
    ],
)
def test_what_a_target_wants_to_see_goes_together(flags: tuple[str, ...], said: str) -> None:
    assert said in refusal(RunSettings, "--target=here:1", *flags)


@pytest.mark.parametrize("name", ["LOADGEN_CHANELS", "loadgen_chanels", "LOADGEN_"])
def test_a_misspelt_variable_is_refused_by_its_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "3")
    assert f"variable {name}: no setting of this name" in refusal(RunSettings)


def test_a_variable_of_another_command_and_another_programme_is_let_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOADGEN_ROUNDS", "3")
    monkeypatch.setenv("LOADGENERATOR_CHANELS", "3")
    load_settings(RunSettings, [])


def test_a_bad_value_in_a_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADGEN_CHANNELS", "")
    assert "LOADGEN_CHANNELS: is empty" in refusal(RunSettings)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[run]\nchanels = 3\n", "chanels: no setting of this name"),
        ("[run]\nchannels = 0\n", "loadgen.toml: expected at least 1 (got 0)"),
        ("[walk]\n", "'walk' is none of the tables"),
        ("channels = 3\n", "'channels' is none of the tables"),
        ("run = 3\n", "'run' is none of the tables"),
        ("[run\n", "Expected ']'"),
        ('[run]\nconfig = "other.toml"\n', "a file can't name another"),
    ],
)
def test_a_bad_file_is_refused(file: Path, content: str, said: str) -> None:
    file.write_text(content)
    assert said in refusal(RunSettings, f"--config={file}")
