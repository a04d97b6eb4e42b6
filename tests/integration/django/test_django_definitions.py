"""Workflows in the database: versions that never change, and processes that learn of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
from automate_django import definitions, get_kernel
from automate_django.kernel import build_kernel
from automate_django.models import WorkflowDocument, WorkflowStamp, WorkflowVersion
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, WorkflowError
from automate_kernel.workflows.definition.loader import dumps, loads
from automate_kernel.workflows.definition.model import Workflow
from django.core.management.sql import emit_post_migrate_signal
from django.db import connections, transaction
from example_counts import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shop.models import Message
from shopsite.emptying import OUTBOX, delete_rows
from waiting import at_once

GREET = """\
name: greet
trigger: {type: event, event: customer.came}
steps:
  - id: say
    action: chat.post_message
    input: {channel: C1, text: "Hello {{ event.payload.name }}"}
"""
LOUD = GREET.replace("Hello", "HELLO")


def said() -> list[str]:
    return list(Message.objects.order_by("pk").values_list("text", flat=True))


def come(name: str = "Ann", **options: Any) -> str:
    item_id = get_kernel().emit("customer.came", {"name": name}, **options)
    get_kernel().run_until_idle()
    return item_id


def test_a_saved_workflow_runs(alias: str) -> None:
    """The next event starts it, in the process that saved it."""
    assert come() is not None
    document = definitions.create(GREET, author="ann", comment="First")
    come()
    assert said() == ["Hello Ann"]
    version = document.versions.get()
    assert (version.number, version.author, version.comment) == (1, "ann", "First")
    assert version.source == GREET


def test_a_new_version_counts_and_the_old_one_stays(alias: str) -> None:
    """Text that changed is a new version; what runs keeps the one that it began with."""
    document = definitions.create(GREET)
    begun = get_kernel().start("greet", {"name": "Ann"})
    version = definitions.save(document, LOUD, author="bob", comment="Louder")
    assert version is not None
    assert version.number == 2
    get_kernel().run_until_idle()
    come("Bob")
    assert said() == ["Hello Ann", "HELLO Bob"]
    execution = get_kernel().executions.get(begun)
    assert execution is not None
    assert execution.definition_id == document.versions.get(number=1).digest
    assert [one.source for one in document.versions.order_by("number")] == [GREET, LOUD]


def test_text_that_did_not_change_is_no_version(sqlite: str) -> None:
    """Saving twice leaves one version; a changed comment in the text is a change."""
    document = definitions.create(GREET)
    assert definitions.save(document, GREET) is None
    assert definitions.save(document, f"# what it is for\n{GREET}") is not None
    assert document.versions.count() == 2


def test_going_back_is_a_new_version(sqlite: str) -> None:
    """History is never rewritten: version 3 says what version 1 said."""
    document = definitions.create(GREET)
    definitions.save(document, LOUD)
    version = definitions.restore(document, 1, author="ann")
    assert version is not None
    assert (version.number, version.restored_from, version.source) == (3, 1, GREET)
    assert definitions.restore(document, 1) is None
    with pytest.raises(AutomateError) as caught:
        definitions.restore(document, 9)
    assert caught.value.code is ErrorCodes.NOT_FOUND
    come()
    assert said() == ["Hello Ann"]


def test_a_version_never_changes(sqlite: str) -> None:
    """Not by accident either: a version that was saved refuses to be saved again."""
    version = definitions.create(GREET).versions.get()
    version.source = LOUD
    with pytest.raises(TypeError, match="never changes"):
        version.save()


def test_two_editors(sqlite: str) -> None:
    """Who edits what another has changed meanwhile is told, and overwrites nothing."""
    document = definitions.create(GREET)
    definitions.save(document, LOUD, based_on=1)
    with pytest.raises(AutomateError, match="somebody has saved version 2") as caught:
        definitions.save(document, f"{GREET}# mine\n", based_on=1)
    assert caught.value.code is ErrorCodes.ABORTED
    assert document.versions.count() == 2


def test_one_that_is_off_starts_nothing(alias: str) -> None:
    """Switched off it is nowhere to be found; what had begun goes on."""
    document = definitions.create(GREET)
    get_kernel().start("greet", {"name": "before"})
    assert definitions.switch(document, enabled=False)
    assert not definitions.switch(document, enabled=False)
    come("during")
    with pytest.raises(AutomateError, match="there is no workflow 'greet'"):
        get_kernel().start("greet")
    assert definitions.switch(document, enabled=True)
    come("after")
    assert said() == ["Hello before", "Hello after"]


def test_a_change_that_is_rolled_back_never_was(alias: str) -> None:
    """In the caller's transaction: neither a version nor a workflow is left."""
    document = definitions.create(GREET)

    def save_and_fail() -> None:
        with transaction.atomic(using=alias):
            definitions.save(document, LOUD)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        save_and_fail()
    get_kernel().workflows.look_again()
    come()
    assert said() == ["Hello Ann"]
    assert document.versions.count() == 1


@pytest.mark.parametrize("rolled_back", ["block", "savepoint"])
def test_what_was_rolled_back_starts_nothing(alias: str, rolled_back: str) -> None:
    """At once: who has looked in between would know it for a second, and so would the next test."""
    kernel = get_kernel()
    assert [workflow.name for workflow in kernel.workflows if workflow.name == "greet"] == []
    with transaction.atomic(using=alias) if rolled_back == "savepoint" else nullcontext():
        with transaction.atomic(using=alias):
            definitions.create(GREET)
            assert kernel.workflows.get("greet").name == "greet"
            transaction.set_rollback(True, using=alias)
        with pytest.raises(AutomateError, match="no workflow 'greet'"):
            kernel.start("greet", {"name": "Ann"})


def test_emptied_tables_hold_no_workflow(sqlite: str) -> None:
    """As after a test with `TransactionTestCase`."""
    definitions.create(GREET)
    assert get_kernel().workflows.get("greet").name == "greet"
    delete_rows(sqlite, OUTBOX)
    emit_post_migrate_signal(0, False, sqlite)  # as Django's `flush` does
    with pytest.raises(AutomateError, match="no workflow 'greet'"):
        get_kernel().workflows.get("greet")


@pytest.mark.slow
def test_another_process_learns_of_it(
    alias: str, start: Callable[..., Any], until: Callable[..., None]
) -> None:
    """A worker that runs already starts what is saved meanwhile, without a restart."""
    worker = start("automate_worker")
    line = worker.stdout.readline()
    assert "order-notify" in line
    document = definitions.create(GREET)

    def greeted(word: str) -> bool:
        get_kernel().emit("customer.came", {"name": "Ann"})
        return f"{word} Ann" in said()

    until(lambda: greeted("Hello"), worker)
    definitions.save(document, LOUD)
    until(lambda: greeted("HELLO"), worker)


# -- names and tenants -----------------------------------------------------------------------------


def problems(error: AutomateError) -> list[str]:
    assert isinstance(error, WorkflowError)
    return [str(one) for one in definitions.diagnostics(error)]


def test_a_name_from_a_file_is_taken(sqlite: str) -> None:
    """The error says so, and on which line the name stands."""
    with pytest.raises(WorkflowError) as caught:
        definitions.create(f"\n{GREET.replace('greet', 'order-notify')}")
    assert problems(caught.value) == [
        "Line 2: name: a workflow from a file has this name already (give this one another name)"
    ]
    assert not WorkflowDocument.objects.exists()


def test_a_name_can_not_change(sqlite: str) -> None:
    """Executions are found by it."""
    document = definitions.create(GREET)
    with pytest.raises(WorkflowError) as caught:
        definitions.save(document, GREET.replace("greet", "welcome"))
    assert problems(caught.value) == [
        "Line 1: name: the name of a workflow stays as it is "
        "(write greet, or make another workflow)"
    ]


@pytest.mark.parametrize(("first", "second"), [(None, None), (None, "a"), ("a", None), ("a", "a")])
def test_names_clash(sqlite: str, first: str | None, second: str | None) -> None:
    """A tenant and everybody can't both have a workflow of one name."""
    definitions.create(GREET, tenant_id=first)
    with pytest.raises(WorkflowError, match="another workflow has this name"):
        definitions.create(GREET, tenant_id=second)


def test_tenants_share_names_without_knowing(alias: str) -> None:
    """Two tenants may have a workflow of one name: each starts on its own tenant's events."""
    definitions.create(GREET, tenant_id="a")
    definitions.create(LOUD, tenant_id="b")
    come("a", tenant_id="a")
    come("b", tenant_id="b")
    come("nobody")
    assert said() == ["Hello a", "HELLO b"]
    with pytest.raises(ConfigError, match="can't be empty"):
        definitions.create(GREET.replace("greet", "other"), tenant_id="")


def test_of_two_that_take_a_name_at_once_one_gets_it(alias: str) -> None:
    """However they race, there is one workflow of that name in the end."""
    get_kernel()
    barrier, failed = threading.Barrier(4), []

    def take(tenant_id: str | None) -> None:
        barrier.wait()
        try:
            definitions.create(GREET, tenant_id=tenant_id)
        except WorkflowError as error:
            failed.append(error)
        finally:
            connections[alias].close()

    at_once(*(partial(take, one) for one in (None, "a", None, "a")))
    assert len(failed) == 3
    assert WorkflowDocument.objects.count() == WorkflowVersion.objects.count() == 1
    assert WorkflowStamp.objects.count() == 1


# -- what is refused -------------------------------------------------------------------------------


def test_every_problem_is_told_with_its_line(sqlite: str) -> None:
    """All at once, in the order of the text, with what to do."""
    text = GREET.replace("action:", "acton:").replace("customer.came", '""')
    with pytest.raises(WorkflowError) as caught:
        definitions.create(text)
    told = definitions.diagnostics(caught.value)
    assert [(one.line, one.field) for one in told] == [
        (2, "trigger.event"),
        (4, "steps.say.action"),
        (5, "steps.say.acton"),
    ]
    assert told[2].hint == "did you mean 'action'?"
    with pytest.raises(WorkflowError) as caught:
        definitions.create(GREET.replace("payload.name", "payload.name | nosuch"))
    (one,) = definitions.diagnostics(caught.value)
    assert (one.line, one.field) == (6, "steps.say.input.text")
    assert "there is no filter 'nosuch'" in one.message


def test_a_secret_in_a_text_is_refused(sqlite: str) -> None:
    """It would be stored, and shown to whoever may look at workflows."""
    get_kernel().redactor.add("tok-51d0")
    text = GREET.replace("Hello", "Bearer tok-51d0 Hello")
    with pytest.raises(WorkflowError) as caught:
        definitions.create(text)
    assert problems(caught.value) == [
        "Line 6: it holds the value of a secret (write $secret:KEY in its place)"
    ]
    assert "tok-51d0" not in repr(caught.value) + str(caught.value.details)


def test_advice_is_no_refusal(sqlite: str) -> None:
    """An action that is not installed here may be there where the worker runs."""
    workflow = loads(GREET.replace("chat.post_message", "chat.post_mesage"))
    (line,) = definitions.advice(workflow, get_kernel())
    assert "steps.say.action" in line
    assert definitions.advice(loads(GREET), get_kernel()) == []


def test_a_workflow_that_lost_its_filter_holds_up_no_other(sqlite: str) -> None:
    """It is told as a problem, by name; the others run."""
    get_kernel().filter("shout")(str.upper)
    definitions.create(GREET.replace("payload.name", "payload.name | shout"))
    definitions.create(LOUD.replace("greet", "other"))
    kernel = build_kernel()
    assert set(kernel.workflows.problems()) == {(None, "greet")}
    kernel.emit("customer.came", {"name": "Ann"})
    kernel.run_until_idle()
    assert said() == ["HELLO Ann"]


# -- what is written comes back --------------------------------------------------------------------

IDS = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0{$"), max_size=10)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(IDS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    steps = [
        {"id": step_id, "action": "chat.post_message", "input": draw(st.dictionaries(IDS, VALUES))}
        for step_id in draw(st.lists(IDS, min_size=1, max_size=3, unique=True))
    ]
    trigger = draw(st.sampled_from([{"type": "manual"}, {"type": "schedule", "every": "5m"}]))
    return Workflow.model_validate(
        {"name": "generated", "trigger": trigger, "steps": steps, "output": draw(VALUES)}
    )


@settings(max_examples=examples(40, 10), deadline=None, suppress_health_check=[*HealthCheck])
@given(first=workflows(), second=workflows(), format=st.sampled_from(["yaml", "json"]))
def test_text_becomes_a_model_and_text_again(
    sqlite: str, first: Workflow, second: Workflow, format: Any
) -> None:
    """Through the database and the kernel, in either format, over any number of versions."""
    WorkflowDocument.objects.all().delete()
    document = definitions.create(dumps(first, format), format=format)
    definitions.save(document, dumps(second, format), format=format)
    definitions.restore(document, 1)
    for version, made in zip(document.versions.order_by("number"), (first, second, first)):
        again = Workflow.from_dict(version.definition)
        assert again == made == loads(version.source, version.format)
        assert dumps(again, format) == version.source
        assert version.digest == made.hash()
    assert get_kernel().workflows["generated"] == first
