"""Guards that nothing else would miss: each test here fails if one of them is taken out."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from automate_kernel import Kernel
from automate_kernel.base.errors import (
    AutomateError,
    ErrorCodes,
    LeaseLostError,
    SecretDeniedError,
    SecretNotFoundError,
    SecretUnavailableError,
    TemplateError,
)
from automate_kernel.secrets import MemorySecretsBackend, SecretRef, SecretResolver
from automate_kernel.secrets.handles import masked, reveal, secret_keys
from automate_kernel.storage import MemoryStorage
from automate_kernel.templates import Limits, TemplateContext, TemplateEngine
from automate_testing import FakeClock
from automate_kernel.triggers.webhooks import (
    HmacSignature,
    StandardWebhooksSignature,
    StripeSignature,
)

SECRET = "sk_live_9d41b7c2e0aa4f"


class Reader:
    """Reads the given secrets; one that is an error is raised."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def get(self, key: str) -> str:
        if key not in self.values:
            raise SecretNotFoundError(key)
        if isinstance(self.values[key], Exception):
            raise self.values[key]
        return self.values[key]

    async def aget(self, key: str) -> str:
        return self.get(key)


# -- signatures --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HOOK", "$secret:HOOK", "$secret:{HOOK}", SecretRef("HOOK")])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_signature_takes_every_spelling_of_a_key_and_every_kind_of_bytes(
    name: Any, kind: type
) -> None:
    """A framework may hand a body over as a bytearray or a view of its buffer."""
    scheme = HmacSignature(name, header="X-Signature")
    body = b'{"id": 1}'
    headers = scheme.sign(body, SECRET)
    assert scheme.verify(headers, kind(body), Reader(HOOK=SECRET)) is True
    assert scheme.verify(headers, kind(body + b" "), Reader(HOOK=SECRET)) is False


def test_a_backend_that_fails_is_reported_although_another_key_could_be_read() -> None:
    """Else an outage of the secrets looks like a forged request, and the sender gives up."""
    scheme = HmacSignature(("NEW", "OLD"), header="X-Signature")
    headers = scheme.sign(b"{}", SECRET)
    down = SecretUnavailableError("the backend is down")
    with pytest.raises(SecretUnavailableError):
        scheme.verify(headers, b"{}", Reader(NEW="another-value-1234", OLD=down))
    # One that was rotated away and is gone is no trouble.
    assert scheme.verify(headers, b"{}", Reader(NEW="another-value-1234")) is False


@pytest.mark.parametrize("given", [17, "", None, ["evt_1"], {"id": "evt_1"}])
def test_a_delivery_whose_id_is_no_text_goes_by_its_hash(given: Any) -> None:
    """A number as an id would be taken for another sender's text."""
    scheme = StripeSignature("HOOK")
    body = json.dumps({"id": given}).encode()
    headers = scheme.sign(body, "whsec_0123456789abcdef")
    found = scheme.delivery_id(headers, body)
    assert isinstance(found, str)
    assert len(found) > 20
    assert scheme.delivery_id(headers, body, hashed=False) is None


def test_standard_webhooks_needs_its_id_as_text() -> None:
    """Without the header there is nothing that was signed."""
    scheme = StandardWebhooksSignature("HOOK")
    value = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = scheme.sign(b"{}", value)
    assert scheme.verify(headers, b"{}", Reader(HOOK=value)) is True
    without = {name: each for name, each in headers.items() if name.lower() != "webhook-id"}
    assert scheme.verify(without, b"{}", Reader(HOOK=value)) is False


# -- secrets -----------------------------------------------------------------------------------


def test_references_are_found_and_filled_in_tuples() -> None:
    """A host may call an action from Python with a tuple."""
    tree = {"pair": ("plain", SecretRef("K"))}
    assert secret_keys(tree) == {"K"}
    assert "K" not in reveal(tree, Reader(K=SECRET))["pair"]
    assert SECRET in reveal(tree, Reader(K=SECRET))["pair"]
    assert SECRET not in str(masked(tree))


def test_a_backends_own_error_keeps_its_remedy_and_loses_what_it_shows() -> None:
    """The hint, the code and whether to try again say how to mend it."""

    class Refusing(MemorySecretsBackend):
        def get_secret(self, key: str) -> str:
            if key == "known":
                return super().get_secret(key)
            raise SecretDeniedError(
                f"token {SECRET} may not read it", hint=f"renew {SECRET} with vault login"
            )

    resolver = SecretResolver(Refusing({"known": SECRET}))
    assert resolver.get("known") == SECRET
    with pytest.raises(SecretDeniedError) as caught:
        resolver.get("other")
    assert "may not read it" in str(caught.value)
    assert "vault login" in (caught.value.hint or "")
    assert caught.value.code == ErrorCodes.PERMISSION_DENIED
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.hint}"


def test_what_cant_be_printed_is_named_by_its_type() -> None:
    """A value whose text raises must not stop the log or the store, nor vanish."""

    class Odd:
        def __str__(self) -> str:
            raise ValueError(SECRET)

    shown = SecretResolver(MemorySecretsBackend({})).redactor.redact_value({"it": Odd()})
    assert "Odd" in shown["it"]
    assert SECRET not in shown["it"]


# -- templates ---------------------------------------------------------------------------------


def rendered(text: Any, payload: Any = None, **limits: Any) -> Any:
    context = TemplateContext(event={"payload": payload}, steps={})
    return TemplateEngine(limits=Limits(**limits)).compile(text).render(context)


@pytest.mark.parametrize("sign", ["", "0 - "])
def test_numbers_with_too_many_digits_are_refused_on_both_sides_of_zero(sign: str) -> None:
    """To write a number takes the square of its digits."""
    text = f"{{{{ {sign}(9 ** event.payload) }}}}"
    assert rendered(text, 4000, bits=10**6) in (9**4000, -(9**4000))
    with pytest.raises(TemplateError, match="4,300 digits"):
        rendered(text, 4600, bits=10**6)


@pytest.mark.parametrize("text", ["{{ nothing(1) }}", "{{ event.payload.nothing['x'] }}"])
def test_what_is_missing_is_named_where_it_is_called_or_asked(text: str) -> None:
    """ "Undefined can't be called" would name nothing that an author wrote."""
    with pytest.raises(TemplateError, match="nothing"):
        rendered(text, {})


@pytest.mark.parametrize(
    "text",
    [
        "{% for x in [1, 2] %}{{ loop.changed(event.payload) }}{% endfor %}",
    ],
)
def test_a_call_on_a_large_value_is_refused_before_it_runs(text: str) -> None:
    """Its price is known from the sizes, and no budget of steps sees inside a call."""
    large = [str(n) for n in range(50_000)]
    with pytest.raises(TemplateError, match="too long on values of this size"):
        rendered(text, large, call_seconds=1e-4)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("{{ event.payload.split(',')|length }}", False),
        ("{{ event.payload.split(',', 2)|length }}", True),
        ("{{ event.payload.split('')|length }}", False),
        ("{{ event.payload.split()|length }}", False),
    ],
)
def test_splitting_costs_by_its_pieces(text: str, fits: bool) -> None:
    """Many pieces are many objects; a maximum bounds them."""
    call = lambda: rendered(text, "a," * 20_000, call_seconds=8e-4)  # noqa: E731
    if fits:
        assert call() == 3
    else:
        with pytest.raises(TemplateError):
            call()


def test_the_filter_that_map_applies_is_checked_when_the_text_is_read() -> None:
    """A misspelt one shows before anything runs, and none is chosen by data."""
    engine = TemplateEngine()
    with pytest.raises(TemplateError, match="no filter 'uper'"):
        engine.compile("{{ event.payload|map('uper')|list }}")
    with pytest.raises(TemplateError, match="as literal text"):
        engine.compile("{{ event.payload|map(event.name)|list }}")
    with pytest.raises(TemplateError, match="as literal text"):
        engine.compile("{{ event.payload|map(1)|list }}")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("index", [1, 2]),
        ("index0", [0, 1]),
        ("revindex", [2, 1]),
        ("revindex0", [1, 0]),
        ("first", [True, False]),
        ("last", [False, True]),
        ("length", [2, 2]),
        ("depth", [1, 1]),
        ("depth0", [0, 0]),
        ("nextitem|default('-')", ["b", "-"]),
        ("previtem|default('-')", ["-", "a"]),
        ("cycle('x', 'y')", ["x", "y"]),
        ("changed(7)", [True, False]),
    ],
)
def test_all_that_a_loop_says_of_itself_can_be_read(name: str, found: list[Any]) -> None:
    """As Jinja's own documentation lists it."""
    text = f"{{% for x in event.payload %}}{{{{ loop.{name} }}}},{{% endfor %}}"
    assert rendered(text, ["a", "b"]) == "".join(f"{each}," for each in found)


@pytest.mark.parametrize(
    "method",
    [
        "capitalize()", "casefold()", "lower()", "swapcase()", "title()", "upper()",
        "isalnum()", "isalpha()", "isdecimal()", "isdigit()", "islower()", "isnumeric()",
        "isspace()", "istitle()", "isupper()", "endswith('c')", "removeprefix('a')",
        "removesuffix('c')", "startswith('a')", "count('B')", "find('B')", "index('B')",
        "partition('B')|list", "split('B')", "splitlines()", "join(['1', '2'])", "lstrip()",
        "replace('a', 'x')", "rfind('B')", "rindex('B')", "rpartition('B')|list", "rsplit('B')",
        "rstrip()", "strip()", "format()",
    ],
)  # fmt: skip
def test_the_methods_of_text_are_pythons(method: str) -> None:
    """Each is there, and some are our own only because Python's are too slow."""
    expected = eval(f"' aBc '.{method}".replace("|list", ""))  # noqa: S307 - Python's own answer
    given = rendered(f"{{{{ event.payload.{method} }}}}", " aBc ")
    assert given == (list(expected) if isinstance(expected, tuple) else expected)


def test_the_views_of_a_mapping_are_weighed() -> None:
    """As lists they are as large as what they come from."""
    large = {f"{n:04}": "x" * 50 for n in range(200)}
    for view in ("keys()", "values()", "items()"):
        assert len(rendered(f"{{{{ event.payload.{view}|list }}}}", large)) == 200
        with pytest.raises(TemplateError):
            rendered(f"{{{{ event.payload.{view}|list }}}}", large, output=500)


# -- leases ------------------------------------------------------------------------------------


def test_a_lease_is_renewed_by_who_holds_it_and_by_nobody_else() -> None:
    """In a handler's own transaction it proves that the item is still this worker's."""
    kernel = Kernel()
    kernel.outbox.enqueue("mail.send")
    (item,) = kernel.outbox.claim_batch("mine")
    kernel.outbox.renew(item.id, "mine")
    kernel.outbox.renew(item.id, "mine", token=item.lease_token)
    for worker, token in (("other", None), ("mine", "another-claim"), ("other", "another-claim")):
        with pytest.raises(LeaseLostError):
            kernel.outbox.renew(item.id, worker, token=token)
    kernel.outbox.mark_success(item.id, "mine")
    with pytest.raises(LeaseLostError):
        kernel.outbox.renew(item.id, "mine")


def test_a_sweep_goes_by_the_time_that_it_is_given() -> None:
    """What is given counts before the store's own setting, 0 too."""
    kernel = Kernel(retention_seconds=10_000.0)
    kernel.handler("mail.send")(lambda item: None)
    kernel.outbox.enqueue("mail.send")
    kernel.run_until_idle()
    assert kernel.outbox.sweep() == 0
    assert kernel.outbox.sweep(retention_seconds=0) == 1


def test_a_rate_says_when_the_next_item_may_start() -> None:
    """A worker sleeps until then, and not for ever and not in a busy loop."""
    kernel = Kernel()
    outbox = kernel.outbox
    outbox.limit("sms.send", rate=1, per_seconds=600, burst=1)
    for number in range(3):
        outbox.enqueue("sms.send", number)
    assert len(outbox.claim_batch("w")) == 1
    assert outbox.claim_batch("w") == []
    due = outbox.next_due_seconds()
    assert due is not None
    assert 590 < due <= 600


# -- workflows ---------------------------------------------------------------------------------


def test_an_execution_whose_definition_is_gone_says_so() -> None:
    """Somebody deleted the row by hand: data is lost, and nothing is guessed."""
    kernel = Kernel()
    kernel.action("note.it")(lambda: None)
    steps = [{"id": "note", "action": "note.it"}]
    kernel.add_workflow({"name": "n", "trigger": {"type": "manual"}, "steps": steps})
    with pytest.raises(AutomateError) as caught:
        kernel.executions.definition("0" * 64)
    assert caught.value.code == ErrorCodes.DATA_LOSS
    assert "missing" in str(caught.value)


def test_an_execution_is_dated_by_each_save() -> None:
    """A page that is sorted by its last change shows what moves."""
    clock = FakeClock()
    kernel = Kernel(MemoryStorage(clock=clock))

    @kernel.action("note.it")
    def note() -> None:
        clock.advance(10)

    steps = [{"id": "a", "action": "note.it"}, {"id": "b", "action": "note.it"}]
    kernel.add_workflow({"name": "two", "trigger": {"type": "manual"}, "steps": steps})
    started = clock()
    execution = kernel.run("two")
    assert execution.updated_at >= started + timedelta(seconds=20)
    assert execution.completed_at is not None
    assert kernel.outbox.find()[0].priority == 0
