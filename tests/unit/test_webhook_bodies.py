"""Bodies of requests: what JSON is taken, and why the rest is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automate_kernel.storage.values import MAX_DEPTH
from automate_kernel.triggers.webhooks.request import MOST_DIGITS, BodyError, parse_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(VALUES)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    """Any value, equal and of the same type."""
    read = parse_json(json.dumps(value).encode())
    assert read == value
    assert json.dumps(read) == json.dumps(value)


@given(st.binary() | st.text(alphabet='[]{}",:0123456789.eE+-tfn ').map(str.encode))
def test_anything_else_is_refused_with_a_reason(body: bytes) -> None:
    """No bytes make it fail in another way."""
    try:
        parse_json(body)
    except BodyError as error:
        assert str(error).startswith("it ")


@pytest.mark.parametrize("leaf", ["", "1"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_the_depth_is_bounded_exactly(leaf: str, opening: str, closing: str) -> None:
    """So deep, and no deeper; whether or not the innermost is empty."""
    inner = leaf or ("{}" if closing == "}" else "[]")
    wraps = MAX_DEPTH if leaf else MAX_DEPTH - 1
    parse_json((opening * wraps + inner + closing * wraps).encode())
    for many in (wraps + 1, 100_000):
        with pytest.raises(BodyError, match="nested deeper"):
            parse_json((opening * many + inner + closing * many).encode())


def test_brackets_in_text_are_no_depth() -> None:
    """Nor are many beside each other."""
    text = "[{" * 5_000
    assert parse_json(json.dumps([text, [[]] * 500]).encode()) == [text, [[]] * 500]


@pytest.mark.parametrize("sign", ["", "-"])
def test_digits_are_bounded(sign: str) -> None:
    """Before they are read, which takes time with the square of their number."""
    most = "9" * (MOST_DIGITS - len(sign))
    assert parse_json(f"[{sign}{most}]".encode()) == [int(sign + most)]
    for many in (MOST_DIGITS + 1, 900_000):
        with pytest.raises(BodyError, match="more than 4,300 digits"):
            parse_json(f"[{sign}{'9' * many}]".encode())
