"""How the pages write durations, ages, statuses and what a policy with nonces wants."""

from __future__ import annotations

from datetime import timedelta

import pytest
from automate_django.templatetags import automate_pages as words
from django.template import Context, Template
from django.utils import timezone


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0 ms"), (0.0004, "0 ms"), (0.34, "340 ms"), (1, "1 s"), (12.44, "12.4 s"),
        (60, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (3720, "1 h 2 min"),
        (187_200, "2 d 4 h"), (86_400_000, "1,000 d"), (-5, "-5 s"),
        (None, "\N{EN DASH}"), ("", "\N{EN DASH}"), ("x", "\N{EN DASH}"),
    ],
)  # fmt: skip
def test_a_duration_is_written_for_people(seconds, text):
    assert words.duration(seconds) == text


def test_a_moment_is_told_by_its_distance_and_has_the_instant_as_its_title(monkeypatch):
    now = timezone.now()
    monkeypatch.setattr(words.timezone, "now", lambda: now)

    assert ">3 min ago</time>" in words.ago(now - timedelta(minutes=3))
    assert ">in 1 h</time>" in words.ago(now + timedelta(hours=1))
    assert ">now</time>" in words.ago(now)
    assert now.isoformat() in words.ago(now)
    assert words.ago(None) == "\N{EN DASH}"


def test_a_status_is_a_word_and_a_colour_and_never_markup():
    assert words.badge("FAILED") == '<span class="automate-badge" data-tone="bad">FAILED</span>'
    assert "<b>" not in words.badge("<b>")


def test_long_text_is_one_short_line():
    assert words.shorten("a\n  b", 10) == "a b"
    assert words.shorten("x" * 200, 10) == "x" * 9 + "…"
    assert words.shorten(None) == ""


def test_an_id_keeps_both_ends():
    assert "01a210e4…dbd80a" in words.short_id("01a210e4-de20-7952-9b46-0e39f9dbd80a")


def test_our_files_carry_a_nonce_where_the_policy_has_one():
    template = Template("{% load automate_pages %}<script{% nonce %}>")

    assert template.render(Context({"csp_nonce": "r4nd"})) == '<script nonce="r4nd">'
    assert template.render(Context({})) == "<script>"
