"""Where Prometheus's programs come from, with an apt-get and a dpkg that do as they are told."""

import os
from pathlib import Path

import pytest

from grafana.local.programs import InstallError, Programs, find_programs

# dpkg -x ARCHIVE DIRECTORY
DPKG = 'mkdir -p "$3/usr/bin" && cp "$2" "$3/usr/bin/prometheus" && cp "$2" "$3/usr/bin/promtool"'
DOWNLOADS = "echo program > prometheus_1_all.deb"
REFUSES = "echo 'E: no network' >&2; exit 100"


class Machine:
    """A PATH with nothing on it but what is put there."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "bin"
        self.path.mkdir()
        self.cache = directory / "cache" / "prometheus"
        self.calls = directory / "calls"

    def has(self, name: str, script: str) -> None:
        program = self.path / name
        program.write_text(
            f'#!/bin/sh\nPATH=/usr/bin:/bin\necho {name} "$@" >> {self.calls}\n{script}\n'
        )
        program.chmod(0o755)

    def find(self) -> Programs:
        return find_programs(self.cache)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setitem(os.environ, "PATH", str(machine.path))
    return machine


def test_programs_on_the_path_are_taken(machine: Machine) -> None:
    machine.has("prometheus", "")
    machine.has("promtool", "")
    assert machine.find() == Programs(machine.path / "prometheus", machine.path / "promtool")
    assert not machine.cache.parent.exists()


def test_debians_package_is_unpacked_once_and_not_installed(machine: Machine) -> None:
    machine.has("apt-get", DOWNLOADS)
    machine.has("dpkg", DPKG)
    programs = machine.find()
    assert programs.prometheus.read_text() == programs.promtool.read_text() == "program\n"
    assert machine.find() == programs
    calls = machine.calls.read_text().splitlines()
    assert len(calls) == 2
    assert calls[0].endswith(" download prometheus")
    assert calls[1].startswith("dpkg -x ")


def test_without_the_systems_lists_there_are_lists_of_our_own(machine: Machine) -> None:
    machine.has(
        "apt-get",
        f'case "$*" in *Dir::State::lists=*) ;; *) {REFUSES} ;; esac\n'
        f'case "$*" in *update) ;; *) {DOWNLOADS} ;; esac',
    )
    machine.has("dpkg", DPKG)
    assert machine.find().promtool.exists()
    assert [call.split()[-1] for call in machine.calls.read_text().splitlines()[:3]] == [
        "prometheus",
        "update",
        "prometheus",
    ]


def test_without_a_network_it_is_said_what_to_do(machine: Machine) -> None:
    machine.has("apt-get", REFUSES)
    machine.has("dpkg", DPKG)
    with pytest.raises(InstallError, match=r"E: no network.*is there a network\?"):
        machine.find()
    assert [path.name for path in machine.cache.parent.iterdir()] == ["prometheus.lock"]


def test_without_apt_it_is_said_what_to_do(machine: Machine) -> None:
    with pytest.raises(InstallError, match="neither prometheus and promtool nor apt-get"):
        machine.find()
