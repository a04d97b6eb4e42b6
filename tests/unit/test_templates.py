"""Templates: JSON in, JSON out, with types kept and mistakes explained."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import date, datetime, timezone
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, TemplateError
from automate_kernel.secrets import MemorySecretsBackend, Sealed, SecretRef, SecretResolver
from automate_kernel.templates import (
    EnvironmentResolver,
    FilterRegistry,
    Limits,
    TemplateContext,
    TemplateEngine,
    areveal,
    reveal,
)
from waiting import at_once

PAYLOAD = {
    "channel_id": "C42",
    "items": [1, 2],
    "keys": "own",
    "lines": [{"sku": "b", "total": 2.5}, {"sku": "a", "total": 1}],
    "empty": None,
    "flag": True,
    "text": "42",
}
CONTEXT = TemplateContext(
    event={"type": "webhook", "source": "stripe", "payload": PAYLOAD},
    execution={"id": "uuid", "name": "My Workflow"},
    steps={"calculate": {"output": {"total": 1234.5}}, "my-step": {"output": 1}},
    env=EnvironmentResolver(["REGION", "UNSET"], environ={"REGION": "eu", "PATH": "/bin"}),
    extra={"item": 7},
)
engine = TemplateEngine()


def render(value, context=CONTEXT):
    return engine.compile(value).render(context)


def problem(value, context=CONTEXT, path="steps.notify.input") -> str:
    with pytest.raises(TemplateError) as caught:
        engine.compile(value, path).render(context)
    assert caught.value.__context__ is None
    return str(caught.value)


def test_importing_the_package_does_not_import_jinja():
    """Nor does compiling text that is no template."""
    code = (
        "import sys; from automate_kernel.templates import TemplateEngine, TemplateContext;"
        "t = TemplateEngine().compile({'a': ['x', 1, 'Bearer $secret:K']});"
        "t.render(TemplateContext()); print('jinja2' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


# --- round trips and types ---------------------------------------------------------------------


def _is_plain(text: str) -> bool:
    return not any(mark in text for mark in ("{{", "{%", "{#", "$secret:", "$env:"))


plain_text = st.text().filter(_is_plain)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | plain_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain_text, inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_without_templates_comes_back_unchanged(tree):
    """Text that only looks like something is left alone, and types are kept."""
    result = render(tree)
    assert result == tree
    assert repr(result) == repr(tree)


@given(json_values)
def test_a_whole_expression_keeps_its_value_and_type(value):
    """ "42" stays text, and "[1, 2]" doesn't become a list."""
    context = TemplateContext(event={"payload": value})
    for text in ("{{ event.payload }}", "{{event['payload']}}", "{# x #}{{ event.payload }}"):
        result = render(text, context)
        assert result == value
        assert repr(result) == repr(value)


@pytest.mark.parametrize("value", ["a text", "", "a\n", 7, 1.5, True, None, [1, "a"], {"a": {}}])
@pytest.mark.parametrize(
    "name", ["event.payload", "event['payload']", "event.payload or event.payload"]
)
def test_a_line_break_at_the_end_stays_behind_a_text(value, name):
    """A block of YAML has one, and so has a file; other types are what they are without it."""
    context = TemplateContext(event={"payload": value})
    expected = f"{value}\n" if isinstance(value, str) else value
    assert repr(render(f"{{{{ {name} }}}}\n", context)) == repr(expected)
    for before in ("Hello ", "{{ 1 }}", "\n"):
        shown = render(f"{before}{{{{ {name} }}}}", context)
        assert render(f"{before}{{{{ {name} }}}}\n", context) == f"{shown}\n"
    assert render("a{# no more #}\n", context) == "a\n"
    assert render("{% if true %}a{% endif %}\n", context) == "a\n"
    assert isinstance(render("{{ secrets.TOKEN }}\n", context), SecretRef)


@given(st.text())
def test_values_are_never_read_as_templates(value):
    """What a value holds is text, whatever it looks like."""
    context = TemplateContext(event={"payload": value})
    assert render("<{{ event.payload }}>", context) == f"<{value}>"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ 42 }}", 42),
        ("{{ '42' }}", "42"),
        ("{{ '[1, 2]' }}", "[1, 2]"),
        ("{{ true }}", True),
        ("{{ none }}", None),
        ("{{ 1.0 }}", 1.0),
        ("{{ {'a': [1, (2, 3)]} }}", {"a": [1, [2, 3]]}),
        ("{{ range(3) }}", [0, 1, 2]),
        ("{{ event.payload.lines | map(attribute='sku') }}", ["b", "a"]),
        ("{{ {'a': 1}.items() }}", [["a", 1]]),
        (" {{ 42 }}", " 42"),
        ("{{ 42 }}{{ 42 }}", "4242"),
        ("{{- 42 -}} ", 42),
        ("text\n", "text\n"),
        ("{{ 1 }} text\n", "1 text\n"),
        ("{# only a comment #}", ""),
    ],
)
def test_types(text, value):
    """One expression keeps its type; anything else is text."""
    result = render(text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2024, 1, 2, tzinfo=timezone.utc), "2024-01-02T00:00:00+00:00"),
        (date(2024, 1, 2), "2024-01-02"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (ErrorCodes.INTERNAL, "INTERNAL"),
    ],
)
def test_values_that_json_lacks_become_text(value, expected):
    """As an action would have to write them."""
    result = render("{{ item }}", TemplateContext(extra={"item": value}))
    assert result == expected
    assert type(result) is str


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), float("nan"), {1: 2}, print])
def test_values_that_are_no_json_are_refused(value):
    """At the template, where the mistake is."""
    assert "JSON" in problem("{{ item }}", TemplateContext(extra={"item": value}))


def test_what_is_rendered_shares_nothing_with_the_context():
    """An action may change its input; the event must stay as it was."""
    result = render("{{ event.payload }}")
    result["lines"][0]["sku"] = "changed"
    assert PAYLOAD["lines"][0]["sku"] == "b"


def test_each_rendering_is_new():
    """Nothing that one rendering gave is in the next."""
    template = engine.compile({"a": [1, {"b": "x"}]})
    template.render(CONTEXT)["a"].append(2)
    assert template.render(CONTEXT) == {"a": [1, {"b": "x"}]}


def test_keys_may_be_templates():
    """They give text, and no two the same."""
    assert render({"{{ event.type }}": 1, "$env:REGION": 2}) == {"webhook": 1, "eu": 2}
    assert "two keys" in problem({"webhook": 1, "{{ event.type }}": 2})
    assert "a key is text" in problem({"{{ item }}": 1})
    assert "can't be a secret" in problem({"$secret:K": 1})
    assert "can't be a secret" in problem({"x{{ secrets.K }}": 1, "b": "$secret:K"})


# --- names and attributes ----------------------------------------------------------------------


def test_keys_come_before_methods():
    """`event.payload.items` is what the payload calls so."""
    assert render("{{ event.payload.items }}") == [1, 2]
    assert render("{{ event.payload.keys }}") == "own"
    assert render("{{ execution.keys() | list }}") == ["id", "name"]


def test_a_step_with_a_dash_is_read_by_key():
    """And the subtraction that a dot would mean is pointed out."""
    assert render("{{ steps['my-step'].output }}") == 1
    assert "steps['my-step']" in problem("{{ steps.my-step.output }}")


def test_statements_work():
    """Loops, conditions, assignments."""
    text = (
        "{% for line in event.payload.lines if line.total > 1 %}"
        "{{ loop.index }}/{{ loop.length if not loop.last else 'end' }}={{ line.sku }};"
        "{% else %}none{% endfor %}{% set n = 2 %}{% if n > 1 %}many{% endif %}"
        "{% with x = 1 %}{{ x }}{% endwith %}"
    )
    assert render(text) == "1/end=b;many1"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ event.payload.lines | map(attribute='total') | sum }}", 3.5),
        ("{{ event.payload.lines | sum(attribute='total') }}", 3.5),
        (
            "{{ event.payload.lines | sort(attribute='sku') | map(attribute='sku') | join(', ') }}",
            "a, b",
        ),
        ("{{ event.payload.lines | join('+', attribute='sku') }}", "b+a"),
        ("{{ event.payload.lines | selectattr('total', 'gt', 1) | list | length }}", 1),
        ("{{ ['b', 'a', 'b'] | unique | map('upper') | list }}", ["B", "A"]),
        ("{{ event.payload.missing | default('x') }}", "x"),
        ("{{ 'a-b' | replace('-', '+') }}", "a+b"),
        ("{{ 'a-b'.replace('-', '+').upper() }}", "A+B"),
        ("{{ ', '.join(['a', 'b']) }}", "a, b"),
        ("{{ '%05.1f|%s' | format(3.14159, 'x') }}", "003.1|x"),
        ("{{ 2.567 | round(1) }}", 2.6),
        ("{{ 2.1 | round(method='ceil') }}", 3.0),
        ("{{ -2.1 | round(method='floor') }}", -3.0),
        ("{{ {'a': 1} | combine({'b': 2}, {'a': 3}) }}", {"a": 3, "b": 2}),
        ("{{ {'a': [1, 'ö']} | json }}", '{"a": [1, "ö"]}'),
        ("{{ [1] | tojson(indent=1) }}", "[\n 1\n]"),
        ("{{ '[1, null]' | from_json }}", [1, None]),
        ("{{ 'ö' | b64encode }}", "w7Y="),
        ("{{ 'w7Y' | b64decode }}", "ö"),
        ("{{ 'abc' | sha256 | truncate(11) }}", "ba7816bf..."),
        ("{{ 'Größe & Preis!' | slug }}", "grosse-preis"),
        ("{{ '2024-01-02T03:04:05Z' | to_datetime }}", "2024-01-02T03:04:05+00:00"),
        ("{{ ('2024-01-02' | to_datetime).year }}", 2024),
        ("{{ 0 | format_datetime('%Y') }}", "1970"),
        (
            "{{ (('2024-01-02'|to_datetime) - ('2024-01-01'|to_datetime)).total_seconds() }}",
            86400.0,
        ),
        ("{{ '<b>' | e ~ '<i>' }}", "&lt;b&gt;<i>"),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("{{ [[1, 2], [3]] | map('sum') | list }}", [3, 3]),
        (
            "{{ event.payload.lines | groupby('sku') | map(attribute='grouper') | list }}",
            ["a", "b"],
        ),
        ("{{ 7 is odd and 'a' is string and item is defined }}", True),
        ("{{ 'abc'[::-1] }}", "cba"),
        ("{{ 'x' * 3 ~ [0] * 2 }}", "xxx[0, 0]"),
        ("{{ 2 ** 10 % 1000 + 1 }}", 25),
        ("{{ 6 * 7 }}", 42),
        ("{{ 3 * 0.5 * event.payload.lines | length }}", 3.0),
    ],
)
def test_expressions(text, value):
    """Jinja's filters as its users know them, and ours."""
    assert render(text) == value


HONEST = [
    (
        "{% macro money(x, unit='EUR') %}{{ '{:,.2f}'.format(x) }} {{ unit }}{% endmacro %}"
        "{{ money(1234.5) }}, {{ money(2, unit='USD') }}",
        "1,234.50 EUR, 2.00 USD",
    ),
    (
        "{% macro tree(n) %}{{ n }}{% if n > 1 %}({{ tree(n - 1) }}){% endif %}{% endmacro %}"
        "{{ tree(3) }}",
        "3(2(1))",
    ),
    ("{% macro all() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ all(1, a=2) }}", "(1,){'a': 2}"),
    ("{% macro pass(x) %}<{{ x }}>{% endmacro %}{{ pass(item) }}", "<7>"),
    (
        "{% set ns = namespace(n=0) %}{% for line in event.payload.lines %}"
        "{% set ns.n = ns.n + line.total %}{% endfor %}{{ ns.n }}",
        "3.5",
    ),
    ("{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a + ns.b }}", "3"),
    ("{% set text %}a{{ item }}{% endset %}{{ text | upper }}", "A7"),
    ("{{ '{:,.2f}'.format(steps.calculate.output.total) }}", "1,234.50"),
    ("{{ '{1}-{0}'.format('a', 'b') }}", "b-a"),
    ("{{ '{x:>4}|{y!s:<5}|{{}}'.format(x=7, y=none) }}", "   7|None |{}"),
    ("{{ '{:%d.%m.%Y}'.format('2024-01-02' | to_datetime) }}", "02.01.2024"),
    ("{{ '{}'.format([1, 'a']) }}", "[1, 'a']"),
    ("{{ 'a.b.c'.rsplit('.', 1) }}", ["a.b", "c"]),
    ("{{ 'a.b.c'.rpartition('.') }}", ["a.b", ".", "c"]),
    ("{{ 1 < 2 <= 2 and not 3 < 2 < (1 / 0) }}", True),
    ("{{ [1, 2, 3, 4][1:-1] ~ 'abcd'[::2] ~ 'abcd'[1:] }}", "[2, 3]acbcd"),
    ("{{ {'b': 1, 'a': 2} | dictsort | map('first') | join }}", "ab"),
    ("{{ ([3, 1, 2] | max) - ([3, 1, 2] | min) }}", 2),
    ("{{ (['a', 'B'] | max) ~ (['b', 'A'] | min) }}", "BA"),
    ("x{{ {'a': 1}.items() }}", "x[('a', 1)]"),
    ("{{ event.payload.lines | map(attribute='total') | json }}", "[2.5, 1]"),
    ("{{ {1: true} | json }}", '{"1": true}'),
    ("{{ 2 in ['1', '2'] | map('int') }}", True),
    ("{{ event.payload.lines | map(attribute='sku') | select('in', ['a']) | list }}", ["a"]),
    ("{{ 'x y' | trim('x') ~ 7 | upper ~ [1] | lower }}", " y7[1]"),
    ("{{ {'a': 'b c'} | urlencode }}", "a=b+c"),
]


@pytest.mark.parametrize(("text", "value"), HONEST)
def test_what_authors_of_jinja_expect(text, value):
    """Macros, counters in a namespace, blocks in a variable, str.format, chains, slices."""
    assert render(text) == value


# --- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ event.payload.chanel_id }}", "did you mean 'channel_id'"),
        ("{{ evnt }}", "'evnt' is not defined"),
        ("{{ [event.nope] }}", "there is no 'nope'"),
        ("x {{ event.nope }}", "there is no 'nope'"),
        ("{{ event.payload.empty.x }}", "a NoneType has no 'x'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 1 + 'a' }}", "unsupported operand"),
        ("{{ 'a' + 1 }}", "has no len"),
        ("{{ foo( }}", "unexpected"),
        ("{{ a = 1 }}", "(two values are compared by ==)"),
        ("{{ a === 1 }}", "(two values are compared by ==)"),
        ("{{ a && b }}", "(write: a and b)"),
        ("{{ a || b }}", "(write: a or b)"),
        ("{{ !a }}", "(write: not a; or a != b)"),
        ("{{ a ? b : c }}", "(write: a if condition else b"),
        ("{{ $json.a }}", "names have no $: write event.payload"),
        ("{{ 'a }}", "a text ends with the quote that it began with"),
        ("{{ a }", "(an expression ends with }})"),
        ("{{ a", "(an expression ends with }}"),
        ("{{ 1 | uper }}", "did you mean 'upper'"),
        ("{{ 1 | nope }}", "register_filter"),
        ("{{ 1 is ood }}", "did you mean 'odd'"),
        ("{{ event.type.upper }}", "write upper()"),
        ("x {{ event.type.upper }}", "write upper()"),
        ("{{ event.payload.items() }}", "a list can't be called"),
        ("{% include 'x' %}", "{% include %} is not available"),
        ("{% include 'x' %}", "share text by a macro in it, or by a filter"),
        ("{% call f() %}{% endcall %}", "give the macro the text"),
        ("{% filter upper %}x{% endfilter %}", "{{ text | upper }}"),
        ("{% autoescape true %}{% endautoescape %}", "write | e"),
        ("{% set x | upper %}1{% endset %}", "filter the name afterwards"),
        ("{% for x in [1] recursive %}{% endfor %}", "a macro that calls itself"),
        ("{% macro f() %}{% endmacro %}{{ f }}", "write f()"),
        ("{% for x in [1] %}{{ loop }}{% endfor %}", "write loop.index"),
        ("{% set ns = namespace(n=1) %}{{ ns }}", "write a name in it"),
        ("{% set ns = namespace(n=1) %}{{ ns.m }}", "the namespace has no 'm'"),
        ("{% set x = 1 %}{% set x.y = 2 %}", "only a namespace's names can be set"),
        ("{{ range }}", "write range(10)"),
        ("{{ '{:,.2f}' | format(1) }}", "'{:,.2f}'.format(price)"),
        ("{{ '{x.y}'.format(x=1) }}", "pass the value itself"),
        ("{{ '{:d}'.format('x') }}", "the format doesn't fit a str"),
        ("{{ '{} {}'.format('x') }}", "a field without a value"),
        ("{{ '{'.format('x') }}", "braces of the format don't match"),
        ("{{ '{:>5}'.format([1]) }}", "a list takes no format"),
        ("{{ 'a'.rindex('x') }}", "rfind gives -1"),
        ("{{ execution.__class__ }}", "there is no '__class__'"),
        ("{{ nope.__class__ }}", "'nope' is not defined"),
        ("{{ event.nope._undefined_obj }}", "there is no 'nope'"),
        ("{% set event = 1 %}", "can't be assigned"),
        ("{% for env in [] %}{% endfor %}", "can't be assigned"),
        ("{{ '%s' % 1 }}", "format(...)"),
        ("{{ [] | first }}", "sequence was empty"),
        ("{{ {'a': 1} | upper | from_json }}", "filter 'from_json' failed: JSONDecodeError"),
        ("$env:UNSET", "'UNSET' is not set"),
        ("{{ env.UNSET }}", "'UNSET' is not set"),
        ("$env:PATH", "env_allow"),
        ("{{ env.PATH }}", "env_allow"),
        ("$secret: x", "no literal name"),
        ("$secret:{{ event.type }}", "no literal name"),
    ],
)
def test_mistakes_are_explained(text, message):
    """With the place and a remedy."""
    shown = problem({"a": [text]})
    assert shown.startswith("steps.notify.input.a[0]: ")
    assert message in shown


@pytest.mark.parametrize(
    "text",
    ["one\ntwo\n{{ event.nope }}", "one\ntwo\n{{ 1 / 0 }}", "1\n2\n{{ 1 | nope }}", "1\n2\n{{"],
)
def test_the_line_is_named_where_there_are_several(text):
    """In errors of syntax and of rendering."""
    with pytest.raises(TemplateError) as caught:
        engine.compile(text, "output").render(CONTEXT)
    assert str(caught.value).startswith("output, line 3: ")
    assert caught.value.details == {"path": "output", "line": 3}


@pytest.mark.parametrize(
    "text",
    [
        "{{ event.v | round }}",
        "{{ event.v | from_json }}",
        "{{ event.v | b64decode }}",
        "{{ event.v | to_datetime }}",
        "{{ event.v + 1 }}",
        "{{ execution[event.v] }}",
        "{{ event[event.v] }} x",
        "{{ event.v.nope }}",
        "{{ event.v() }}",
        "{{ event.v.index('x') }}",
        "{{ [event.v] | sum }}",
        "{{ {event.v: 1}.nope }}",
        "{{ event.v | map('upper') | map(attribute=event.v) | list }}",
    ],
)
def test_errors_show_no_values(text):
    """Neither in the text nor in an error that travels along."""
    value = "hunter2-in-the-payload"
    context = TemplateContext(event={"v": value})
    assert value not in problem(text, context)


def test_a_filters_own_error_is_kept_if_it_is_ours():
    """AutomateErrors are meant for people; the text of other errors may show values."""
    registry = FilterRegistry()

    @registry.register("ours")
    def ours(value):
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "the SKU has no price", hint="add one")

    @registry.register
    def theirs(value):
        raise LookupError(value)

    own = TemplateEngine(registry)
    with pytest.raises(TemplateError, match="the SKU has no price") as caught:
        own.compile("{{ 'v' | ours }}").render(CONTEXT)
    assert caught.value.hint == "add one"
    with pytest.raises(
        TemplateError, match=r"filter 'theirs' failed: LookupError \(it was given: text\)$"
    ):
        own.compile("{{ 'hunter2' | theirs }}").render(CONTEXT)


@pytest.mark.parametrize("value", [object(), {1: 2}, [SimpleNamespace()], {"a": datetime.now()}])  # noqa: DTZ005
def test_only_json_can_be_compiled(value):
    """Other values are refused, with their place."""
    problem(value)


# --- secrets and the environment ---------------------------------------------------------------

SECRET_TEXTS = {
    "$secret:K": SecretRef("K"),
    "$secret:K\n": SecretRef("K"),
    "{{ secrets.K }}": SecretRef("K"),
    "{{ secrets['K'] }}": SecretRef("K"),
    "$secret:a/b-c.d": SecretRef("a/b-c.d"),
    "$secret:app/database#password": SecretRef("app/database#password"),
    "$secret:{K}#part": Sealed(SecretRef("K"), "#part"),
    "$secret:K# ": Sealed(SecretRef("K"), "# "),
    "$secret:{any key: at all}": SecretRef("any key: at all"),
    "Bearer $secret:K": Sealed("Bearer ", SecretRef("K")),
    "Bearer {{ secrets.K }}": Sealed("Bearer ", SecretRef("K")),
    "{{ 'Bearer ' ~ secrets.K }}": Sealed("Bearer ", SecretRef("K")),
    "{{ event.type }}:$secret:K.": Sealed("webhook", ":", SecretRef("K"), "."),
    "{% if item %}$secret:K!{% endif %}": Sealed(SecretRef("K"), "!"),
    "{{ secrets.K if item else secrets.L }}": SecretRef("K"),
}


@pytest.mark.parametrize("text", SECRET_TEXTS)
def test_secrets_stay_references(text):
    """Rendering never resolves them."""
    result = render(text)
    assert str(result) == str(SECRET_TEXTS[text])
    assert type(result) is type(SECRET_TEXTS[text])


def test_secrets_in_a_literal_list_or_mapping():
    """An expression may pass them on within JSON."""
    assert render("{{ {'a': [secrets.K]} }}") == {"a": [SecretRef("K")]}


def test_reveal_gives_the_action_its_values():
    """The whole way from the author's text to the call."""
    tree = render({"h": {"Authorization": "Bearer $secret:K"}, "n": "{{ secrets.K }}", "x": 1})
    resolver = SecretResolver(MemorySecretsBackend({"K": "value of K"}))
    expected = {"h": {"Authorization": "Bearer value of K"}, "n": "value of K", "x": 1}
    assert reveal(tree, resolver) == expected
    assert asyncio.run(areveal(tree, resolver)) == expected


def test_the_keys_are_known_before_rendering():
    """From all branches, so that a workflow can be checked when it is loaded."""
    template = engine.compile(
        {
            "a": "{{ secrets.A if item else secrets.B }} $env:REGION",
            "b": ["$secret:c/d", SecretRef("E"), "$$secret:NOT", "{{ env.UNSET | default('') }}"],
        }
    )
    assert template.secret_keys == {"A", "B", "c/d", "E"}
    assert template.env_keys == {"REGION", "UNSET"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$env:REGION", "eu"),
        ("$env:REGION/$env:{REGION}x", "eu/eux"),
        ("{{ env.REGION | upper }}", "EU"),
        ("{{ item }}-$env:REGION.example", "7-eu.example"),
        ("{{ env.UNSET | default('none') }}", "none"),
        ("$$env:REGION", "$env:REGION"),
        ("costs $5 and $secretive", "costs $5 and $secretive"),
        ("$$secret:K and $$secret:{K}", "$secret:K and $secret:{K}"),
        ("{{ item }} $$secret:K", "7 $secret:K"),
        ("$$$secret:", "$$secret:"),
    ],
)
def test_environment_and_escapes(text, value):
    """Allowed variables are plain text; a doubled dollar means itself."""
    assert render(text) == value


def test_no_environment_without_an_allow_list():
    """The default allows nothing."""
    assert "not allowed" in problem("$env:HOME", TemplateContext())
    assert "not allowed" in problem("{{ env.HOME }}", TemplateContext())


def test_the_real_environment_is_read_at_rendering(monkeypatch):
    """As it is then."""
    monkeypatch.setitem(os.environ, "AUTOMATE_TEST_REGION", "us")
    context = TemplateContext(env=EnvironmentResolver("AUTOMATE_TEST_REGION"))
    assert render("$env:AUTOMATE_TEST_REGION", context) == "us"


def test_extra_can_not_hide_the_standard_names():
    """An item called `secrets` would be a trap."""
    with pytest.raises(TemplateError, match="secrets"):
        TemplateContext(extra={"secrets": {}})


# --- conditions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("event.payload.flag", True),
        ("{{ event.payload.flag }}", True),
        (" {{ event.payload.flag }}\n", True),
        ("item > 7 or event.type == 'webhook'", True),
        ("item > 7", False),
        ("event.payload.empty", False),
        ("event.missing is defined", False),
        ("'{' in event.type", False),
        ("false", False),
        (True, True),
        (False, False),
        (None, True),
    ],
)
def test_conditions(text, holds):
    """Bare or in braces, and always a boolean."""
    assert engine.condition(text).test(CONTEXT) is holds


@pytest.mark.parametrize(
    "text",
    [
        "{{ item }} > 3",
        "{{ a }} and {{ b }}",
        "",
        "item =",
        "item )",
        "item }} x",
        "{% if 1 %}1{% endif %}",
    ],
)
def test_conditions_that_would_always_hold_are_refused(text):
    """Text around the braces makes text, and text is true."""
    with pytest.raises(TemplateError, match=r"^steps\.a\.if: "):
        engine.condition(text, "steps.a.if")


def test_conditions_can_not_depend_on_secrets():
    """Neither by name nor through an item."""
    with pytest.raises(TemplateError, match="secret"):
        engine.condition("secrets.K")
    with pytest.raises(TemplateError, match="secret"):
        engine.condition("item").test(TemplateContext(extra={"item": SecretRef("K")}))


# --- filters -----------------------------------------------------------------------------------


def test_registries_are_layered():
    """A kernel's own filters, then the process's."""
    parent = FilterRegistry()
    parent.register("shared", lambda value: f"shared {value}")
    own = FilterRegistry(parent)
    own.register("mine", lambda value: f"mine {value}")
    text = "{{ 1 | mine }}, {{ 1 | shared }}, {{ [1] | map('mine') | first }}"
    result = TemplateEngine(own).compile(text).render(CONTEXT)
    assert result == "mine 1, shared 1, mine 1"
    assert "mine" in own.names()
    assert "mine" not in parent


@pytest.mark.parametrize("name", ["upper", "json", "mine", "x y", "__counted", ""])
def test_names_that_are_taken_or_wrong_are_refused(name):
    """Nothing is replaced by accident."""
    registry = FilterRegistry()
    registry.register("mine", str)
    with pytest.raises(ConfigError):
        registry.register(name, lambda value: value)


def test_replacing_is_possible_on_purpose():
    """And counts for templates that are compiled afterwards."""
    registry = FilterRegistry()
    registry.register("upper", lambda value: f"^{value}", replace=True)
    assert TemplateEngine(registry).compile("{{ 'a' | upper }}").render(CONTEXT) == "^a"


def test_a_module_that_is_loaded_twice_may_register_again():
    """As a reloader does."""
    registry = FilterRegistry()
    for _ in range(2):

        @registry.register("twice")
        def twice(value):
            return value * 2

    assert TemplateEngine(registry).compile("{{ 2 | twice }}").render(CONTEXT) == 4


def test_async_filters_are_refused():
    """They would give a coroutine in place of a value."""

    async def slow(value):
        return value

    with pytest.raises(ConfigError, match="async"):
        FilterRegistry().register("slow", slow)


def test_a_filter_added_after_the_engine_was_used():
    """Apps register in any order."""
    registry = FilterRegistry()
    own = TemplateEngine(registry)
    assert own.compile("{{ 1 }}").render(CONTEXT) == 1
    registry.register("late", lambda value: "late")
    assert own.compile("{{ 1 | late }}").render(CONTEXT) == "late"


# --- threads -----------------------------------------------------------------------------------


def test_threads_share_an_engine_and_a_template():
    """Renderings at once don't see each other's values."""
    own = TemplateEngine(limits=Limits(steps=500))
    shared = own.compile("{% for i in range(50) %}{{ item }}{% endfor %}")
    wrong: list[str] = []

    def work(number: int) -> None:
        context = TemplateContext(extra={"item": number})
        for _ in range(40):
            if shared.render(context) != str(number) * 50:
                wrong.append("shared")
            if own.compile("{{ item + 1 }}").render(context) != number + 1:
                wrong.append("own")

    at_once(*(partial(work, number) for number in range(6)))
    assert wrong == []
