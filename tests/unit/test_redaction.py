"""Secrets are taken out of text, whatever software has done to the text."""

from __future__ import annotations

import time

import base64
import html
import io
import json
import logging
import re
import urllib.parse
from functools import partial

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from automate_kernel.base.errors import AutomateError, ErrorCodes, PayloadError
from automate_kernel.secrets import RedactingFilter, Redactor, SecretRef
from automate_kernel.secrets.masking import literal_secrets, secret_fields, strength_of
from automate_kernel.secrets.redaction import redact_text
from waiting import at_once

VALUE = "p/s+w?rd=&\"'ö€😀\\ \nline-two"

ENCODINGS = {
    "plain": lambda v: v,
    "json": json.dumps,
    "json-unicode": lambda v: json.dumps(v, ensure_ascii=False),
    "json-in-json": lambda v: json.dumps(json.dumps(v)),
    "repr": repr,
    "ascii": ascii,
    "bytes-repr": lambda v: repr(v.encode()),
    "quote": urllib.parse.quote,
    "quote-all": lambda v: urllib.parse.quote(v, safe=""),
    "quote-plus": urllib.parse.quote_plus,
    "quote-lower": lambda v: urllib.parse.quote(v, safe="").replace("%2F", "%2f"),
    "quote-twice": lambda v: urllib.parse.quote(urllib.parse.quote(v)),
    "form": lambda v: urllib.parse.urlencode({"password": v}),
    "html": html.escape,
    "hex": lambda v: v.encode().hex(),
    "HEX": lambda v: v.encode().hex().upper(),
    "base64": lambda v: base64.b64encode(v.encode()).decode(),
    "base64-url": lambda v: base64.urlsafe_b64encode(v.encode()).decode(),
    "base32": lambda v: base64.b32encode(v.encode()).decode(),
    "base32-lower": lambda v: base64.b32encode(v.encode()).decode().rstrip("=").lower(),
    **{
        f"base32-after-{n}": lambda v, n=n: base64.b32encode(b"x" * n + v.encode() + b"-").decode()
        for n in range(1, 6)
    },
    "basic-auth-0": lambda v: base64.b64encode(b"usr:--" + v.encode()).decode(),
    "basic-auth-1": lambda v: base64.b64encode(b"user:--" + v.encode() + b"x").decode(),
    "basic-auth-2": lambda v: base64.b64encode(b"userx:--" + v.encode() + b"xy").decode(),
}

secrets = st.text(min_size=12, max_size=60).filter(lambda v: len(v.strip()) >= 12)
noise = st.text(max_size=20)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_is_found(encoding):
    """Most of the encoded text is gone, and none of it can be decoded to the value."""
    encoded = ENCODINGS[encoding](VALUE)
    redacted = Redactor([VALUE]).redact(f"before {encoded} after")
    assert "[secret]" in redacted
    assert redacted.startswith("before ")
    assert redacted.endswith(" after")
    left = redacted.removeprefix("before ").removesuffix(" after")
    longest = max(map(len, left.split("[secret]")))
    assert longest < 12


@given(secrets, noise, noise, st.sampled_from(sorted(ENCODINGS)))
def test_no_encoding_of_a_value_is_left(value, before, after, encoding):
    """For any secret and any text around it."""
    try:
        encoded = ENCODINGS[encoding](value)
    except UnicodeEncodeError:
        assume(False)
    redacted = Redactor([value]).redact(before + encoded + after)
    assert value not in redacted
    assert encoded not in redacted


@given(st.text(min_size=12, max_size=80), st.data(), noise, noise)
def test_no_part_of_twelve_characters_is_left(value, data, before, after):
    """A value that was cut off or wrapped is still found."""
    assume(value.strip())
    start = data.draw(st.integers(0, len(value) - 12))
    end = data.draw(st.integers(start + 12, len(value)))
    redacted = Redactor([value]).redact(before + value[start:end] + after)
    parts = {value[i : i + 12] for i in range(len(value) - 11)}
    assert not any(part in redacted for part in parts)


strong = st.text(min_size=4, max_size=15).filter(lambda v: strength_of(v) == "strong")


@given(st.lists(strong, min_size=1, max_size=5), st.data())
def test_short_and_overlapping_values_are_not_left(values, data):
    """Several secrets, in any arrangement, even ones that look like the mark."""
    pieces = st.one_of(st.sampled_from(values), st.sampled_from(["[", "secret", "]", " ", "x"]))
    text = "".join(data.draw(st.lists(pieces, max_size=8)))
    redacted = Redactor(values).redact(text)
    assert not any(value in redacted for value in values if value.strip())


@pytest.mark.parametrize("value", ["[secret]", "secret", "ecre", "redacted", "t]xx", "***"])
def test_the_mark_gives_nothing_away(value):
    """A secret that is part of the mark changes the mark."""
    redactor = Redactor([value, "other-secret"])
    assert value not in redactor.redact(f"a {value} b other-secret")


def test_text_without_secrets_is_the_same_object():
    """The usual case costs nothing more than the search."""
    text = "nothing to see here"
    assert Redactor([VALUE]).redact(text) is text


def test_touching_secrets_leave_one_mark():
    """The number of marks says nothing about the number of parts."""
    assert Redactor(["aaaa-bbbb-cccc-dddd"]).redact("aaaa-bbbb-cccc-dddd" * 3) == "[secret]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pin 123", "pin [secret]"),
        ("pin=123;", "pin=[secret];"),
        ("order 1234", "order 1234"),
        ("a123", "a123"),
        ("total 0.123", "total 0.[secret]"),
        ("in 2024", "in [secret]"),
        ("order 20241", "order 20241"),
        ("admin@shop", "[secret]@shop"),
        ("administrators", "administrators"),
    ],
)
def test_short_and_common_values_go_only_where_they_stand_alone(text, expected):
    """Else a secret of three digits would empty every log line of numbers."""
    assert Redactor(["123", "2024", "admin"]).redact(text) == expected


HONEST = {
    "ok": True,
    "true": "true",
    "year": 2024,
    "number": 20241,
    "ratio": 20.24,
    "none": None,
    "2024": "order 20241",
    "admin": ["administrators"],
}


@pytest.mark.parametrize("value", ["true", "ok", "null", "2024", "admin", "0", "24", "yes"])
def test_a_common_secret_ruins_no_data(value):
    """Types and names stay, and so do words that only hold it."""
    redacted = Redactor([value]).redact_value(HONEST)
    assert redacted == HONEST
    assert [type(each) for each in redacted.values()] == [type(each) for each in HONEST.values()]


@given(st.integers() | st.floats(allow_nan=False), st.lists(strong, max_size=3))
def test_numbers_stay_numbers(number, values):
    """Unless one is a secret as a whole."""
    assume(str(abs(number)) not in values)
    redacted = Redactor([*values, "2024"]).redact_value([number])[0]
    assert type(redacted) is type(number)
    assert redacted == number


def test_a_number_that_is_a_secret_as_a_whole_goes():
    """With or without a sign, as an integer or not; one that holds it stays."""
    redactor = Redactor(["73519264"])
    given_value = [73519264, -73519264, 73519264.0, 735192640, 0.73519264]
    assert redactor.redact_value(given_value) == [*["[secret]"] * 3, 735192640, 0.73519264]


@pytest.mark.parametrize("value", ["", " ", "\n\t"])
def test_blank_values_are_ignored(value):
    """They would take out everything."""
    redactor = Redactor()
    redactor.add(value)
    assert redactor.redact("a b\n\tc") == "a b\n\tc"


def test_json_is_redacted_in_keys_and_values_at_any_depth():
    """As deep as Python's own JSON could write."""
    tree: object = {"token": VALUE}
    for _ in range(499):
        tree = {"next": [tree]}
    node = Redactor([VALUE]).redact_value(tree)
    for _ in range(499):
        node = node["next"][0]
    assert node == {"token": "[secret]"}
    assert Redactor([VALUE]).redact_value({VALUE: 1, f"{VALUE}x": 2}) == {
        "[secret]": 1,
        "[secret]x": 2,
    }


def test_a_value_that_holds_itself_ends():
    """In a log call, or an action's output; what is shared but not circular is kept."""
    loop: dict[str, object] = {"token": VALUE}
    loop["self"] = [loop]
    shared = [VALUE]
    loop["twice"] = [shared, shared]
    assert Redactor([VALUE]).redact_value(loop) == {
        "token": "[secret]",
        "self": ["[circular]"],
        "twice": [["[secret]"], ["[secret]"]],
    }
    with pytest.raises(PayloadError, match="circular"):
        Redactor([VALUE]).redact_value(loop, cut=False)


def test_what_would_take_for_ever_is_cut_off():
    """Lists of one list of one list: few objects, and more paths than atoms in the world."""
    bomb: object = VALUE
    for _ in range(60):
        bomb = [bomb] * 10
    text = json.dumps(Redactor([VALUE]).redact_value(bomb, most=10_000))
    assert "[too large]" in text
    assert VALUE not in text
    deep: object = VALUE
    for _ in range(100_000):
        deep = [deep]
    assert "[nested too deep]" in json.dumps(Redactor([VALUE]).redact_value(deep, deepest=100))


def test_a_log_call_with_a_cyclic_extra_ends(logged):
    """Else the thread would hang, and its memory grow without bound."""
    logger, stream = logged
    loop: list[object] = [VALUE]
    loop.append(loop)
    logger.info("it is %s", loop, extra={"extra_field": loop})
    assert "line-two" not in stream.getvalue()
    assert "[circular]" in stream.getvalue()


def test_keys_that_become_the_same_are_all_kept():
    """Nothing is lost by redaction but the secrets."""
    redactor = Redactor(["first-long-secret", "second-long-secret"])
    assert redactor.redact_value({"first-long-secret": 1, "second-long-secret": 2}) == {
        "[secret]": 1,
        "[secret]#2": 2,
    }


def test_other_types_are_kept_or_redacted():
    """Numbers that spell a secret go; the rest of JSON stays as it is."""
    redactor = Redactor(["12345678", VALUE])
    given_value = [1, 2.5, True, None, 12345678, VALUE.encode(), (VALUE,), SecretRef("K")]
    assert redactor.redact_value(given_value) == [
        1,
        2.5,
        True,
        None,
        "[secret]",
        "[secret]",
        ["[secret]"],
        "[secret K]",
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_without_secrets_comes_back_equal(value):
    """In a copy of its own, with the order of keys."""
    copy = Redactor([VALUE]).redact_value(value)
    assert copy == value
    assert json.dumps(copy) == json.dumps(value)


def test_exceptions_become_text():
    """With class and message, and without the value, whatever the exception does."""
    redactor = Redactor([VALUE])
    assert redactor.redact_exception(ValueError(f"bad {VALUE}")) == "ValueError: bad [secret]"
    assert redactor.redact_exception(KeyError(VALUE)).startswith("KeyError: ")
    assert VALUE not in redactor.redact_exception(KeyError(VALUE))
    assert redactor.redact_exception(RuntimeError()) == "RuntimeError"
    assert (
        redactor.redact_exception(AutomateError(ErrorCodes.INTERNAL, VALUE, hint=VALUE))
        == "AutomateError: [secret] ([secret])"
    )

    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError(VALUE)

    assert VALUE not in redactor.redact_exception(Unprintable())


@pytest.mark.parametrize(
    ("field", "text", "secret"),
    [
        ("token_name", "deploy bot", False),
        ("tokenName", "deploy-bot", False),
        ("key_id", "k-2024", False),
        ("api_key_label", "for the shop", False),
        ("password_type", "argon2", False),
        ("api_token", "deploy bot", True),
        ("token_name_value", "deploy bot", True),
        ("session_id", "8f14e45fceea167a5a36dedd4bea2543", True),
        ("secret_id", "84896a0c-1347-aa90-a4f6-aca8b7558780", True),
        ("access_key_id", "AKIAIOSFODNN7EXAMPLE", True),
        ("token_name", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", True),
        ("password", "deploy bot", True),
    ],
)
def test_the_name_of_a_secret_is_no_secret(field, text, secret):
    """Where it doesn't look like one: an id may be as good as a password."""
    schema = {"properties": {field: {"type": "string"}}}
    assert secret_fields({"input": {field: text}}, schema) == ([field] if secret else [])
    assert secret_fields([{field: text}], None) == ([field] if secret else [])
    assert list(literal_secrets({field: text}, schema)) == ([text] if secret else [])


def test_a_password_by_its_schema_is_one_whatever_its_name():
    schema = {"properties": {"key_id": {"type": "string", "format": "password"}}}
    assert secret_fields({"key_id": "k-2024"}, schema) == ["key_id"]


def test_threads_may_add_and_redact_at_once():
    """A value is out of every text from the moment that add() has returned."""
    redactor = Redactor()
    leaks: list[str] = []

    def work(number: int) -> None:
        for turn in range(30):
            value = f"secret-number-{number:04}-{turn:04}-value"
            redactor.add(value)
            if value in redactor.redact(f"x {value} y"):
                leaks.append(value)

    at_once(*(partial(work, number) for number in range(6)))
    assert leaks == []


# --- logging ---------------------------------------------------------------------------------


@pytest.fixture
def logged():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        logging.Formatter("%(message)s %(extra_field)s", defaults={"extra_field": ""})
    )
    handler.addFilter(RedactingFilter(Redactor([VALUE])))
    logger = logging.getLogger("automate_kernel.test_redaction")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield logger, stream
    logger.removeHandler(handler)


def test_log_messages_arguments_and_extra_are_redacted(logged):
    """Wherever in the record the value is."""
    logger, stream = logged
    logger.info("token %s in %r", VALUE, {"a": VALUE}, extra={"extra_field": {"b": [VALUE]}})
    text = stream.getvalue()
    assert "line-two" not in text
    assert text.count("[secret]") == 3


def test_log_tracebacks_are_redacted(logged):
    """The error's text and its chain."""
    logger, stream = logged
    try:
        try:
            raise ValueError(VALUE)
        except ValueError as error:
            raise RuntimeError(f"wrapped {VALUE}") from error
    except RuntimeError:
        logger.exception("failed", stack_info=True)
    text = stream.getvalue()
    assert "RuntimeError: wrapped [secret]" in text
    assert "line-two" not in text


def test_log_record_keeps_no_exception():
    """A later handler, such as an error tracker, can't read the frames' locals."""
    try:
        raise ValueError(VALUE)
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", None, info)
    assert RedactingFilter(Redactor([VALUE])).filter(record) is True
    assert record.exc_info is None
    assert "[secret]" in str(record.exc_text)


def test_log_call_with_wrong_arguments_is_kept(logged):
    """The filter neither raises nor drops the record."""
    logger, stream = logged
    logger.info("%d items", VALUE)
    assert "line-two" not in stream.getvalue()
    assert "%d items" in stream.getvalue()


# --- escapes that decode -----------------------------------------------------------------------

HARD = "s3cr3t-P@ss&w0rd/Ü+9"
_RAW = HARD.encode()
WRITTEN = {
    "percent": "".join(f"%{b:02x}" for b in _RAW),
    "percent twice": "".join(f"%25{b:02X}" for b in _RAW),
    "unicode": "".join(f"\\u{ord(c):04x}" for c in HARD),
    "unicode twice": "".join(f"\\\\u{ord(c):04X}" for c in HARD),
    "unicode braces": "".join(f"\\u{{{ord(c):x}}}" for c in HARD),
    "long unicode": "".join(f"\\U{ord(c):08x}" for c in HARD),
    "bytes": "".join(f"\\x{b:02x}" for b in _RAW),
    "octal": "".join(f"\\{b:03o}" for b in _RAW),
    "decimal entities": "".join(f"&#{ord(c)};" for c in HARD),
    "padded entities": "".join(f"&#{ord(c):06d};" for c in HARD),
    "hex entities": "".join(f"&#x{ord(c):X};" for c in HARD),
    "entities twice": "".join(f"&amp;#x{ord(c):x};" for c in HARD),
    "hex colons": _RAW.hex(":"),
    "hex spaces": _RAW.hex(" ").upper(),
    "hex groups": re.sub("(....)", r"\1 ", _RAW.hex()),
    "hex dashes": _RAW.hex("-"),
    "hex list": ", ".join(f"0x{b:02x}" for b in _RAW),
    "hex lines": _RAW.hex("\n"),
    "quoted printable": "".join(f"={b:02X}" for b in _RAW),
    "mixed case hex": "".join(f"{b:02x}" if n % 2 else f"{b:02X}" for n, b in enumerate(_RAW)),
    "one escape": HARD.replace("&", "\\u0026"),
    "mixed": "".join(
        (c, f"%{ord(c):02x}", f"&#{ord(c)};", f"\\u{ord(c):04x}")[n % 4] for n, c in enumerate(HARD)
    ),
    "base64 of percent": base64.b64encode("".join(f"%{b:02x}" for b in _RAW).encode()).decode(),
    "base64 of base64": base64.b64encode(base64.b64encode(b"user:" + _RAW)).decode(),
    "percent of base64": "".join(f"%{b:02x}" for b in base64.urlsafe_b64encode(b"x" + _RAW)),
    "json in json": json.dumps(json.dumps(HARD)).replace("&", "\\u0026"),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("around", ["{}", "before {} after", 'a="{}"; b=%41', "x&amp;{}&#65;"])
def test_a_value_is_found_in_what_a_text_says_once_it_is_decoded(written, around):
    """However a service writes its bytes, and also where several ways are mixed."""
    redactor = Redactor([HARD])
    shown = redactor.redact(around.format(written))
    assert "[secret]" in shown
    assert not redactor.finds(shown)
    assert len(shown) < len(around) + 40  # no part of it is left
    before, _, after = around.partition("{}")
    assert shown.startswith(before.partition("%")[0][:3]) and shown.endswith(after[-3:])


@pytest.mark.parametrize(
    "text",
    [
        "100% of 20%ab", "a & b &amp; c", "C:\\users\\x", "12:34:56:78:90:ab", "de ad be ef 00 11 22",
        "c29tZXRoaW5nIGVsc2UgZW50aXJlbHk", "\\u00e4\\u00f6\\u00fc", "&#8364;&#163; 5", "%zz%", "\\",
        "\\u{110000}\\u{ffffff}", "&#9999999;&#xffffff;&#0;", "A" * 13, "\\777\\400",
    ],
)  # fmt: skip
def test_other_escapes_stay_as_they_are(text):
    """What is decoded is only looked at."""
    assert Redactor([HARD]).redact(text) == text


@pytest.mark.parametrize(
    "unit", ["%41", "\\", "\\u0041", "&#65;", "&", "41:", "aA", "QUFB", "%25", "&amp;", "4:1-"]
)
def test_redaction_takes_time_with_the_length(unit):
    """Of any text that has to be decoded, as senders choose it."""
    redactor = Redactor([HARD])

    def seconds(length: int) -> float:
        begun = time.thread_time()
        redactor.redact(unit * (length // len(unit)))
        return time.thread_time() - begun

    seconds(1000)
    assert seconds(64_000) < 0.3 or seconds(128_000) < 3 * seconds(64_000)


@pytest.mark.parametrize(
    "name",
    ["token", "refresh_token", "id_token", "refreshToken", "idToken", "access_token", "db_password",
     "client_secret", "CRM-API-KEY", "X_ACCESS_KEY"],
)  # fmt: skip
def test_a_text_that_assigns_a_secret_does_not_show_it(name: str) -> None:
    """As an answer, a form or a traceback does, whatever stands before the word that says it."""
    for text in (
        f'{{"{name}": "zkR7-canary"}}',
        f"a=1&{name}=zkR7-canary&b=2",
        f"{name}='zkR7-canary'",
    ):
        assert "canary" not in redact_text(text, [])
    assert redact_text(f"a{name.replace('_', '')}y=5 s, the tokens=7", []).endswith(
        "=5 s, the tokens=7"
    )
