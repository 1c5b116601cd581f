"""The generated pages say what the code says."""

from pathlib import Path

import pytest

from tests.docs.pages import PAGES
from tests.docs.reference import REFERENCE, reference


def test_the_settings_reference_is_up_to_date() -> None:
    assert REFERENCE.read_text() == reference(), "run `make docs` and commit what it wrote"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_pages_of_errors_and_client_are_up_to_date(path: Path) -> None:
    assert path.read_text() == PAGES[path](), "run `make docs` and commit what it wrote"
