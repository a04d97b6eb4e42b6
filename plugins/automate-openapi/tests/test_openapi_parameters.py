"""Parameters are written so that a reader of each style gets the same values back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

import pytest
from automate_http.urls import full_url, parse_base_url
from automate_kernel import AutomateError
from automate_openapi.parameters import Parameter, filled
from hypothesis import given
from hypothesis import strategies as st

BASE = parse_base_url("https://api.example.com/v1")
CHARACTERS = st.sampled_from(" ,|.;&=+%/?#[]{}~'\"\\é💡a0") | st.characters(
    exclude_categories=["Cs"]
)
TEXT = st.text(CHARACTERS, min_size=1, max_size=8)
NAMES = TEXT.filter(lambda text: text not in (".", ".."))
LISTS = st.lists(TEXT, min_size=1, max_size=4)
OBJECTS = st.dictionaries(TEXT, TEXT, min_size=1, max_size=4)
VALUES = TEXT | LISTS | OBJECTS


def parameter(location: Any, style: str, explode: bool, name: str = "p", **more: Any) -> Parameter:
    return Parameter(name, location, name, style, explode, **more)


# The reference: what a server does, which splits what was sent and then unquotes each part.


def _pairs(parts: list[str], equals: str = "=") -> dict[str, str]:
    return {
        unquote(key): unquote(value)
        for key, _, value in (part.partition(equals) for part in parts)
    }  # fmt: skip


def _alternating(parts: list[str]) -> dict[str, str]:
    return dict(zip(map(unquote, parts[::2]), map(unquote, parts[1::2]), strict=True))


def read_listed(text: str, like: Any, between: str, explode: bool) -> Any:
    """Read what `simple` and `label` write."""
    if isinstance(like, list):
        return [unquote(part) for part in text.split(between)]
    if isinstance(like, dict):
        parts = text.split(between)
        return _pairs(parts) if explode else _alternating(parts)
    return unquote(text)


def read_query(query: str, name: str, like: Any, style: str, explode: bool) -> Any:
    """Read one parameter that is alone in a query."""
    pairs = [pair.partition("=")[::2] for pair in query.split("&")]
    if style == "deepObject" and isinstance(like, dict):
        return {
            unquote(key)[len(name) + 1 : -1]: unquote_plus(value)
            for key, value in pairs
        }  # fmt: skip
    if isinstance(like, dict) and explode:
        return {unquote_plus(key): unquote_plus(value) for key, value in pairs}
    values = [value for key, value in pairs if unquote(key) == name]
    if isinstance(like, list) and explode:
        return [unquote_plus(value) for value in values]
    (value,) = values
    if not isinstance(like, (list, dict)):
        return unquote_plus(value)
    between = {"form": ",", "spaceDelimited": "%20", "pipeDelimited": "%7C"}[style]
    parts = value.split(between)
    return [*map(unquote, parts)] if isinstance(like, list) else _alternating(parts)


@given(
    value=VALUES,
    explode=st.booleans(),
    style=st.sampled_from(["form", "spaceDelimited", "pipeDelimited", "deepObject"]),
    name=NAMES,
)
def test_a_query_is_read_back(value: Any, explode: bool, style: str, name: str) -> None:
    """Through the client's own URL, which quotes nothing twice and leaves nothing out."""
    if style == "deepObject" and not isinstance(value, dict):
        style = "form"
    each = parameter("query", style, explode, name)
    try:
        pairs = each.pairs(value)
    except AutomateError as error:
        assert style in ("spaceDelimited", "pipeDelimited")
        assert "separates the items" in str(error)
        return
    url = full_url("/x?" + "&".join(f"{key}={text}" for key, text in pairs), {}, BASE)
    assert read_query(url.query.decode(), name, value, style, explode) == value


@given(value=VALUES, explode=st.booleans(), style=st.sampled_from(["simple", "label", "matrix"]))
def test_a_path_is_read_back(value: Any, explode: bool, style: str) -> None:
    """And leads nowhere else."""
    each = parameter("path", style, explode)
    try:
        path = filled("/a/{p}/b", [each], {"p": value})
    except AutomateError as error:
        assert "can't be" in str(error)
        return
    before, _, text = full_url(path, {}, BASE).raw_path.decode().removesuffix("/b").rpartition("/")
    assert before == "/v1/a"
    assert _read_path(text, value, style, explode) == value


def _read_path(text: str, like: Any, style: str, explode: bool) -> Any:
    if style == "label":
        assert text.startswith(".")
        between = "." if explode else ","
        # A dot is never quoted, so one in a value is told apart by nothing but %2E.
        return read_listed(text[1:], like, between, explode)
    if style == "simple":
        return read_listed(text, like, ",", explode)
    assert text.startswith(";")
    parts = text[1:].split(";")
    if explode and isinstance(like, list):
        return [unquote(part.removeprefix("p=")) for part in parts]
    if explode and isinstance(like, dict):
        return _pairs(parts)
    return read_listed(parts[0].removeprefix("p="), like, ",", False)


@pytest.mark.parametrize("value", ["..", ".", ""])
def test_a_value_leaves_no_part_of_the_path(value: str) -> None:
    """It would mean the whole collection, or its parent."""
    with pytest.raises(AutomateError, match="can't be"):
        filled("/pets/{p}", [parameter("path", "simple", False)], {"p": value})


def test_a_slash_in_a_value_is_no_separator() -> None:
    each = parameter("path", "simple", False)
    assert filled("/pets/{p}", [each], {"p": "../owners?x#y"}) == "/pets/..%2Fowners%3Fx%23y"


def test_reserved_characters_stay_where_the_document_says_so() -> None:
    """But for those that would end the parameter."""
    each = parameter("query", "form", True, reserved=True)
    assert each.pairs("a/b:c&d=e#f+g") == [("p", "a/b:c%26d%3De%23f%2Bg")]


def test_nested_objects_are_written_as_services_read_them() -> None:
    each = parameter("query", "deepObject", True)
    value = {"a": {"b": 1}, "c": [True, False], "d": None}
    assert each.pairs(value) == [
        ("p%5Ba%5D%5Bb%5D", "1"), ("p%5Bc%5D", "true"), ("p%5Bc%5D", "false"), ("p%5Bd%5D", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("write", "place"),
    [(Parameter.pairs, "query"), (Parameter.segment, "path"), (Parameter.header, "header")],
    ids=["query", "path", "header"],
)
def test_a_list_of_lists_has_no_style(write: Callable[..., Any], place: str) -> None:
    style = "form" if place == "query" else "simple"
    with pytest.raises(AutomateError, match="takes text"):
        write(parameter(place, style, False), [[1]])


def test_json_in_a_header_is_ascii() -> None:
    each = parameter("header", "simple", False, json=True)
    assert each.header({"name": "é"}) == '{"name":"\\u00e9"}'
    assert quote("é") not in each.header({"name": "é"})
