"""The outline of a message that is too long to be kept."""

from __future__ import annotations

import json
from typing import Any

from automate_mcp.messages import Outline
from hypothesis import given
from hypothesis import strategies as st

TEXTS = st.text(max_size=6) | st.sampled_from(["\\", '"', '\\"', "{[}", "id", '"id": 5', "é\\"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


@given(
    request_id=st.integers() | TEXTS,
    result=st.dictionaries(TEXTS, VALUES, max_size=4),
    first=st.booleans(),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    plain=st.booleans(),
)
def test_the_request_of_a_long_message_is_known(
    request_id: Any, result: Any, first: bool, cuts: list[int], plain: bool
) -> None:
    """Wherever its id stands, whatever the result has, and however the pipe cuts it."""
    own = {"id": request_id}
    message = {"jsonrpc": "2.0", **own, "result": result}
    if not first:
        message = {"result": result, "jsonrpc": "2.0", **own}
    text = json.dumps(message, ensure_ascii=plain).encode("utf-8", "surrogatepass")
    outline, at = Outline(), 0
    while at < len(text):
        size = cuts[at % len(cuts)]
        outline.feed(text[at : at + size])
        at += size
    assert outline.request_id == request_id


def test_what_answers_no_request_has_none() -> None:
    """A notification, a request of the server, noise, and an id that is no id."""
    for text in (
        b'{"method": "notifications/message", "params": {}}',
        b'{"method": "roots/list", "id": 4}',
        b"x" * 100_000,
        b"[[[[",
        b"}}}}",
        b'{"id": true, "result": {}}',
        b'{"id": null, "error": {}}',
        b'{"id": "' + b"9" * 10_000 + b'"}',
    ):
        outline = Outline()
        outline.feed(text)
        assert outline.request_id is None
