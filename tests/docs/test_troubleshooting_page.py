"""docs/troubleshooting.md: every reason of a failed sync."""

from exporter.tedee.errors import REASONS

from .pages import page, section


def test_page_explains_every_reason() -> None:
    errors = section(page("troubleshooting.md"), "## Errors of a sync")
    assert {reason for reason in REASONS if f"| `{reason}` |" in errors} == set(REASONS)
