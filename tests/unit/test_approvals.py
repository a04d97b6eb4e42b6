"""Approvals: who may decide, what a decision leaves behind, and the links that decide."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from approvals_asked import ask
from hypothesis import strategies as st

from automate_kernel import Kernel
from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    PayloadError,
    WorkflowError,
)
from automate_kernel.http.app import webhook_app
from automate_kernel.monitoring.diagnosis import places_of_links, secret_uses, workflow_problems
from automate_kernel.outbox.item import new_id
from automate_kernel.secrets.signing import Signer
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.query import Where
from automate_kernel.storage.rows import queries
from automate_kernel.storage.tables import APPROVER, WAIT
from automate_testing.clock import FakeClock
from automate_kernel.workflows.definition.approval import Approval, FormField, read_form
from automate_kernel.workflows.definition.loader import loads
from automate_kernel.workflows.definition.model import workflow_json_schema

KEY, OTHER_KEY = "first-key-of-thirty-two-characters", "other-key-of-thirty-two-characters"
URL = "https://shop.example/automate"
FORM = [
    {"name": "amount", "type": "integer", "required": True, "minimum": 1, "maximum": 100},
    {"name": "reason", "max_length": 20},
]


@pytest.fixture
def kernel(clock: FakeClock) -> Iterator[Kernel]:
    with Kernel(
        MemoryStorage(clock), signing_keys=[KEY], public_url=URL, secrets={"PIN": "pin-8812-secret"},
        discover=False,
    ) as kernel:  # fmt: skip
        yield kernel


def sent(kernel: Kernel) -> list[dict[str, Any]]:
    """The decisions that were sent as signals."""
    items = kernel.outbox.find(kind="automate.signal")
    return [item.payload["event"]["payload"] for item in items]


def refused(code: ErrorCodes, call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(AutomateError) as caught:
        call(*args, **options)
    assert caught.value.code is code
    return str(caught.value)


# -- decisions -----------------------------------------------------------------------------------


def test_a_decision_is_sent_once_with_all_that_was_given(kernel: Kernel) -> None:
    """The signal that wakes the execution has the person, the comment and the form."""
    execution_id = ask(kernel, by=["ann"], form=FORM)
    kernel.approvals.approve(execution_id, "ok", by="ann", comment="fine", form={"amount": "12"})
    (decision,) = sent(kernel)
    at = decision.pop("at")
    assert at.endswith("+00:00")
    assert decision == {
        "approved": True,
        "by": "ann",
        "comment": "fine",
        "form": {"amount": 12, "reason": None},
        "timed_out": False,
    }


def test_the_second_decision_loses_and_learns_who_was_first(kernel: Kernel) -> None:
    """Whatever it says, nothing of it is kept."""
    execution_id = ask(kernel)
    kernel.approvals.reject(execution_id, "ok", by="ann")
    text = refused(
        ErrorCodes.FAILED_PRECONDITION, kernel.approvals.approve, execution_id, "ok", by="bob"
    )
    assert "already decided by ann" in text
    assert [decision["approved"] for decision in sent(kernel)] == [False]


@pytest.mark.parametrize(
    ("allowed", "by", "roles", "may"),
    [
        ([], "anybody", (), True),
        (["ann"], "ann", (), True),
        (["ann"], "Ann", (), False),
        (["ann"], "bob", (), False),
        (["role:managers"], "bob", ("managers",), True),
        (["role:managers"], "bob", ("clerks",), False),
        (["role:managers"], "managers", (), False),
        # A user who is called like a role is not in it.
        (["role:managers"], "role:managers", (), False),
        (["ann"], "bob", ("ann",), False),
    ],
)
def test_only_those_who_are_named_may_decide(
    kernel: Kernel, allowed: list[str], by: str, roles: tuple[str, ...], may: bool
) -> None:
    """By their name or a role; the error says who may."""
    execution_id = ask(kernel, by=allowed)
    shown = kernel.approvals.pending(by=by, roles=roles).approvals
    assert bool(shown) is may
    if may:
        kernel.approvals.approve(execution_id, "ok", by=by, roles=roles)
        return
    text = refused(
        ErrorCodes.PERMISSION_DENIED, kernel.approvals.approve, execution_id, "ok", by=by,
        roles=roles,
    )  # fmt: skip
    assert allowed[0] in text
    assert sent(kernel) == []


def test_a_list_for_roles_has_what_they_may_decide_alone(kernel: Kernel) -> None:
    """Whether or not a person is named beside them; without both it has all."""
    for allowed in (["role:managers"], ["role:clerks"], ["ann"], []):
        ask(kernel, by=allowed)

    def listed(**options: Any) -> list[list[str]]:
        return sorted(list(each.by) for each in kernel.approvals.pending(**options).approvals)

    assert listed(roles=["managers"]) == [[], ["role:managers"]]
    assert listed(roles=["managers", "clerks"]) == [[], ["role:clerks"], ["role:managers"]]
    assert listed(roles=["strangers"]) == [[]]
    assert listed(by="ann") == [[], ["ann"]]
    assert listed(by="ann", roles=["clerks"]) == [[], ["ann"], ["role:clerks"]]
    assert len(listed()) == 4


def test_another_tenant_s_approval_is_not_there(kernel: Kernel) -> None:
    """Neither in the list nor by its id."""
    execution_id, approvals = ask(kernel, tenant="acme"), kernel.approvals
    assert approvals.pending(tenant_id="other").approvals == []
    assert approvals.get(execution_id, "ok", tenant_id="other") is None
    for decide in (approvals.approve, approvals.reject):
        refused(ErrorCodes.NOT_FOUND, decide, execution_id, "ok", by="ann", tenant_id="other")
    refused(ErrorCodes.NOT_FOUND, approvals.link, execution_id, "ok", by="a", tenant_id="other")
    assert [each.tenant_id for each in approvals.pending(tenant_id="acme").approvals] == ["acme"]
    approvals.approve(execution_id, "ok", by="ann", tenant_id="acme")
    assert [item.tenant_id for item in kernel.outbox.find()] == ["acme"]


@pytest.mark.parametrize("execution_id", ["", "nonsense", "\0", str(UUID(int=7))])
def test_what_is_not_there_is_not_found(kernel: Kernel, execution_id: str) -> None:
    """Also an id that no database could look up."""
    assert kernel.approvals.get(execution_id, "ok") is None
    refused(ErrorCodes.NOT_FOUND, kernel.approvals.approve, execution_id, "ok", by="ann")


@pytest.mark.parametrize(
    ("step", "asked"),
    [
        ({"for_each": [1, 2], "concurrency": 2}, "ok at position 0, ok at position 1"),
        ({"until": "{{ output.approved }}"}, "ok at position 0"),
    ],
)
@pytest.mark.parametrize("block", [None, {"for_each": [1]}, {}])
def test_a_decision_that_says_no_element_is_told_which_wait(
    kernel: Kernel, step: dict[str, Any], asked: str, block: dict[str, Any] | None
) -> None:
    """It is not too late: the question is another one. Other tenants are told nothing."""
    asking: dict[str, Any] = {"id": "ok", "approval": {"title": "Go?"}, **step}
    if block is not None:
        path = "all[0].ok" if block else "all.ok"
        asking, asked = {"id": "all", "steps": [asking], **block}, asked.replace("ok", path)
    kernel.add_workflow({"name": "each", "trigger": {"type": "manual"}, "steps": [asking]})
    execution_id = kernel.start("each", tenant_id="acme")
    kernel.run_until_idle()
    for decide in (kernel.approvals.approve, kernel.approvals.reject, kernel.approvals.link):
        said = refused(ErrorCodes.NOT_FOUND, decide, execution_id, "ok", by="ann")
        assert f"name one that waits: {asked})" in said
        said = refused(
            ErrorCodes.NOT_FOUND, decide, execution_id, "ok", by="ann", tenant_id="other"
        )
        assert "waits:" not in said


def test_it_is_too_late_after_the_timeout(kernel: Kernel, clock: FakeClock) -> None:
    """The database's clock decides, even if no worker has noticed yet."""
    execution_id = ask(kernel, seconds=60)
    clock.advance(61)
    assert kernel.approvals.pending().approvals == []
    refused(ErrorCodes.FAILED_PRECONDITION, kernel.approvals.approve, execution_id, "ok", by="ann")


def test_the_form_is_checked_and_its_errors_name_the_fields(kernel: Kernel) -> None:
    """Nothing is decided by a form that is not right."""
    execution_id = ask(kernel, form=FORM)
    with pytest.raises(AutomateError) as caught:
        kernel.approvals.approve(
            execution_id, "ok", by="ann", form={"amount": 101, "reason": "x" * 21, "more": 1}
        )
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    assert caught.value.details["fields"] == {
        "amount": "must be at most 100",
        "reason": "must not be longer than 20 characters",
        "more": "is no field of this form",
    }
    refused(ErrorCodes.INVALID_ARGUMENT, kernel.approvals.approve, execution_id, "ok", by="ann")
    # Who rejects owes no numbers.
    kernel.approvals.reject(execution_id, "ok", by="ann")
    assert [decision["form"] for decision in sent(kernel)] == [{"amount": None, "reason": None}]


@pytest.mark.parametrize("kind", ["integer", "number"])
@pytest.mark.parametrize("given", ["1_000", True, "\N{ARABIC-INDIC DIGIT ONE}", "0x10", "1 000"])
def test_a_number_is_written_in_the_one_usual_way(kernel: Kernel, kind: str, given: Any) -> None:
    """On the page, in the API and on the command line: nobody meant a sum that was guessed."""
    execution_id = ask(kernel, form=[{"name": "amount", "type": kind}])
    refused(
        ErrorCodes.INVALID_ARGUMENT, kernel.approvals.approve, execution_id, "ok", by="ann",
        form={"amount": given},
    )  # fmt: skip
    kernel.approvals.approve(execution_id, "ok", by="ann", form={"amount": " +12.0 "})
    assert sent(kernel)[0]["form"] == {"amount": 12}


def test_sizes_are_bounded_before_anything_is_written(kernel: Kernel) -> None:
    """Of a comment, a name and a form."""
    execution_id = ask(kernel, form=FORM)
    approve = kernel.approvals.approve
    for options in (
        {"by": "a" * 201},
        {"by": ""},
        {"by": "ann", "comment": "x" * 5_001},
        {"by": "ann", "comment": "a\0b", "form": {"amount": 1}},
        {"by": "ann", "form": {f"f{n}": "x" for n in range(100_000)}},
        {"by": "ann", "form": "x"},
    ):
        with pytest.raises(AutomateError) as caught:
            approve(execution_id, "ok", **options)
        assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
        assert len(str(caught.value)) < 4_000
    assert sent(kernel) == []
    assert len(kernel.approvals.pending().approvals) == 1


def test_a_secret_that_somebody_types_is_not_kept(kernel: Kernel) -> None:
    """Neither in the signal nor in the wait's row."""
    assert kernel.secrets.get("PIN")
    execution_id = ask(kernel, form=[{"name": "note"}])
    kernel.approvals.approve(
        execution_id, "ok", by="ann", comment="pin-8812-secret", form={"note": "pin-8812-secret"}
    )
    with kernel.storage.begin(atomic=False) as rows:
        kept = json.dumps([rows.select(WAIT)[0]["details"], sent(kernel)])
    assert "8812" not in kept


def test_the_list_goes_page_by_page(kernel: Kernel) -> None:
    """The oldest first; each is listed once, also where most are others'."""
    mine = [ask(kernel, by=["ann" if n % 7 == 0 else "bob"]) for n in range(40)][::7]
    found: list[str] = []
    page = kernel.approvals.pending(by="ann", limit=4)
    while True:
        assert len(page.approvals) <= 4
        found += [each.execution_id for each in page.approvals]
        if not page.after:
            break
        page = kernel.approvals.pending(by="ann", limit=4, after=page.after)
    assert found == mine
    assert kernel.approvals.pending(workflow="other").approvals == []


def test_an_inbox_reads_its_own_rows(kernel: Kernel) -> None:
    """Hundreds of others' cost it nothing, decided ones leave, and what is over is cleared away."""
    for _ in range(300):
        ask(kernel, by=["bob", "role:clerks"])
    first, second = (ask(kernel, by=["ann", "role:managers"], tenant="t") for _ in range(2))
    before = queries.count
    assert kernel.approvals.pending(by="stranger", roles=["none"]).approvals == []
    assert queries.count <= before + 3
    asked = kernel.approvals.pending(by="ann", roles=["managers"], tenant_id="t").approvals
    assert [each.execution_id for each in asked] == [first, second]
    assert kernel.approvals.pending(by="ann", tenant_id="other").approvals == []
    kernel.approvals.approve(first, "ok", by="ann")
    kernel.executions.cancel(second)
    assert kernel.approvals.pending(by="ann").approvals == []
    with kernel.storage.begin() as rows:
        counted = rows.count(APPROVER, (), [Where("tenant_id", "eq", "t")])
        assert counted[0]["n"] == 2
    kernel.executions.signals.purge()
    with kernel.storage.begin() as rows:
        assert rows.count(APPROVER)[0]["n"] == 600


# -- links ---------------------------------------------------------------------------------------


def token_of(link: str) -> str:
    assert link.startswith(f"{URL}/approvals/")
    return link.rpartition("/")[2]


def test_a_link_works_once(kernel: Kernel) -> None:
    """And it knows who decides by it."""
    execution_id = ask(kernel, by=["ann", "role:managers"])
    approvals = kernel.approvals
    links = [approvals.link(execution_id, "ok", by=by) for by in ("ann", "role:managers")]
    approvals.decide_by_token(token_of(links[1]), approved=True)
    assert [decision["by"] for decision in sent(kernel)] == ["role:managers"]
    for link in links:
        refused(ErrorCodes.NOT_FOUND, approvals.by_token, token_of(link))
        refused(ErrorCodes.NOT_FOUND, approvals.decide_by_token, token_of(link), approved=False)


def test_nobody_gets_a_link_who_may_not_decide(kernel: Kernel) -> None:
    """A role's link is for an approval that names the role."""
    execution_id = ask(kernel, by=["ann", "role:managers"])
    for by in ("bob", "role:clerks", "managers"):
        refused(ErrorCodes.PERMISSION_DENIED, kernel.approvals.link, execution_id, "ok", by=by)
    kernel.approvals.link(execution_id, "ok", by="bob", roles=["managers"])


def test_a_link_for_one_decision_can_t_make_the_other(kernel: Kernel) -> None:
    """Also if the other button is sent by hand."""
    execution_id = ask(kernel)
    token = kernel.approvals.token(execution_id, "ok", by="ann", decision="reject")
    refused(ErrorCodes.PERMISSION_DENIED, kernel.approvals.decide_by_token, token, approved=True)
    kernel.approvals.decide_by_token(token, approved=False)


def test_bad_links_of_every_kind_are_answered_alike(kernel: Kernel, clock: FakeClock) -> None:
    """Who tries links learns nothing from the answers."""
    execution_id = ask(kernel, seconds=60)
    good = kernel.approvals.token(execution_id, "ok", by="ann")
    body, _, signature = good.partition(".")
    payload = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed = base64.urlsafe_b64encode(json.dumps({**payload, "by": "eve"}).encode()).decode()
    other = Kernel(kernel.storage, signing_keys=[OTHER_KEY], discover=False)
    forged = [
        "", ".", "x", "x.y", body, f"{body}.", f".{signature}", f"{changed.rstrip('=')}.{signature}",
        f"{body}.{'A' * 43}", f"{body}={'.'}{signature}", f"{good}A", f"{good[:-1]}", "a" * 100_000,
        other.approvals.token(execution_id, "ok", by="ann"),
        Signer([KEY], "something else").sign(payload),
        Signer([KEY], "automate.approval").sign({**payload, "tenant": "acme"}),
        Signer([KEY], "automate.approval").sign({**payload, "asked": "another time"}),
        Signer([KEY], "automate.approval").sign({**payload, "execution": new_id()}),
    ]  # fmt: skip
    assert kernel.approvals.by_token(good).by == "ann"
    answers = {refused(ErrorCodes.NOT_FOUND, kernel.approvals.by_token, each) for each in forged}
    clock.advance(61)
    answers.add(refused(ErrorCodes.NOT_FOUND, kernel.approvals.by_token, good))
    assert len(answers) == 1


def test_a_link_without_a_timeout_ends_after_thirty_days(kernel: Kernel, clock: FakeClock) -> None:
    """The approval itself stays open."""
    execution_id = ask(kernel)
    token = kernel.approvals.token(execution_id, "ok", by="ann")
    clock.advance(30 * 86_400 + 1)
    refused(ErrorCodes.NOT_FOUND, kernel.approvals.by_token, token)
    kernel.approvals.approve(execution_id, "ok", by="ann")


def test_keys_are_rotated_without_breaking_links(kernel: Kernel) -> None:
    """The first key signs, and all verify; they may be secrets."""
    execution_id = ask(kernel)
    old = kernel.approvals.token(execution_id, "ok", by="ann")
    keys = ["$secret:NEW", KEY]
    rotated = Kernel(kernel.storage, signing_keys=keys, secrets={"NEW": OTHER_KEY}, discover=False)
    assert rotated.approvals.by_token(old).by == "ann"
    new = rotated.approvals.token(execution_id, "ok", by="ann")
    refused(ErrorCodes.NOT_FOUND, kernel.approvals.by_token, new)
    assert OTHER_KEY not in rotated.redactor.redact(f"the key is {OTHER_KEY}")


def test_keys_and_addresses_that_are_missing_are_said_so(kernel: Kernel) -> None:
    """With the remedy, and never with the key itself."""
    execution_id = ask(kernel)
    plain = Kernel(kernel.storage, discover=False)
    with pytest.raises(ConfigError, match="public_url"):
        plain.approvals.link(execution_id, "ok", by="ann")
    with pytest.raises(ConfigError, match="signing_keys"):
        plain.approvals.link(execution_id, "ok", by="ann", base_url=URL)
    with pytest.raises(ConfigError, match="32") as caught:
        Kernel(signing_keys=["short-key"], discover=False)
    assert "short-key" not in str(caught.value)
    with pytest.raises(ConfigError, match="list"):
        Kernel(signing_keys=KEY, discover=False)
    short = Kernel(
        kernel.storage, signing_keys=["$secret:K"], secrets={"K": "weak-one"}, discover=False
    )
    with pytest.raises(ConfigError, match="32"):
        short.approvals.token(execution_id, "ok", by="ann")


@given(
    st.dictionaries(st.text(max_size=8), st.text(max_size=8) | st.integers() | st.none()),
    st.data(),
)
def test_a_token_comes_back_equal_or_not_at_all(payload: dict[str, Any], data: Any) -> None:
    """Any change of one character makes it worthless."""
    signer = Signer([KEY], "test")
    token = signer.sign(payload)
    assert signer.read(token) == payload
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("AZaz09-_.=") | st.characters())
    changed = token[:place] + other + token[place + 1 :]
    assert signer.read(changed) == (payload if changed == token else None)


# -- the page ------------------------------------------------------------------------------------

FORM_TYPE = {"Content-Type": "application/x-www-form-urlencoded"}


def call(kernel: Kernel, method: str, token: str, **options: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(webhook_app(kernel))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, f"/approvals/{token}", **options)

    return asyncio.run(send())


def test_the_page_shows_the_question_and_decides_nothing(kernel: Kernel) -> None:
    """Mail scanners follow links; nobody keeps, frames or passes on the page."""
    execution_id = ask(kernel, description="Order 4711", form=FORM)
    token = kernel.approvals.token(execution_id, "ok", by="ann")
    for method in ("GET", "HEAD", "GET"):
        response = call(kernel, method, token)
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    for text in ("Pay it back?", "Order 4711", "refund", "ann", 'name="form.amount"', "max="):
        assert text in response.text
    assert "<script" not in response.text
    assert sent(kernel) == []


def test_the_style_is_the_one_that_the_policy_allows(kernel: Kernel) -> None:
    """Or the page would be bare."""
    import hashlib

    token = kernel.approvals.token(ask(kernel), "ok", by="ann")
    response = call(kernel, "GET", token)
    style = response.text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in response.headers["content-security-policy"]


def test_a_form_that_is_sent_decides(kernel: Kernel) -> None:
    """The link is used up by it."""
    execution_id = ask(kernel, form=[*FORM, {"name": "mail", "type": "boolean"}])
    token = kernel.approvals.token(execution_id, "ok", by="ann")
    answer = {
        "decision": "approve", "comment": "two\r\nlines", "form.amount": "3", "form.reason": "",
        "form.mail": ["false", "true"],
    }  # fmt: skip
    response = call(kernel, "POST", token, data=answer)
    assert response.status_code == 200
    assert "Approved" in response.text
    (decision,) = sent(kernel)
    assert decision["form"] == {"amount": 3, "reason": "", "mail": True}
    assert decision["comment"] == "two\nlines"
    gone = [call(kernel, method, token, data=answer) for method in ("GET", "POST")]
    forged = call(kernel, "GET", "x.y")
    assert [each.status_code for each in gone] == [410, 410]
    assert gone[0].text == gone[1].text == forged.text
    assert len(sent(kernel)) == 1


def test_wrong_answers_are_shown_beside_their_fields(kernel: Kernel) -> None:
    """What was filled in stays, and nothing is decided."""
    token = kernel.approvals.token(ask(kernel, form=FORM), "ok", by="ann")
    answer = {"decision": "approve", "comment": "mine", "form.amount": "many", "form.reason": "r"}
    response = call(kernel, "POST", token, data=answer)
    assert response.status_code == 422
    assert "Amount must be a whole number." in response.text
    assert 'aria-invalid="true"' in response.text
    assert ">\nmine</textarea>" in response.text
    for answer in (
        {"comment": ""},
        {"decision": "maybe"},
        {"decision": "approve", "comment": "x" * 5001},
    ):
        assert call(kernel, "POST", token, data=answer).status_code == 422
    assert sent(kernel) == []


def test_nothing_that_people_write_becomes_html(kernel: Kernel) -> None:
    """Neither titles, labels, choices, names nor what was filled in."""
    evil = '"><script>alert(1)</script>'
    form = [
        {"name": "a", "label": evil, "help": evil},
        {"name": "b", "type": "choice", "choices": [evil, "x"], "default": evil},
        {"name": "c", "type": "integer"},
    ]
    execution_id = ask(kernel, title=evil, description=evil, by=[evil], form=form)
    token = kernel.approvals.token(execution_id, "ok", by=evil)
    answer = {"decision": "approve", "comment": evil, "form.a": evil, "form.c": evil}
    pages = [call(kernel, "GET", token), call(kernel, "POST", token, data=answer)]
    answer["form.c"] = "1"
    pages.append(call(kernel, "POST", token, data=answer))
    assert [page.status_code for page in pages] == [200, 422, 200]
    for page in pages:
        assert "&lt;script&gt;" in page.text
        assert "<script" not in page.text
        assert '"">' not in page.text


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b'{"decision": "approve"}', {"Content-Type": "application/json"}, 415),
        (b"decision=approve", {}, 415),
        (b"decision=approve&x=\xff", FORM_TYPE, 400),
        (b"&".join(b"form.a=1" for _ in range(1_000)), FORM_TYPE, 400),
        (b"x" * 1_000_001, FORM_TYPE, 413),
    ],
)
def test_other_bodies_are_refused(
    kernel: Kernel, content: bytes, headers: Mapping[str, str], status: int
) -> None:
    """By their type and their size."""
    token = kernel.approvals.token(ask(kernel), "ok", by="ann")
    assert call(kernel, "POST", token, content=content, headers=headers).status_code == status
    assert sent(kernel) == []


def test_without_a_key_there_is_no_page(clock: FakeClock) -> None:
    """A host that uses no links answers none."""
    kernel = Kernel(MemoryStorage(clock), discover=False)
    assert call(kernel, "GET", "x.y").status_code == 404


def test_a_key_that_can_t_be_read_is_no_stranger_s_business(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what is wrong, without the token."""
    kernel = Kernel(
        MemoryStorage(clock), signing_keys=["$secret:MISSING"], secrets={}, discover=False
    )
    token = Signer([KEY], "automate.approval").sign({"a": 1})
    response = call(kernel, "GET", token)
    assert response.status_code == 500
    assert "MISSING" not in response.text
    assert "MISSING" in caplog.text
    assert token not in caplog.text


# -- definitions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"by": ["ann", 3]}, "by must name people"),
        ({"by": ["ann", ""]}, "by must name people"),
        ({"on_timeout": "continue"}, "on_timeout means nothing without timeout"),
        ({"form": [{"name": "a"}, {"name": "a"}]}, "two fields are called 'a'"),
        ({"form": [{"name": "a", "type": "choice"}]}, "a choice has choices"),
        ({"form": [{"name": "a", "choices": ["x"]}]}, "choices mean nothing for text"),
        ({"form": [{"name": "a", "type": "date", "max_length": 3}]}, "max_length is for text"),
        ({"form": [{"name": "a", "minimum": 3}]}, "for numbers"),
        (
            {"form": [{"name": "a", "type": "integer", "default": "x"}]},
            "its default must be a whole",
        ),
    ],
)
def test_a_definition_that_can_t_be_meant_is_refused(changed: dict[str, Any], problem: str) -> None:
    """With words for its author."""
    with pytest.raises(ValueError, match=re.escape(problem)):
        Approval.model_validate({"title": "Pay?", **changed})


def test_mistakes_in_a_file_have_their_lines_and_remedies() -> None:
    """In the approval, in a field of its form, and in its templates."""
    text = """
        name: w
        trigger: {type: manual}
        steps:
          - id: ok
            timeout: 3h
            approval: {title: "?"}
          - id: no
            approval:
              title: "{{ steps.gone.output }}"
              approvers: [ann]
              form:
                - {name: size, kind: text}
              notify: {action: mail.send, input: {to: "{{ steps.no.output }}"}, when: now}
          - id: both
            action: x.y
            approval: {title: "?"}
        """
    with pytest.raises(WorkflowError) as caught:
        loads(textwrap.dedent(text), "yaml", source="w")
    assert [line.strip() for line in caught.value.message.splitlines()[1:]] == [
        "w:5: steps.ok: timeout means nothing with approval (write timeout inside approval)",
        "w:11: steps.no.approval.approvers: there is no such field (here it is called 'by')",
        "w:13: steps.no.approval.form[0].kind: there is no such field (the fields are name, type,"
        " label, help, required, default, choices, max_length, minimum, maximum)",
        "w:14: steps.no.approval.notify.when: there is no such field (the fields are action, input, once)",
        "w:15: steps.both: a step does one thing, not action and approval (make a step of each)",
    ]
    fine = text.replace("timeout: 3h", "name: Ask").replace("approvers", "by")
    fine = fine.replace("kind: text", "type: text").replace(", when: now", "")
    fine = fine.replace("action: x.y", "name: Both")
    with pytest.raises(WorkflowError) as caught:
        loads(textwrap.dedent(fine), "yaml", source="w")
    assert [line.strip() for line in caught.value.message.splitlines()[1:]] == [
        "w:10: steps.no.approval.title: names the step 'gone', which does not exist (there is"
        " 'ok', 'no', 'both')",
        "w:14: steps.no.approval.notify.input.to: a step can't see its own output (name an"
        " earlier step)",
    ]


@pytest.mark.parametrize(
    ("text", "by", "refused"),
    [
        ("{{ approval.link }}", ["ann"], "approval.link"),
        (
            "go to {{ approval['reject_link'] }}",
            "{{ event.payload.people }}",
            "approval.reject_link",
        ),
        # These can be rendered.
        ("{{ approval }} {{ approval.title }}", ["ann"], None),
        ("{{ approval.link | default('the office') }}", ["ann"], None),
        ("{{ approval.link }}", [], None),
        ("{{ approval.link }}", None, None),
    ],
)
def test_a_link_in_a_notice_for_all_of_several_people_is_refused(
    text: str, by: Any, refused: str | None
) -> None:
    """A link decides in the name of one. It would fail when it is sent."""
    notify = {"action": "mail.send", "input": {"text": text}, "once": by is not None}
    approval = {"title": "?", "by": by or ["ann"], "notify": notify}
    if by == []:
        del approval["by"]
    steps = [{"id": "ok", "approval": approval}]
    definition = {"name": "w", "trigger": {"type": "manual"}, "steps": steps}
    if refused is None:
        assert loads(json.dumps(definition), "json").name == "w"
        return
    with pytest.raises(WorkflowError, match=r"with once: true the call is for all of by") as caught:
        loads(json.dumps(definition), "json")
    assert refused in str(caught.value)


@pytest.mark.parametrize(
    ("given", "reads"),
    [
        ({"text": "{{ approval.link }}"}, True),
        ({"text": "see {{\napproval\n.reject_link }}"}, True),
        ({"text": "{% set it = approval %}{{ it.link }}"}, True),
        ({"text": "{{ (approval).link }}"}, True),
        ({"text": "{{ approval['li' ~ 'nk'] }}"}, True),
        ({"text": "{{ [approval] | map(attribute='link') | first }}"}, True),
        ({"text": "{% for name in approval %}{{ approval[name] }}{% endfor %}"}, True),
        ({"rows": [{"{{ approval.approve_link }}": 1}]}, True),
        ({"text": "{{ approval.get('link') }}"}, True),
        ({"text": "{{ approval['title'] }} {{ approval.to }} {{ approval.expires_at }}"}, False),
        ({"text": "for approval.link see {{ event.payload.approval.link }}"}, False),
        ({}, False),
    ],
)
def test_a_notice_that_needs_links_is_known_before_anybody_is_asked(
    given: dict[str, Any], reads: bool
) -> None:
    """Else `doctor` and Django's checks are green, and the notice fails when somebody waits."""
    kernel = Kernel(discover=False)
    kernel.action("tell")(lambda **given: None)
    ask = {"title": "?", "notify": {"action": "tell", "input": given}}
    (workflow,) = kernel.add_workflow(
        {"name": "w", "trigger": {"type": "manual"}, "steps": [{"id": "a", "approval": ask}]}
    )
    assert bool(places_of_links(kernel, workflow)) is reads


def test_the_schema_of_definitions_has_approvals() -> None:
    """For editors and for other languages."""
    schema = workflow_json_schema()
    approval = schema["$defs"]["Approval"]
    assert approval["required"] == ["title"]
    assert all("description" in each for each in approval["properties"].values())
    assert all(
        "description" in each for each in schema["$defs"]["FormField"]["properties"].values()
    )


def test_a_definition_comes_back_equal_from_its_json() -> None:
    """As it is stored with an execution."""
    given = {
        "title": "Pay?", "by": ["ann", "role:x"], "timeout": "2d", "on_timeout": "reject",
        "form": [{"name": "size", "type": "choice", "choices": ["s", "m"], "default": "m"}],
        "notify": {"action": "mail.send", "input": {"to": "{{ approval.to }}"}},
    }  # fmt: skip
    approval = Approval.model_validate(given)
    stored = approval.model_dump(mode="json", exclude_defaults=True)
    assert stored == given
    assert Approval.model_validate(stored) == approval


def test_a_rejection_and_a_timeout_end_the_step_as_its_author_chose() -> None:
    """They fail it, or leave an output to decide by."""
    no = {"approved": False, "by": "ann", "comment": "too much", "form": {}, "at": "t"}
    no["timed_out"] = False
    assert Approval(title="?", on_reject="continue").answered(no) == no
    text = refused(ErrorCodes.FAILED_PRECONDITION, Approval(title="?").answered, no)
    assert text == "rejected by ann: too much"
    late = Approval(title="?", timeout="1h")
    assert "within 1h" in refused(ErrorCodes.DEADLINE_EXCEEDED, late.timed_out)
    for word, approved in (("continue", False), ("approve", True)):
        output = Approval(title="?", timeout="1h", on_timeout=word).timed_out()
        assert (output["approved"], output["timed_out"], output["by"]) == (approved, True, None)
    form = [
        FormField(name="amount", type="integer", default=3),
        FormField(name="reason", required=True),
    ]
    for word in ("continue", "approve"):
        left = Approval(title="?", timeout="1h", on_timeout=word, form=form).timed_out()
        assert left["form"] == {"amount": 3, "reason": None}, "later steps read what was left out"
    rejecting = Approval(title="?", timeout="1h", on_timeout="reject")
    refused(ErrorCodes.FAILED_PRECONDITION, rejecting.timed_out)


@given(st.data())
def test_a_form_s_values_survive_being_read_again(data: Any) -> None:
    """As text from a browser or as JSON: what was read once is read as the same."""
    types = st.sampled_from(["text", "number", "integer", "boolean", "date", "choice"])
    fields = [
        FormField(name=f"f{n}", type=kind, **({"choices": ["a", "b"]} if kind == "choice" else {}))
        for n, kind in enumerate(data.draw(st.lists(types, max_size=5)))
    ]
    values = {
        "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "integer": st.integers(-(2**53), 2**53),
        "boolean": st.booleans(),
        "date": st.dates().map(str),
        "choice": st.sampled_from(["a", "b"]),
    }
    form = {each.name: data.draw(values[each.type]) for each in fields}
    read = read_form(fields, form)
    assert read == form
    assert read_form(fields, json.loads(json.dumps(read))) == read
    texts = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in form.items()
    }
    assert read_form(fields, texts) == read


def test_the_doctor_looks_at_the_notice_and_the_signing_keys() -> None:
    """Before the first approval waits: an action, a field or a secret that is not there."""
    notify = {"action": "mail.send", "input": {"tu": "x", "key": "$secret:MAIL"}}
    steps = [{"id": "ok", "approval": {"title": "?", "notify": notify}}]
    kernel = Kernel(signing_keys=["$secret:LINKS"], secrets={}, discover=False)
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
    (problem,) = workflow_problems(kernel, kernel.workflows["w"])
    assert problem.startswith("steps.ok.approval.notify.action: ")

    @kernel.action("mail.send")
    def send(to: str, key: str) -> None: ...

    assert workflow_problems(kernel, kernel.workflows["w"]) == [
        "steps.ok.approval.notify.input.tu: mail.send has no such field (it has: to, key)",
        "steps.ok.approval.notify.input: mail.send needs the field 'to'",
    ]
    assert secret_uses(kernel, {}) == {
        "LINKS": ["signing_keys"], "MAIL": ["w: steps.ok.approval.notify"],
    }  # fmt: skip


def test_a_payload_error_is_one_of_ours(kernel: Kernel) -> None:
    """A host catches one kind of error for whatever it passes on from people."""
    with pytest.raises(PayloadError):
        kernel.approvals.approve(ask(kernel), "ok", by="ann", comment="x" * 6_000)


def test_a_link_to_an_earlier_asking_is_used_up(kernel: Kernel) -> None:
    """A step that is run again asks anew, and old mails decide nothing."""
    execution_id = ask(kernel)
    token = kernel.approvals.token(execution_id, "ok", by="ann")
    again = {"title": "Pay it back?", "asked": new_id()}
    with kernel.storage.begin() as rows:
        rows.update(WAIT, [Where("execution_id", "eq", execution_id)], {"details": again})
    refused(ErrorCodes.NOT_FOUND, kernel.approvals.by_token, token)
