"""Stored texts as pages show them: without secrets, of bounded length."""

from __future__ import annotations

from automate_django.kernel import get_kernel
from automate_pages import formats
from automate_pages.formats import ShownValue


def shown_text(text: str | None, most: int = formats.MOST) -> ShownValue:
    """Return an error or a traceback, without what the redactor knows."""
    return formats.shown_text(get_kernel(), text, most)
