"""All plots of a page as one SVG picture, for documents: it needs no style from outside."""

import re
from importlib.resources import files
from xml.sax.saxutils import escape

from connect_loadgen.report.blocks import Page, Plot

__all__ = ["picture_of"]

_COLUMNS = 2
_TITLE_HEIGHT = 20
_VIEW_BOX = re.compile(r'<svg[^>]*viewBox="0 0 ([\d.]+) ([\d.]+)"')


def picture_of(page: Page) -> str:
    """Return the plots in columns, in the colours that the page has on white."""
    plots = [
        block for section in page.sections for block in section.blocks if isinstance(block, Plot)
    ]
    sizes = [_size(plot) for plot in plots]
    width = max((width for width, _ in sizes), default=0.0)
    parts, top, row_height = [], 0.0, 0.0
    for index, (plot, (_, height)) in enumerate(zip(plots, sizes, strict=True)):
        left = index % _COLUMNS * width
        if not left:
            top, row_height = top + row_height, 0.0
        row_height = max(row_height, height + _TITLE_HEIGHT)
        parts.append(
            f'<g transform="translate({left:g} {top:g})"><text x="8" y="14" font-size="13">'
            f'{escape(plot.title)}</text><g transform="translate(0 {_TITLE_HEIGHT})">'
            f"{plot.svg.replace('<svg', _sized(plot), 1)}</g></g>"
        )
    picture = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="0 0 {_COLUMNS * width:g} {top + row_height:g}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>'
    )
    for variable, colour in _colours().items():
        picture = picture.replace(f"var({variable})", colour)
    return picture


def _size(plot: Plot) -> tuple[float, float]:
    found = _VIEW_BOX.search(plot.svg)
    if found is None:
        raise ValueError(f"plot {plot.title} has no view box")
    return float(found[1]), float(found[2])


def _sized(plot: Plot) -> str:
    width, height = _size(plot)
    return f'<svg width="{width:g}" height="{height:g}"'


def _colours() -> dict[str, str]:
    style = files("connect_loadgen.report").joinpath("template", "page.css").read_text()
    found: dict[str, str] = {}
    # What stands first is for light; dark and print come later.
    for variable, colour in re.findall(r"(--[\w-]+):\s*(#[0-9a-fA-F]{3,8})", style):
        found.setdefault(variable, colour)
    return found
