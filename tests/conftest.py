"""Fixtures that tests of several rooms share."""

from tests.support.process import start
from tests.support.programs import programs

__all__ = ["programs", "start"]
