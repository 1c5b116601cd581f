"""The configuration reference says what the settings say."""

from tests.docs.reference import REFERENCE, reference


def test_the_configuration_reference_is_up_to_date() -> None:
    assert REFERENCE.read_text() == reference(), "run `make docs` and commit what it wrote"
