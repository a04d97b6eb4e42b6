"""Workflows that people edit: versions, drafts, and workers that learn of what is published."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from waiting import at_once
from workers import fire_due

from automate_kernel import AutomateError, Kernel
from automate_kernel.base.errors import ErrorCodes, WorkflowError
from automate_kernel.workflows import StoredWorkflows
from automate_kernel.workflows.definition.document import LARGEST
from automate_kernel.workflows.steer.documents import diagnostics

GREET = """\
name: greet
trigger: {type: event, event: customer.came}
steps:
  - id: say
    action: chat.say
    input: {text: "Hello {{ event.payload.name }}"}
"""
LOUD = GREET.replace("Hello", "HELLO")
EVERY_DAY = GREET.replace(
    "{type: event, event: customer.came}", '{type: schedule, cron: "0 9 * * *"}'
)


@pytest.fixture
def storage(clocked_storage: Any) -> Any:
    return clocked_storage


@pytest.fixture
def said() -> list[str]:
    return []


def opened(storage: Any, said: list[str]) -> Kernel:
    """Another process of the same application."""
    kernel = Kernel(
        storage, discover=False, secrets={},
        workflow_source=StoredWorkflows(storage),
    )  # fmt: skip

    @kernel.action("chat.say")
    def say(text: str) -> None:
        said.append(text)

    return kernel


@pytest.fixture
def kernel(storage: Any, said: list[str]) -> Iterator[Kernel]:
    with opened(storage, said) as made:
        yield made


def come(kernel: Kernel, name: str = "Ann", **options: Any) -> None:
    kernel.workflows.look_again()  # a worker looks each second
    kernel.emit("customer.came", {"name": name}, **options)
    kernel.run_until_idle()


def refusal(call: Any, *given: Any, **options: Any) -> AutomateError:
    with pytest.raises(AutomateError) as caught:
        call(*given, **options)
    return caught.value


# -- versions ----------------------------------------------------------------------------------


def test_a_saved_workflow_runs_in_every_process(
    storage: Any, kernel: Kernel, said: list[str]
) -> None:
    """A worker that has looked already starts what is saved meanwhile, without a restart."""
    with opened(storage, said) as worker:
        come(worker)
        document = kernel.documents.create(GREET, author="ann", comment="First")
        come(worker, "Bob")
        assert kernel.documents.save(document.id, LOUD, author="ben")
        come(worker, "Cid")
    assert said == ["Hello Bob", "HELLO Cid"]
    second, first = kernel.documents.versions(document.id)
    assert (first.author, first.comment, first.published_by) == ("ann", "First", "ann")
    assert (second.number, second.author, second.published_by) == (2, "ben", "ben")
    assert first.source == ""
    assert kernel.documents.version(document.id, 1).source == GREET
    assert kernel.documents.versions(document.id, before=2) == [first]
    assert kernel.documents.running
    assert not Kernel(storage, discover=False).documents.running


def test_a_running_execution_keeps_its_version(kernel: Kernel, said: list[str]) -> None:
    """What has begun ends with the text that it began with."""
    document = kernel.documents.create(GREET)
    begun = kernel.start("greet", {"name": "Ann"})
    kernel.documents.save(document.id, LOUD)
    kernel.run_until_idle()
    assert said == ["Hello Ann"]
    execution = kernel.executions.get(begun)
    assert execution is not None
    assert execution.definition_id == kernel.documents.version(document.id, 1).digest


def test_a_draft_starts_nothing_until_it_is_published(kernel: Kernel, said: list[str]) -> None:
    """Events start the published version; the name is taken from the first draft on."""
    made = kernel.documents.create(GREET, publish=False, author="ann")
    assert (made.version, made.latest, made.is_draft) == (None, 1, True)
    come(kernel)
    assert said == []
    assert refusal(kernel.documents.create, GREET).code is ErrorCodes.INVALID_ARGUMENT
    published = kernel.documents.publish(made.id, 1, author="ben")
    assert published is not None
    assert (published.author, published.published_by) == ("ann", "ben")
    assert kernel.documents.publish(made.id, 1) is None
    come(kernel)
    kernel.documents.save(made.id, LOUD, publish=False)
    come(kernel)
    assert said == ["Hello Ann", "Hello Ann"]
    # The same text again, to be published: no version more.
    assert kernel.documents.save(made.id, LOUD) is not None
    assert kernel.documents.save(made.id, LOUD) is None
    come(kernel)
    assert said[2:] == ["HELLO Ann"]
    assert [each.number for each in kernel.documents.versions(made.id)] == [2, 1]


def test_going_back_is_a_new_version(kernel: Kernel, said: list[str]) -> None:
    """History is never rewritten: version 3 has the text of version 1, and a draft is passed."""
    document = kernel.documents.create(GREET)
    kernel.documents.save(document.id, LOUD, publish=False)
    version = kernel.documents.restore(document.id, 1, author="ann", comment="Too loud")
    assert version is not None
    assert (version.number, version.restored_from, version.source) == (3, 1, GREET)
    assert kernel.documents.restore(document.id, 1) is None
    found = kernel.documents.get(document.id)
    assert found is not None
    assert (found.version, found.latest, found.is_draft) == (3, 3, False)
    come(kernel)
    assert said == ["Hello Ann"]


def test_who_was_overtaken_is_refused(kernel: Kernel) -> None:
    """An edit, a publication or a return that saw a former version changes nothing."""
    document = kernel.documents.create(GREET)
    kernel.documents.save(document.id, LOUD, based_on=1)
    mine = f"{GREET}# mine\n"
    for refused in (
        partial(kernel.documents.save, document.id, mine, based_on=1),
        partial(kernel.documents.publish, document.id, 1),
        partial(kernel.documents.restore, document.id, 1, based_on=1),
    ):
        error = refusal(refused)
        assert error.code is ErrorCodes.ABORTED
        assert "somebody has saved version 2 meanwhile" in str(error)
    assert len(kernel.documents.versions(document.id)) == 2


def test_of_two_editors_at_once_one_is_refused(storage: Any, kernel: Kernel) -> None:
    """However they race, no version is overwritten, and each number exists once."""
    document = kernel.documents.create(GREET)
    outcomes: list[str] = []

    def edit(text: str) -> None:
        try:
            kernel.documents.save(document.id, text, based_on=1)
            outcomes.append("saved")
        except AutomateError as error:
            outcomes.append(error.code.name)

    at_once(*(partial(edit, f"{GREET}# {who}\n") for who in ("ann", "ben", "cid")))
    assert sorted(outcomes) == ["ABORTED", "ABORTED", "saved"]
    assert [each.number for each in kernel.documents.versions(document.id)] == [2, 1]


def test_of_two_that_take_a_name_at_once_one_gets_it(kernel: Kernel) -> None:
    """Even as the first change of all, which makes the row that changes stand in a line at."""
    outcomes: list[str] = []
    lock = threading.Lock()

    def create(tenant: str | None) -> None:
        try:
            kernel.documents.create(GREET, tenant_id=tenant)
            outcome = "made"
        except WorkflowError:
            outcome = "taken"
        with lock:
            outcomes.append(outcome)

    at_once(*(partial(create, tenant) for tenant in (None, None, "acme")))
    assert outcomes.count("made") == 1
    assert len(kernel.documents.find("greet")) == 1


def test_off_and_on(kernel: Kernel, said: list[str], clock: Any) -> None:
    """Off it starts nothing; on again its schedule makes up for nothing that passed meanwhile."""
    document = kernel.documents.create(EVERY_DAY.replace("event.payload.name", "'you'"))
    kernel.workflows.look_again()
    fire_due(kernel)
    assert kernel.documents.switch(document.id, enabled=False)
    assert not kernel.documents.switch(document.id, enabled=False)
    come(kernel)
    assert "there is no workflow 'greet'" in str(refusal(kernel.start, "greet"))
    clock.advance(3 * 86_400)
    assert kernel.documents.switch(document.id, enabled=True)
    fire_due(kernel)
    kernel.run_until_idle()
    assert said == []
    clock.advance(86_400)
    fire_due(kernel)
    kernel.run_until_idle()
    assert said == ["Hello you"]


def test_a_change_of_the_callers_transaction_ends_with_it(storage: Any, kernel: Kernel) -> None:
    """Rolled back, there was neither a version nor a workflow."""
    if storage.describe().startswith("memory"):
        pytest.skip("the memory has no transaction of an application")
    with pytest.raises(ZeroDivisionError), storage.engine.begin() as connection:
        kernel.documents.create(GREET, transaction=connection)
        raise ZeroDivisionError
    kernel.workflows.look_again()
    assert kernel.documents.find() == []
    assert list(kernel.workflows) == []


# -- what is refused ---------------------------------------------------------------------------


def test_every_problem_has_its_line(kernel: Kernel) -> None:
    """All at once, in the order of the text, with what to do."""
    text = GREET.replace("chat.say", "chat.say\n    retry: {attempts: none}")
    text = text.replace("  - id: say", "  - id: s a y")
    error = refusal(kernel.documents.create, text)
    assert isinstance(error, WorkflowError)
    assert [each.line for each in diagnostics(error)] == [4, 6]
    assert kernel.documents.find() == []


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("", {}, "empty"),
        ("name: [", {}, ":1: is not YAML"),
        ("[" * 10_000, {}, "deep"),
        (GREET + "#" * LARGEST, {}, "larger than"),
        (GREET.replace("Hello", "\x00"), {}, ""),
        (GREET.replace("Hello", "hunter2-of-the-shop"), {}, "Line 6: it holds the value of a secret"),
        (GREET, {"format": "toml"}, "format must be one of yaml, json"),
        (GREET, {"tenant_id": ""}, "can't be empty"),
        (GREET, {"tenant_id": "a\x00"}, "tenant_id"),
    ],
    ids=["empty", "torn", "deep", "large", "nul", "secret", "format", "nobody", "tenant"],
)  # fmt: skip
def test_what_is_no_workflow_is_not_stored(
    kernel: Kernel, text: str, options: Any, told: str
) -> None:
    """Nor shown: an error never has a secret in it."""
    kernel.redactor.add("hunter2-of-the-shop")
    error = refusal(kernel.documents.create, text, **options)
    assert told in str(error)
    assert "hunter2" not in str(error)
    assert kernel.documents.find() == []


def test_names(kernel: Kernel) -> None:
    """A name stays; everybody's and a file's are taken; two tenants may have the same."""
    kernel.add_workflow({"name": "filed", "trigger": {"type": "manual"}, "steps": [
        {"id": "a", "action": "chat.say", "input": {"text": "x"}}]})  # fmt: skip
    documents = kernel.documents
    acme, other = (documents.create(GREET, tenant_id=each) for each in ("acme", "other"))
    for text, options, told in (
        (GREET, {}, "another workflow has this name"),
        (GREET, {"tenant_id": "acme"}, "another workflow has this name"),
        (GREET.replace("greet", "filed"), {"tenant_id": "acme"}, "a workflow from a file"),
    ):
        error = refusal(documents.create, text, **options)
        assert "Line 1" in str(error)
        assert told in str(error)
    renamed = refusal(documents.save, acme.id, GREET.replace("greet", "greets"))
    assert "the name of a workflow stays as it is" in str(renamed)
    assert documents.find(tenant_id="acme") == [acme]
    assert documents.find("greet") == sorted([acme, other], key=lambda each: each.id)
    assert documents.find(tenant_id=None) == []


def test_tenants_start_their_own(kernel: Kernel, said: list[str]) -> None:
    """Each workflow of a tenant starts on that tenant's events alone."""
    for tenant in ("acme", "other"):
        kernel.documents.create(GREET.replace("Hello", tenant), tenant_id=tenant)
    come(kernel, "Ann", tenant_id="acme")
    come(kernel, "Bob")
    assert said == ["acme Ann"]


def test_what_is_not_there(kernel: Kernel) -> None:
    """A document or a version that isn't there is an error with its name."""
    document = kernel.documents.create(GREET)
    for call, given in (
        (kernel.documents.save, ("no-such", GREET)),
        (kernel.documents.switch, ("no-such",)),
        (kernel.documents.version, (document.id, 9)),
        (kernel.documents.publish, (document.id, 9)),
        (kernel.documents.restore, (document.id, 9)),
    ):
        options = {"enabled": False} if call == kernel.documents.switch else {}
        assert refusal(call, *given, **options).code is ErrorCodes.NOT_FOUND
    assert kernel.documents.get("no-such") is None


def test_a_workflow_that_lost_its_filter_holds_up_no_other(
    storage: Any, kernel: Kernel, said: list[str]
) -> None:
    """It is a problem with its name, and can't be published again; the others run."""
    kernel.filter("shout")(lambda text: str(text).upper())
    shouting = GREET.replace("greet", "shouting").replace("name }}", "name | shout }}")
    document = kernel.documents.create(shouting)
    kernel.documents.save(document.id, f"{shouting}# draft\n", publish=False)
    kernel.documents.create(GREET)
    with opened(storage, said) as later:
        assert [name for _, name in later.workflows.problems()] == ["shouting"]
        assert later.start("greet", {"name": "Ann"})
        assert isinstance(refusal(later.documents.publish, document.id, 2), WorkflowError)
