"""How figures are written: short enough to compare at a glance, exact enough not to mislead."""

from connect_loadgen.experiment.results import Ratio, Spread

__all__ = ["count", "figure", "ratio", "ratio_with_spread", "rounds", "share", "with_spread"]


def count(value: float) -> str:
    """Write a number of things: ``12,345``; half a thing only where a median has made one."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def figure(value: float) -> str:
    """Write a measured figure: three significant digits, or all of those before the point."""
    return _written(value, significant=3)


def ratio(value: float) -> str:
    """Write a ratio: two places (``0.92``, ``12.35``), or two significant digits when small."""
    return f"{value:,.2f}" if abs(value) >= 0.1 or not value else _written(value, significant=2)


def share(value: float) -> str:
    """Write a share of one as percent."""
    return f"{value:.0%}"


def with_spread(spread: Spread) -> str:
    """Write the median, then from lowest to highest."""
    return f"{figure(spread.median)} [{figure(spread.low)}, {figure(spread.high)}]"


def ratio_with_spread(value: Ratio) -> str:
    """Write the median ratio, then from lowest to highest."""
    return f"{ratio(value.median)} [{ratio(value.low)}, {ratio(value.high)}]"


def rounds(spread: Spread) -> str:
    """Write from where to where a figure went that was measured in turns."""
    return f"{figure(spread.low)} to {figure(spread.high)} in turns"


def _written(value: float, significant: int) -> str:
    if not value:
        return "0"
    # Exponent after rounding, so that 9.996 is 10.0 and not 10.00.
    exponent = int(f"{value:.{significant - 1}e}".partition("e")[2])
    return f"{value:,.{max(significant - 1 - exponent, 0)}f}"
