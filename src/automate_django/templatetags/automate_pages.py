"""Formats of the operator pages: durations, ages, statuses, long text."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from automate_pages.formats import NOTHING, duration, number, shorten, tone

register = template.Library()

for _format in (tone, duration, shorten, number):
    register.filter(_format)


@register.filter
def badge(status: Any) -> SafeString:
    """Return a status as a coloured word; the colour says nothing that the word doesn't."""
    text = str(status)
    return format_html('<span class="automate-badge" data-tone="{}">{}</span>', tone(text), text)


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """Format the time since or until *moment*, with the instant itself as the title."""
    if moment is None:
        return NOTHING
    passed = round((timezone.now() - moment).total_seconds())
    text = f"{duration(passed)} ago" if passed > 0 else f"in {duration(-passed)}"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        moment.isoformat(),
        timezone.localtime(moment).strftime("%Y-%m-%d %H:%M:%S %Z"),
        text if passed else "now",
    )


@register.filter
def redacted(text: Any) -> str:
    """Return the beginning of an error, without what the redactor knows."""
    # At the call: Django may import this module before the admin, whose pages import it in turn.
    from automate_django.admin.pages.display import shown_text

    return shown_text(text, 300).text


@register.filter
def plain(value: Any) -> str:
    """Return a number as HTML attributes want it, whatever the language of the page."""
    return f"{float(value or 0):g}" if isinstance(value, float) else str(value or 0)


@register.filter
def compact(value: Any) -> str:
    """Return a number in few characters: ``39.8k``."""
    from automate_pages import charts

    return charts.compact(float(value or 0))


@register.filter
def short_id(value: Any) -> SafeString:
    """Return both ends of an id, which differ from its neighbours'; the whole as the title."""
    text = str(value)
    shown = f"{text[:8]}…{text[-6:]}" if len(text) == 36 else text
    return format_html('<code class="automate-quiet automate-id" title="{}">{}</code>', text, shown)


@register.simple_tag(takes_context=True)
def nonce(context: Any) -> SafeString | str:
    """Return the attribute for a policy with nonces, if Django's context processor gives it."""
    value = context.get("csp_nonce")
    return "" if value is None else format_html(' nonce="{}"', value)
