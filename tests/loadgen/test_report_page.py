"""The HTML page: opens without a network, says what the result says, harms nobody."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from matplotlib.axes import Axes

from connect_loadgen.experiments import compare, overload, run
from connect_loadgen.report.blocks import Bullets, Cell, Column, Page, Plot, Prose, Section, Table
from connect_loadgen.report.drawing import draw
from connect_loadgen.report.html import render
from connect_loadgen.report.page import page_of
from connect_loadgen.report.picture import picture_of
from tests.support.results import cost, course, load, make_compare, make_overload, make_run

HOSTILE = '<script>alert("1")</script>&\''
_VOID = {"meta", "link", "br", "img", "input", "hr"}
_LOADING = {"src", "href", "xlink:href", "action", "data", "poster", "srcset"}


class Document(HTMLParser):
    """What a page consists of; refuses tags that do not balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"script", "style"}.isdisjoint(self.open):
            self.text += data
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += data.strip()

    def plots(self) -> Iterator[dict[str, str | None]]:
        return (attributes for tag, attributes in self.tags if tag == "svg")


PAGES = {
    "compare": render(page_of(make_compare(warnings=["one warning"]), compare.LOOK)),
    "closed run": render(page_of(make_run(cost_=cost()), run.LOOK)),
    "open run": render(page_of(make_run(load(rate=500)), run.LOOK)),
    "overload": render(page_of(make_overload(course()), overload.LOOK)),
}
# Labels of axes that list names, which have no unit.
OF_NAMES = {"figure: + more is better, - less is better", "figure"}

every_page = pytest.mark.parametrize("name", PAGES)


def page_with(*blocks: Table | Prose | Bullets | Plot) -> str:
    return render(Page(HOSTILE, HOSTILE, (Section("here", HOSTILE, blocks),)))


@every_page
def test_a_page_parses_with_balanced_tags_and_has_plots(name: str) -> None:
    assert len(list(Document(PAGES[name]).plots())) >= 1


@every_page
def test_a_page_loads_nothing(name: str) -> None:
    document = Document(PAGES[name])
    for tag, attributes in document.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for attribute in _LOADING & attributes.keys():
            assert (attributes[attribute] or "").startswith("#")
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest", PAGES[name])


@every_page
def test_ids_are_unique_and_every_reference_has_its_target(name: str) -> None:
    ids = [attributes["id"] for _, attributes in Document(PAGES[name]).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', PAGES[name]))
    assert {first or second for first, second in references} <= set(ids)


@every_page
def test_every_plot_has_labels_with_units_on_both_axes(name: str) -> None:
    svgs = re.findall(r"<svg.*?</svg>", PAGES[name], flags=re.DOTALL)
    for svg in svgs:
        labels = re.findall(r'-([xy])-label">.*?<text[^>]*>([^<]+)</text>', svg, flags=re.DOTALL)
        assert sorted(axis for axis, _ in labels) == ["x", "y"]
        units = r"\((?:ms|s|%|messages/s|ops/s|B/message|number|1 = the same)\)"
        for _, label in labels:
            assert label in OF_NAMES or re.search(units, label), label


@every_page
def test_plots_follow_the_colours_of_the_page(name: str) -> None:
    svgs = "".join(re.findall(r"<svg.*?</svg>", PAGES[name], flags=re.DOTALL))
    assert "var(--ink)" in svgs
    assert "var(--series-1)" in svgs
    assert re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", svgs) == []
    assert "<style" not in svgs


def test_the_same_result_gives_the_same_page() -> None:
    assert render(page_of(make_compare(warnings=["one warning"]), compare.LOOK)) == PAGES["compare"]


def test_each_figure_of_the_summary_is_the_one_of_the_result() -> None:
    rows = {row[0]: row[1:] for row in reversed(Document(PAGES["compare"]).rows) if row}
    assert rows["Throughput"][1] == "1,100"
    assert rows["Throughput"][3] == "2.10 [2.00, 2.20]better"
    assert rows["Recovery"][3] == "1.50 [1.50, 1.50]worse"
    assert rows["Recovery"][4] == "\N{EN DASH}"


def test_cells_sort_by_the_exact_figure_and_not_by_its_text() -> None:
    row = next(row for row in make_compare().rows if row.name == "full.p99_ms")
    assert row.measured is not None
    assert f'data-sort="{row.measured.median}"' in PAGES["compare"]


def test_a_page_has_all_its_sections_in_order() -> None:
    anchors = [a["id"] for tag, a in Document(PAGES["compare"]).tags if tag == "section"]
    assert anchors == ["notices", "answer", "figures", "more", "warnings", "method"]


def test_a_missing_figure_has_its_reason_in_the_open_and_in_its_cell() -> None:
    reason = "memory: Recovery: memory has no restore_seconds"
    assert f'<abbr title="{reason}">&ndash;</abbr>' in PAGES["compare"]
    assert f"\N{EN DASH} {reason}" in Document(PAGES["compare"]).text


def test_the_picture_of_a_page_has_all_its_plots_and_needs_no_style() -> None:
    page = page_of(make_overload(course()), overload.LOOK)
    root = ET.fromstring(picture_of(page))  # noqa: S314 - our own text
    svg = "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(f".//{svg}")) == render(page).count("<svg") == 2
    assert "var(" not in picture_of(page)


def test_hostile_text_stays_text() -> None:
    def labelled(axes: Axes) -> None:
        axes.set_xlabel(HOSTILE)
        axes.set_ylabel(HOSTILE)

    page = page_with(
        Prose(HOSTILE),
        Bullets((HOSTILE,)),
        Table(
            HOSTILE,
            (Column(HOSTILE, HOSTILE, HOSTILE),),
            ((Cell(HOSTILE, reason=""),), (Cell("-", reason=HOSTILE),)),
            notes=(HOSTILE,),
        ),
        draw("hostile", HOSTILE, HOSTILE, labelled),
    )
    document = Document(page)
    assert sum(tag == "script" for tag, _ in document.tags) == 1
    assert document.text.count(HOSTILE) >= 8


def test_a_hostile_machine_name_stays_text_on_a_comparison() -> None:
    result = make_compare(cpu_model=HOSTILE, warnings=[HOSTILE])
    page = render(page_of(result, compare.LOOK))
    assert sum(tag == "script" for tag, _ in Document(page).tags) == 1
    assert Document(page).text.count(HOSTILE) == 3


def test_a_plot_without_a_label_on_an_axis_is_refused() -> None:
    def paint(axes: Axes) -> None:
        axes.set_xlabel("time (s)")

    with pytest.raises(ValueError, match="the y axis has no label"):
        draw("bare", "title", "text", paint)


def test_a_row_that_does_not_fill_its_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells under 2 columns"):
        Table("t", (Column("a"), Column("b")), ((Cell("x"),),))


def test_an_open_loop_has_a_spectrum_from_the_due_time_and_one_from_the_send() -> None:
    text = Document(PAGES["open run"]).text
    assert "latency from the due time (ms)" in text
    assert "latency from sending (ms)" in text
    assert "latency from the due time (ms)" not in Document(PAGES["closed run"]).text
