"""What one call of a template may cost: nothing is reachable that holds a thread for long."""

from __future__ import annotations

import contextlib
import gc
import json
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from unittest import mock
from uuid import UUID

import pytest
from example_counts import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2.defaults import DEFAULT_FILTERS
from jinja2.runtime import LoopContext
from jinja2.tests import TESTS

from automate_kernel.base.errors import TemplateError
from automate_kernel.templates import FilterRegistry, Limits, TemplateContext, TemplateEngine
from automate_kernel.templates import values as own_texts
from automate_kernel.templates.filters import (
    BUILTIN_FILTERS,
    FILTER_PRICES,
    JINJA_FILTERS,
    JINJA_TESTS,
    TEST_PRICES,
)
from automate_kernel.templates.limits import Budget
from automate_kernel.templates.members import BINARY, LOOP_METHODS, member, Method
from automate_kernel.templates.sandbox import GLOBALS

CALL_SECONDS = 0.25
"""What one call may take at most: a heartbeat's pause, on a machine that does other things too."""

engine = TemplateEngine(FilterRegistry())
sandbox = engine.sandbox()

VALUES: list[Any] = [
    "text", b"bytes", 1, 1.5, True, None, [1], (1,), {"a": 1}, {1}, frozenset({1}), range(3),
    iter([1]), (x for x in [1]), {"a": 1}.items(), {"a": 1}.keys(), MappingProxyType({"a": 1}),
    datetime.now(timezone.utc), date(2024, 1, 2), timedelta(1), datetime.now().time(),  # noqa: DTZ005
    Decimal("1.5"), UUID(int=1), 1j, memoryview(b"x"), bytearray(b"x"), str, print, json,
]  # fmt: skip


# --- by construction ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_no_method_is_reachable_without_a_price(value):
    """All names of all types that a template can meet: what is callable is a priced method."""
    for name in {*dir(value), *dir(type(value))}:
        found = member(value, name)
        if isinstance(found, Method):
            assert callable(found.cost), name
        else:
            assert not callable(found), name
    if isinstance(value, (bytes, int, float, tuple, set)) and not isinstance(value, (date,)):
        assert not any(isinstance(member(value, name), Method) for name in dir(value))


def test_of_a_loop_only_two_methods_are_reachable():
    """These are `changed` and `cycle`; calling the loop itself isn't."""
    loop = LoopContext([1], sandbox.undefined)
    reached = {name for name in dir(loop) if callable(member(loop, name))}
    assert reached == {method.__name__ for method in LOOP_METHODS}


def test_no_filter_is_reachable_without_a_price():
    """Neither ours nor Jinja's; a host's own gets values of bounded size."""
    reachable = {name for name in DEFAULT_FILTERS if name in sandbox.filters}
    reachable |= set(engine.filters.names())
    assert reachable == FILTER_PRICES.keys() == {*BUILTIN_FILTERS, *JINJA_FILTERS}


def test_no_test_operator_or_function_is_reachable_without_a_price():
    """The tests, the operators with two operands and the functions, all of them."""
    assert sandbox.tests.keys() == JINJA_TESTS
    assert TEST_PRICES.keys() <= JINJA_TESTS <= TESTS.keys()
    assert sandbox.intercepted_binops == BINARY.keys() == sandbox.default_binop_table.keys()
    assert GLOBALS.keys() == {"namespace", "range"}
    assert sandbox.globals == {}


def test_a_hosts_filter_gets_values_of_bounded_size():
    """What it does with them is the host's; that they are small enough is ours."""
    registry = FilterRegistry()
    sizes: list[int] = []

    @registry.register("own")
    def own(value: Any, *args: Any) -> str:
        sizes.append(len(value))
        return "x"

    small = TemplateEngine(registry, limits=Limits(output=1000))
    for text in (
        "{{ event.text | own }}",
        "{{ 'x' | own(event.text) }}",
        "{{ event.list | own }}",
    ):
        context = TemplateContext(event={"text": "x" * 1001, "list": list(range(1001))})
        with pytest.raises(TemplateError, match="filter 'own' would take too long"):
            small.compile(text).render(context)
    assert sizes == []
    assert small.compile("{{ [1, 2] | map('string') | own }}").render(TemplateContext()) == "x"
    assert sizes == [2]


# --- the attacks that this is for ------------------------------------------------------------------

CONTEXT = TemplateContext(
    event={
        "text": "a" * 600_000,
        "near": "a" * 299_200 + "b" + "a" * 299_200,
        "half": "ab" + "a" * 299_998,
        "chars": "".join(map(chr, range(300_000, 600_000))),
        "accents": "a" + "\u0301" * 300_000 + "\u0316" * 300_000,
        "hex": "f" * 600_000,
        "hex2": "e" * 300_000,
        "keys": {f"channel_name_{i:05}": 1 for i in range(60_000)},
        "numbers": list(range(200_000)),
        "texts": ["x"] * 1000,
        "parts": "0." * 200_000 + "0",
        "same": ["x" * 5000 + str(i) for i in range(100)] + ["x" * 5000 + "1"] * 80,
    }
)
ATTACKS = [
    "{{ event.text.rfind(event.half) }}",
    "{{ event.text.rindex(event.half) }}",
    "{{ event.text.rsplit(event.half) }}",
    "{{ event.text.rpartition(event.half) }}",
    "{{ event.text.find(event.near) }}",
    "{{ event.text.count(event.near) }}",
    "{{ event.text.split(event.near) }}",
    "{{ event.text.partition(event.near) }}",
    "{{ event.text | replace(event.near, '') }}",
    "{{ event.text.replace(event.near, '') }}",
    "{{ event.near in event.text }}",
    "{{ event.text is in [event.near] }}",
    "{{ event.near is in event.text }}",
    "{{ ('b' ~ event.text).strip(event.chars) }}",
    "{{ event.chars.strip(event.chars) }}",
    "{{ event.chars | trim(event.chars) }}",
    "{{ event.chars.lstrip(event.chars) }}",
    "{{ event.chars.rstrip(event.chars) }}",
    "{{ event.accents | slug }}",
    "{{ (event.hex | int(base=16)) // (event.hex2 | int(base=16)) }}",
    "{{ (event.hex | int(base=16)) % (event.hex2 | int(base=16)) }}",
    "{{ (event.hex | int(base=16)) is divisibleby(event.hex2 | int(base=16)) }}",
    "{{ (event.hex | int(base=16)) - 1 }}",
    "{{ event.hex | int(base=16) }}",
    "{{ event.keys.channel_name }}",
    "{{ event.texts | sort(attribute=event.parts) }}",
    "{{ event.texts | map(attribute=event.parts) | list }}",
    "{{ event.texts | selectattr(event.parts) | list }}",
    "{{ event.texts | groupby(event.parts) | list }}",
    "{{ event.numbers | sort | first }}",
    "{{ range(9999) | map(attribute='x', default=event.text) | max }}",
    "{{ event.same | sort }}",
    "{{ event.same | unique | list | length }}",
    "{% for i in range(9) %}{{ loop.changed(event.same) }}{% endfor %}",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_a_payload_can_not_hold_the_interpreter(text):
    """Values of some 600 kB, as any sender may choose them: an answer or a refusal, at once."""
    template = engine.compile(text)
    assert pause(lambda: template.render(CONTEXT)) < CALL_SECONDS


def pause(call: Callable[[], object]) -> float:
    """
    Run *call* and give the longest time, in processor seconds, without a look at the clock.

    A look is what ends a rendering whose time is up. The best of three is taken: what else runs on
    the machine uses the caches too.
    """
    best = 9.0
    gc.disable()  # what it takes depends on what else there is
    for _ in range(3):
        looks = [time.thread_time()]
        look = Budget.look_at_clock

        def seen(self: Budget, looks: list[float] = looks) -> None:
            looks.append(time.thread_time())
            look(self)

        with mock.patch.object(Budget, "look_at_clock", seen), contextlib.suppress(TemplateError):
            call()
        looks.append(time.thread_time())
        assert looks[-1] - looks[0] < Limits().seconds + 2 * CALL_SECONDS
        best = min(best, max(b - a for a, b in zip(looks, looks[1:])))
        if best < CALL_SECONDS:
            break
    gc.enable()
    return best


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ event.text.find(event.near) }}", r"find\(\) would take too long"),
        ("{{ event.near in event.text }}", "in would take too long"),
        ("{{ event.text | replace(event.near, '') }}", "filter 'replace' would take too long"),
        ("{{ event.texts | sort(attribute=event.parts) }}", "at most 32 parts"),
    ],
)
def test_the_refusal_says_what_and_what_to_do(text, message):
    """With a remedy."""
    with pytest.raises(TemplateError, match=message) as caught:
        engine.compile(text).render(CONTEXT)
    assert "smaller" in str(caught.value.hint) or "parts" in message


def test_the_limit_of_a_call_can_be_changed():
    """For hosts that trust their senders more, or less."""
    text = "{{ event.text | upper | length }}"
    engine.compile(text).render(CONTEXT)
    strict = TemplateEngine(limits=Limits(call_seconds=0.001))
    with pytest.raises(TemplateError, match="'upper' would take too long"):
        strict.compile(text).render(CONTEXT)


def test_large_values_that_are_no_attack_are_served():
    """Half a megabyte of text, ten thousand lines: within the limits."""
    lines = [{"sku": f"sku-{i % 977}", "text": "x" * 30, "total": i} for i in range(10_000)]
    log = "2024-01-02 INFO something happened; " * 14_000
    context = TemplateContext(event={"lines": lines, "log": log})
    for text, value in {
        "{{ event.lines | sort(attribute='sku') | map(attribute='total') | first }}": 0,
        "{{ event.lines | groupby('sku') | length }}": 977,
        "{{ event.lines | map(attribute='sku') | unique | list | length }}": 977,
        "{{ event.lines | sum(attribute='total') }}": 49_995_000,
        "{{ event.lines | json | length }}": len(json.dumps(lines)),
        "{{ event.log.rsplit('; ', 1)[1] }}": "",
        "{{ event.log.count('INFO something') }}": 14_000,
        "{{ (event.log | replace('INFO', 'x') | upper).split('; ') | length }}": 14_001,
        "{{ 'happened; 2024' in event.log and event.log.strip() != event.log }}": True,
        "{{ event.log | sha256 | length }}": 64,
    }.items():
        assert engine.compile(text).render(context) == value, text


# --- the same as Python's, in linear time ------------------------------------------------------------

short = st.text(alphabet="ab ", max_size=12)
position = st.none() | st.integers(-15, 15)


@given(short, short, position, position)
def test_searching_from_the_right_gives_what_python_gives(text, part, start, end):
    """With every start and end, within the text or not."""
    assert own_texts.rfind(text, part, start, end) == text.rfind(part, start, end)


@given(short, short.filter(bool), st.integers(-2, 5))
def test_splitting_from_the_right_gives_what_python_gives(text, part, most):
    """Also where the separator overlaps itself."""
    assert own_texts.rsplit(text, part, most) == text.rsplit(part, most)
    assert own_texts.rsplit(text, None, most) == text.rsplit(None, most)
    assert own_texts.rpartition(text, part) == text.rpartition(part)


@given(st.text(max_size=20), st.none() | st.text(max_size=60), st.text(min_size=33, max_size=90))
def test_stripping_gives_what_python_gives(text, few, many):
    """With few characters and with many."""
    for chars in (few, many, many + text):
        assert own_texts.stripped(text, chars) == text.strip(chars)
        assert own_texts.stripped(text, chars, right=False) == text.lstrip(chars)
        assert own_texts.stripped(text, chars, left=False) == text.rstrip(chars)


# --- every call, measured --------------------------------------------------------------------------

SIZES = st.sampled_from([0, 1, 5, 6, 99, 2_499, 10_000, 29_999, 100_000, 300_000, 1_000_000])
UNITS = [
    "a", "ab", " ", "\n", "%s", "{} ", "{0:200.200f}", "a.", "\u0301", "ß", "ΐ", "\U000e0001", '"', "<",
    "0", "9", "[", "[],", "1,", '{"a":1},', "Σ'", "é", "\U0001f600", "a b ", "-", "%", "\\u0301\u0316",
]  # fmt: skip


def _text(unit: str, size: int, middle: str, last: str) -> str:
    repeated = unit * (size // len(unit) + 1)
    half = size // 2
    return (repeated[:half] + middle + repeated[half:size] + last)[: max(size, 1)]


texts = st.builds(
    _text,
    st.sampled_from(UNITS),
    SIZES,
    st.sampled_from(["", "b", "\u0316" * 1000, "]"]),
    st.sampled_from(["", "b", "\U0001f600", "]"]),
) | st.builds(lambda n: "".join(map(chr, range(300_000, 300_000 + n // 4))), SIZES)
LEAVES: list[Callable[[int], Any]] = [
    lambda i: i,
    lambda i: i * (2**61 - 1),
    lambda i: i / 3,
    lambda i: f"{'x' * 50}{i}",
    lambda i: "x" * 200,
    lambda i: {"a": {"b": i}, "c": "x"},
    lambda i: [i, [i]],
    lambda i: 10**4000 + i,
    lambda i: Decimal(f"1E+{i}"),
    lambda i: None,
    lambda i: "\u0301" * 20,
]
lists = st.builds(
    lambda make, size: [make(i) for i in range(size)],
    st.sampled_from(LEAVES),
    st.sampled_from([0, 1, 33, 1_000, 30_000, 100_000]),
)
trees = st.builds(
    lambda depth, width: json.loads("[" * depth + "[1]," * width + "1" + "]" * depth),
    st.sampled_from([1, 40, 300]),
    st.sampled_from([0, 10, 30_000]),
)
mappings = st.builds(
    lambda make, size: {f"key {i}": make(i) for i in range(size)},
    st.sampled_from(LEAVES),
    st.sampled_from([0, 3, 40, 30_000]),
)
numbers = st.sampled_from(
    [0, 1, -1, 7, 200, 10**9, 2**61 - 1, 10**4000, 2**1_000_000, 1.5, 1e308, Decimal("1E+999999")]
)
values = texts | lists | mappings | trees | numbers | st.none()

METHODS = sorted(
    {
        name
        for value in VALUES
        for name in dir(type(value))
        if isinstance(member(value, name), Method)
    }
)
CALLS = [
    *(f"event.a.{name}({{}})" for name in METHODS),
    *(f"event.a | {name}({{}})" for name in sorted(FILTER_PRICES)),
    *(f"event.a | map('{name}'{{, }}) | list" for name in sorted(FILTER_PRICES)),
    *(f"event.a is {name}({{}})" for name in sorted(JINJA_TESTS) if name.isalpha()),
    *(f"event.a | select('{name}'{{, }}) | list" for name in sorted(JINJA_TESTS)),
    *(f"event.a {name} event.b" for name in sorted(BINARY)),
    *(f"event.a {name} event.b" for name in ("==", "<", ">=", "!=", "in", "not in", "~")),
    "[event.a, event.b] == [event.b, event.a]",
    "event.a[event.b:event.c]",
    "event.a[::-1]",
    "event.a[event.b]",
    "-event.a",
    "namespace(event.a)",
    "range(event.a, event.b) | list",
    "'{:200.100f} {} {:,}'.format(event.a, event.b, event.c)",
    "event.b.format(event.a, event.c)",
    "event.a | sort(attribute=event.b)",
    "event.a | max(attribute='a.b')",
    "event.a | join(event.b, attribute='c')",
    "event.a | json(indent=4)",
    "event.a | int(base=16)",
    "event.a | int(base=16) // (event.b | int(base=36))",
    "event.nope",
    "event.a.nope",
    "event.a == event.b == event.c",
    "{'a': event.a, 'b': [event.b, event.c]}",
]


@st.composite
def calls(draw: st.DrawFn) -> str:
    """A call of something reachable, with up to three arguments."""
    text = draw(st.sampled_from(CALLS))
    given = draw(
        st.sampled_from(["", "event.b", "event.b, event.c", "1, event.b", "event.b, 1, 9"])
    )
    text = text.replace("{, }", f", {given}" if given else "")
    return text.replace("({})", f"({given})") if given else text.replace("({})", "()")


@settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(calls(), values, values, values)
def test_no_call_takes_long_whatever_the_values(text, a, b, c):
    """Each method, filter, test, operator and function, with sizes and contents made to be slow."""
    context = TemplateContext(event={"a": a, "b": b, "c": c})
    with contextlib.suppress(TemplateError):  # not every call can be written
        template = engine.compile(f"{{% set result = {text} %}}")
        assert pause(lambda: template.render(context)) < CALL_SECONDS


def test_the_price_is_asked_before_the_call():
    """A refused call has done nothing: the clock and the steps are as they were."""
    budget = Budget(Limits())
    began = time.thread_time()
    with pytest.raises(TemplateError):
        member("a" * 10**6, "find")(budget, "a" * 500_000 + "b" + "a" * 498_000)
    assert time.thread_time() - began < 0.05
