"""A hook of MkDocs: links to files beside docs/ become their names, since a site has no source.

On GitHub the same links lead to the files; ``test_links.py`` follows them there.
"""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"(?<!!)\[([^]]+)\]\((\.\./[^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:  # noqa: ANN401 # MkDocs'
    """Return the page with only those links that lead to pages."""
    origin = Path(page.file.abs_src_path).parent

    def shown(link: re.Match[str]) -> str:
        target = (origin / link[2]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return link[0]
        name = f"`{target.relative_to(ROOT)}`"
        return name if link[1].strip("`") == target.name else f"{link[1]} ({name})"

    return _LINK.sub(shown, markdown)
