"""Every link of the documents leads somewhere, and the index leads to every page."""

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
INDEX = DOCS / "index.md"
PAGES = sorted(
    [
        *DOCS.rglob("*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    ]
)

_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
_CODE = re.compile(r"^```.*?^```|^(?: {4}|\t).*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_MENTION = re.compile(r"(?<![\w/])docs/[\w/-]+\.(?:md|cfg|png|svg)(?:#[\w-]+)?")

_SOURCE = re.compile(
    r"`((?:service|loadgen|tests|benchmarks|grafana|examples|deploy)/[\w./-]+\.(?:py|c|toml|yml|yaml))`"
)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def links(page: Path) -> list[str]:
    text = _CODE.sub("", page.read_text())
    found = [first or second for first, second in _LINK.findall(text)]
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub, and the site's slugs, give a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


def fault(origin: Path, link: str) -> str | None:
    path, _, anchor = unquote(link).partition("#")
    target = (origin.parent / path).resolve() if path else origin
    if not target.exists():
        return f"{link}: there is no {target}"
    if anchor and target.suffix == ".md" and anchor not in anchors(target):
        return f"{link}: no heading of {name(target)} has that anchor"
    return None


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [found for link in links(page) if (found := fault(page, link))] == []


def test_every_page_that_code_or_messages_name_exists() -> None:
    command = ["git", "ls-files", "-z"]
    listed = subprocess.check_output(command, cwd=ROOT, text=True).split("\0")  # noqa: S603
    faults = []
    for file in filter(None, listed):
        path = ROOT / file
        if not path.is_file() or path.suffix in {".png", ".svg", ".bin"}:
            continue
        mentions = _MENTION.findall(path.read_text(errors="replace"))
        faults += [f"{file}: {found}" for link in mentions if (found := fault(ROOT / "x", link))]
    assert faults == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_source_file_that_a_page_names_exists(page: Path) -> None:
    named = set(_SOURCE.findall(page.read_text()))
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_the_index_leads_to_every_page() -> None:
    reached = {(DOCS / link.partition("#")[0]).resolve() for link in links(INDEX)}
    assert set(DOCS.rglob("*.md")) - reached - {INDEX} == set()
