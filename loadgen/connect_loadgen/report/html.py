"""A page as one HTML file that opens anywhere: style, script and plots within, nothing loaded.

All text comes through the template's autoescaping; the only markup that is let through is what this
package makes: the style, the script and the plots' SVG.
"""

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from connect_loadgen.report.blocks import Block, Bullets, Page, Plot, Prose

__all__ = ["render"]

_PACKAGE = "connect_loadgen.report"


def render(page: Page) -> str:
    """Return the page as HTML; the same page gives the same text."""
    environment = Environment(
        loader=PackageLoader(_PACKAGE, "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        page=page,
        kind_of=_kind_of,
        markup=Markup,  # around SVG that was drawn here
        style=_inlined("page.css"),
        script=_inlined("page.js"),
    )


def _kind_of(block: Block) -> str:
    match block:
        case Plot():
            return "plot"
        case Prose():
            return "prose"
        case Bullets():
            return "bullets"
        case _:
            return "table"


def _inlined(name: str) -> Markup:
    return Markup(files(_PACKAGE).joinpath("template", name).read_text(encoding="utf-8"))  # noqa: S704 - our own file
