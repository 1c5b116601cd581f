"""Fixtures that tests of several rooms share, and how hypothesis draws examples."""

from hypothesis import HealthCheck, settings

from tests.support.process import start
from tests.support.programs import programs

__all__ = ["programs", "start"]

# No example fails for the time it takes: that is the machine's. What fails is told to be repeated.
settings.register_profile(
    "untimed",
    settings(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("untimed")
