"""Where settings come from, and which are refused."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from connect_actor.process.limits import channel_limits
from connect_actor.settings import SettingsError, load_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "connect-actor.toml"
    path.write_text('strategy = "full"\nsnapshot_interval = 10\nidle_timeout = 5.5\n')
    return path


def test_flags_win_over_the_environment_and_that_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONNECT_ACTOR_SNAPSHOT_INTERVAL", "20")
    monkeypatch.setenv("CONNECT_ACTOR_STRATEGY", "cached")
    settings = load_settings([f"--config={file}", "--strategy=differential"])
    assert settings.strategy == "differential"
    assert settings.snapshot_interval == 20
    assert settings.idle_timeout == 5.5
    assert settings.max_skip == 1_000


def test_the_last_one_of_two_flags_counts() -> None:
    assert load_settings(["--workers=2", "--workers", "3"]).workers == 3


def test_the_environment_can_name_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECT_ACTOR_CONFIG", str(file))
    assert load_settings([]).strategy == "full"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("strategy = ", "is not TOML"),
        ("unknown_key = 1", "unknown_key"),
        ("snapshot_interval = -1", "snapshot_interval"),
        ("one_time_prekeys = 201", "one_time_prekeys"),
        ("redelivery_window = 1025", "redelivery_window"),
        ("dh_ratchet_every = 4294967296", "dh_ratchet_every"),
        ("channel_lifetime = inf", "lifetime"),
        (f"strategy{'.a' * 3_000} = 1", "nested too deep"),
        ("journal_lease = inf", "journal_lease"),
        ("stream_idle_timeout = inf", "stream_idle_timeout"),
        ("max_operations_per_second = inf", "max_operations_per_second"),
        ("keepalive_timeout = inf", "keepalive_timeout"),
        ("connection_idle_timeout = 2592000", "connection_idle_timeout"),
        ("max_calls = 2147483648", "max_calls"),
        ('strategy = "fastest"', "one of full, cached, differential"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_name(
    tmp_path: Path, content: str, said: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=said):
        load_settings([f"--config={path}"])


def test_reading_settings_loads_only_what_reads_settings() -> None:
    program = (
        "import sys; from connect_actor.settings import load_settings\n"
        "load_settings(['--listen=127.0.0.1:1', '--sealing-key-file=keys'])\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "pydantic" in loaded
    heavy = {"grpc", "cryptography", "nacl", "google", "pykka", "sqlite3", "prometheus_client"}
    assert heavy.isdisjoint(loaded)


def test_settings_never_change() -> None:
    with pytest.raises(ValidationError):
        load_settings([]).strategy = "full"


def test_new_channels_get_the_limits_that_are_set() -> None:
    flags = [
        "--dh-ratchet-every=1",
        "--max-skip=7",
        "--max-skipped-keys=9",
        "--one-time-prekeys=3",
        "--redelivery-window=5",
    ]
    limits = channel_limits(load_settings(flags))
    assert (limits.dh_ratchet_every, limits.max_skip, limits.max_skipped_keys) == (1, 7, 9)
    assert limits.one_time_prekeys == 3
    assert limits.redelivery_window == 5
    assert channel_limits(load_settings([])).redelivery_window == 16
    assert limits.lifetime == 86_400
