"""Prometheus's programs, from the PATH or from Debian's package."""

import pytest

from grafana.local.programs import InstallError, Programs, find_programs

__all__ = ["programs"]


@pytest.fixture(scope="session")
def programs() -> Programs:
    try:
        return find_programs()
    except InstallError as error:
        pytest.fail(f"these tests need a real Prometheus: {error}", pytrace=False)
