"""Readings of encoded text: what was encoded is read again, and its place in the text is known."""

from __future__ import annotations

import base64
from collections.abc import Callable

from automate_kernel.secrets import encodings
from hypothesis import given
from hypothesis import strategies as st

ENCODERS: dict[str, Callable[[str], str]] = {
    "percent": lambda text: "".join(f"%{ord(char):02x}" for char in text),
    "percent, some": lambda text: "".join(
        char if place % 3 else f"%{ord(char):02X}" for place, char in enumerate(text)
    ),
    "percent, JavaScript": lambda text: "".join(f"%u{ord(char):04x}" for char in text),
    "unicode": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "unicode in braces": lambda text: "".join(f"\\u{{{ord(char):x}}}" for char in text),
    "octal": lambda text: "".join(f"\\{ord(char):03o}" for char in text),
    "escaped twice": lambda text: "".join(f"\\\\x{ord(char):02x}" for char in text),
    "HTML": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "HTML, hexadecimal": lambda text: "".join(f"&#x{ord(char):X};" for char in text),
    "HTML, with zeros": lambda text: "".join(f"&#{ord(char):09d};" for char in text),
    "a buffer in JSON": lambda text: ",".join(str(ord(char)) for char in text),
    "numbers in lines": lambda text: "\n".join(str(ord(char)) for char in text),
    "UTF-16": lambda text: "\0".join(text),
    "pairs": lambda text: text.encode().hex(":"),
    "pairs with 0x": lambda text: ", ".join(f"0x{ord(char):02x}" for char in text),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
}
PIECES = [
    "%41", "%4", "\\u0041", "\\" * 9 + "u0041", "\\x41", "\\401", "\\u{110000}", "&amp", "&#65;", "&", "%",
    "\\", '\\"', "0x41", "41:42:43", "3f2a1b4c-9d8e-4f60-a1b2-c3d4e5f60718", "DEADBEEFCAFE",
    "QUJDREVGR0hJSktMTU5PUFFSU1RVVg==", "\u00e9", "\u20ac", " ", "\n", "11 22 33 44 55 66 77",
]  # fmt: skip
others = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=6).map("".join)
# Letters that no encoding takes for a part of itself, and 20 of them in base64 at least.
secrets = st.text("gjkqwyzGJKQWYZ", min_size=15, max_size=40)


def places_of(secret: str, text: str) -> set[tuple[int, int]]:
    """The places at which some reading of *text* says *secret*."""
    found = set()
    for each in encodings.readings(text):
        at = each.text.find(secret)
        while at >= 0:
            found.add(each.place(at, at + len(secret)))
            at = each.text.find(secret, at + 1)
    return found


@given(secrets, st.sampled_from(list(ENCODERS.values())), others, others)
def test_what_is_encoded_is_found_at_its_place(
    secret: str, encode: Callable[[str], str], before: str, after: str
) -> None:
    """Whatever stands around it, of which something is encoded too."""
    encoded, start = encode(secret), len(before) + 1
    places = places_of(secret, f'{before}"{encoded}"{after}')
    # Its first digits may have a mark ahead, and base64 ends with one.
    assert any(
        start <= first <= start + 2
        and start + len(encoded.rstrip("=")) <= last <= start + len(encoded)
        for first, last in places
    ), (encoded, places)


@given(
    secrets,
    st.sampled_from(list(ENCODERS.values())),
    st.sampled_from(list(ENCODERS.values())),
    others,
)
def test_what_is_encoded_twice_is_found_in_its_place(
    secret: str, inner: Callable[[str], str], outer: Callable[[str], str], before: str
) -> None:
    encoded, start = outer(inner(secret)), len(before) + 1
    places = places_of(secret, f'{before}"{encoded}"')
    assert any(start <= first < last <= start + len(encoded) for first, last in places), encoded


@given(secrets, st.text("0123456789", max_size=9), st.text("0123456789", max_size=9))
def test_a_part_of_base64_is_found_at_the_letters_that_have_a_bit_of_it(
    secret: str, before: str, after: str
) -> None:
    """Three characters are four letters."""
    text = base64.b64encode(f"{before}{secret}{after}".encode()).decode()
    first, end = len(before) * 8 // 6, -(-(len(before) + len(secret)) * 8 // 6)
    assert (first, end) in places_of(secret, text)
