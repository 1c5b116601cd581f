"""Fixtures that tests of several rooms share."""

from tests.support.process import start

__all__ = ["start"]
