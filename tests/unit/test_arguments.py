"""Arguments as callers hand them over: one text for several, and numbers out of bounds."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, PluginError
from automate_kernel.outbox import ItemStatus
from automate_kernel.triggers.webhooks import HmacSignature

WORKFLOW = """
name: hello
trigger: {type: event, event: greeted}
steps: [{id: say, action: chat.say}]
"""

ASKS = {
    "name": "ask",
    "trigger": {"type": "manual"},
    "steps": [{"id": "ask", "approval": {"title": "Ship it?", "by": ["role:a"]}}],
}


class TestOneTextForSeveral:
    """A single text was taken for the list of its letters, and nothing, or too much, was done."""

    def test_the_id_of_an_item_is_that_item(self, kernel: Kernel) -> None:
        item_id = kernel.outbox.enqueue("mail.send", {})
        assert [item.id for item in kernel.outbox.find(ids=item_id)] == [item_id]
        assert kernel.outbox.cancel(item_id) == 1
        assert kernel.outbox.requeue(item_id) == 1
        assert kernel.outbox.reschedule(item_id, delay=60) == 1
        assert kernel.outbox.cancel_matching(ids=item_id) == 1
        assert kernel.outbox.discard(item_id) == 1

    @pytest.mark.parametrize("make", [str, Path])
    def test_the_folder_of_workflows_is_read_alone(self, tmp_path: Path, make: Any) -> None:
        # Its first letter is the root folder.
        (tmp_path / "hello.yaml").write_text(WORKFLOW, "utf-8")
        kernel = Kernel(workflows=make(tmp_path), discover=False)
        assert [workflow.name for workflow in kernel.workflows.added()] == ["hello"]

    def test_the_name_of_a_variable_allows_that_variable_alone(self) -> None:
        assert Kernel(env_allow="REGION", discover=False).env.allow == {"REGION"}

    def test_a_kind_is_worked_on_or_left_out(self, kernel: Kernel) -> None:
        done: list[str] = []
        for kind in ("mail.send", "mail.read"):
            kernel.handler(kind)(lambda item: done.append(item.kind))
            kernel.outbox.enqueue(kind, {})
        kernel.run_until_idle(kinds="mail.send")
        assert done == ["mail.send"]
        kernel.run_until_idle(exclude_kinds="mail.read")
        assert done == ["mail.send"]

    def test_a_role_is_no_list_of_roles_with_one_letter(self, kernel: Kernel) -> None:
        kernel.add_workflow(ASKS)
        started = kernel.start("ask")
        kernel.run_until_idle()
        (asked,) = kernel.approvals.pending().approvals
        assert asked.execution_id == started
        assert not asked.may_decide("somebody", "admin")
        assert asked.may_decide("somebody", "a")

    def test_an_execution_is_found_by_its_id_and_by_its_label(self, kernel: Kernel) -> None:
        @kernel.workflow
        def nothing(run: Any) -> None:
            """Do nothing."""

        started = kernel.start(nothing, labels={"order": "4711"})
        kernel.run_until_idle()
        for given in ({"ids": started}, {"labels": "order=4711"}):
            (found,) = kernel.executions.page(**given).executions
            assert found.id == started


class TestLimits:
    """-1 was all rows on SQLite and an error on PostgreSQL, and a page of 0 left an item out."""

    @pytest.mark.parametrize("limit", [-1, 2.5, "5", True])
    def test_a_limit_is_a_whole_number(self, kernel: Kernel, limit: Any) -> None:
        kernel.outbox.enqueue("mail.send", {})
        for read in (kernel.outbox.find, kernel.outbox.page, kernel.executions.page,
                     kernel.executions.find, kernel.approvals.pending):  # fmt: skip
            with pytest.raises(AutomateError, match="a limit is a whole number") as caught:
                read(limit=limit)
            assert caught.value.code is ErrorCodes.INVALID_ARGUMENT

    def test_a_page_has_one_row_at_least(self, kernel: Kernel) -> None:
        kernel.outbox.enqueue("mail.send", {})
        with pytest.raises(AutomateError, match="from 1 on, not 0"):
            kernel.outbox.page(limit=0)
        assert kernel.outbox.find(limit=0) == []

    def test_more_than_a_database_counts_is_all_that_there_is(self, kernel: Kernel) -> None:
        kernel.outbox.enqueue("mail.send", {})
        assert len(kernel.outbox.find(limit=10**30)) == 1
        assert len(kernel.outbox.page(limit=10**30).items) == 1


class TestAges:
    """An age below zero is that of everything: all that was finished was deleted."""

    @pytest.mark.parametrize("age", [-1, float("nan"), float("inf"), "60", True])
    def test_nothing_is_deleted_for_a_wrong_age(self, kernel: Kernel, age: Any) -> None:
        item_id = kernel.outbox.enqueue("mail.send", {})
        kernel.outbox.cancel([item_id])
        for purge in (kernel.purge, kernel.outbox.purge, kernel.executions.purge,
                      kernel.purge_definitions):  # fmt: skip
            with pytest.raises(AutomateError, match="a number of seconds from 0 on"):
                purge(older_than_seconds=age)
        with pytest.raises(AutomateError, match="a number of seconds from 0 on"):
            kernel.sweep(failed_retention_seconds=age)
        assert kernel.outbox.get(item_id) is not None

    @pytest.mark.parametrize("name", ["retention_seconds", "failed_retention_seconds"])
    def test_a_kernel_is_not_made_with_one(self, name: str) -> None:
        with pytest.raises(AutomateError, match=name):
            Kernel(discover=False, **{name: -60.0})  # type: ignore[arg-type]

    def test_a_lease_ends(self) -> None:
        with pytest.raises(AutomateError, match="lease_seconds"):
            Kernel(discover=False, lease_seconds=float("nan"))


def test_a_bulk_command_ends_whatever_its_limit_is(kernel: Kernel) -> None:
    """With a limit below zero it looked for nothing, for ever."""
    kernel.outbox.enqueue("mail.send", {})
    with pytest.raises(AutomateError, match="from 0 on, not -1"):
        kernel.outbox.cancel_matching(kind="mail.send", limit=-1)
    with pytest.raises(AutomateError, match="from 0 on, not -1"):
        kernel.executions.resume_matching(status="FAILED", limit=-1)
    assert kernel.outbox.cancel_matching(kind="mail.send", limit=0) == 0


@pytest.mark.parametrize("rate", [0, -1.0, float("nan")])
def test_a_rate_at_which_nothing_comes_is_refused(kernel: Kernel, rate: float) -> None:
    """Before anything is changed."""
    item_id = kernel.outbox.enqueue("mail.send", {})
    kernel.outbox.cancel([item_id])
    for call in (
        lambda: kernel.outbox.requeue_matching(kind="mail.send", per_second=rate),
        lambda: kernel.executions.resume_matching(status="FAILED", per_second=rate),
    ):
        with pytest.raises(AutomateError, match="per_second must be above 0"):
            call()
    assert [item.status for item in kernel.outbox.find()] == [ItemStatus.CANCELLED]


def test_no_status_is_none_of_them(kernel: Kernel) -> None:
    """An empty list of statuses deleted executions in all of them."""

    @kernel.workflow
    def nothing(run: Any) -> None:
        """Do nothing."""

    execution = kernel.run(nothing)
    assert kernel.executions.purge(older_than_seconds=0, statuses=[]) == 0
    assert kernel.executions.get(execution.id) is not None
    assert kernel.executions.purge(older_than_seconds=0) == 1


def test_a_cursor_of_brackets_is_no_page(kernel: Kernel) -> None:
    """It ended with RecursionError, so that a list of the API answered with 500."""
    import base64

    kernel.outbox.enqueue("mail.send", {})
    cursor = base64.urlsafe_b64encode(b"[" * 9000).decode()
    with pytest.raises(AutomateError, match="no such page") as caught:
        kernel.outbox.page(after=cursor)
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    assert kernel.outbox.find(status=ItemStatus.PENDING)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("config", [], "config is a mapping"),
        ("config", {"slack": "token"}, "config\\['slack'\\] can't be a str"),
        ("config", {5: {}}, "the keys of config are texts"),
        ("settings", [1], "settings is a mapping"),
        ("winners", ["slack"], "winners is a mapping"),
        ("winners", {"slack": 5}, "winners\\['slack'\\]"),
        ("disabled", 5, "disabled is a list of texts"),
        ("disabled", [5], "disabled has an int in it"),
        ("listed", ["slack"], "listed is a mapping"),
        ("signing_keys", 5, "signing_keys is a list of texts"),
        ("env_allow", 5, "env_allow is a list of texts"),
        ("secrets", 5, "secrets can't be an int"),
        ("secrets", {"SLACK": 5}, "secrets\\['SLACK'\\] can't be an int"),
        ("outbox", 5, "an outbox can't be an int"),
        ("lease_seconds", 0, "lease_seconds is a number above 0"),
        ("public_url", 5, "public_url is a text"),
        ("public_url", "ftp://automate.example", "begins with https"),
        ("public_url", "automate.example", "begins with https"),
        ("public_url", "https://me:hunter2@automate.example", "more than a host and a path"),
        ("public_url", "https://automate.example/?a=b", "more than a host and a path"),
    ],
)
def test_a_kernel_is_not_made_of_wrong_arguments(name: str, given: Any, said: str) -> None:
    """They were taken in silence, and failed at their first use or never."""
    with pytest.raises(ConfigError, match=said) as caught:
        Kernel(discover=False, **{name: given})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("given", [5, [5]])
def test_a_workflow_is_no_number(given: Any) -> None:
    """It ended with TypeError."""
    with pytest.raises(AutomateError, match="a workflow can't be an int"):
        Kernel(discover=False, workflows=given)


@pytest.mark.parametrize("limit", [{"concurrency": True}, {"concurrency": 1.5}, {"rate": "5"}])
def test_a_limit_of_a_kind_is_a_whole_number(kernel: Kernel, limit: Any) -> None:
    """True was a limit of 1, and a text ended with TypeError."""
    with pytest.raises(AutomateError, match="must be a whole number") as caught:
        kernel.outbox.limit("mail.send", **limit)
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT


def test_a_plugin_is_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error named neither the entry nor what to write in its place."""
    module = ModuleType("shopapp")
    exec(  # noqa: S102
        "from automate_kernel.plugins.connectors import Connector\n"
        "class Shop(Connector):\n    key, display_name = 'shop', 'Shop'\n",
        module.__dict__,
    )
    monkeypatch.setitem(sys.modules, "shopapp", module)
    with pytest.raises(PluginError, match="'shopapp' is a module") as caught:
        Kernel(discover=False, plugins=["shopapp"])
    assert caught.value.hint == 'write "shopapp:Shop"'
    assert "shop" in Kernel(discover=False, plugins=["shopapp:Shop"]).plugins.keys("connector")


@pytest.mark.parametrize("timeout", ["1", -1, 0, float("nan"), float("inf"), True])
def test_a_timeout_is_a_number(kernel: Kernel, timeout: Any) -> None:
    """The operation was blamed, which was never called."""
    calls: list[int] = []
    kernel.action("count.up")(lambda: calls.append(1))
    with pytest.raises(AutomateError, match="timeout is a number of seconds") as caught:
        kernel.invoke("count.up", timeout=timeout)
    assert (caught.value.code, calls) == (ErrorCodes.INVALID_ARGUMENT, [])


def test_labels_have_names(kernel: Kernel) -> None:
    """Labels of text alone ended with AttributeError."""
    with pytest.raises(AutomateError, match="labels"):
        kernel.emit("order.created", labels="order=4711")  # type: ignore[arg-type]


class TestFilters:
    """A filter that is none was passed over, found nothing, or was an error of Python's own."""

    @pytest.mark.parametrize("status", ["FAILD", "", 5, ["FAILED"]])
    def test_a_status_is_one_that_there_is(self, kernel: Kernel, status: Any) -> None:
        for read in (kernel.executions.find, kernel.executions.page, kernel.outbox.find,
                     kernel.outbox.page, kernel.outbox.count, kernel.executions.resume_matching,
                     kernel.outbox.requeue_matching):  # fmt: skip
            with pytest.raises(AutomateError, match="there are .*FAILED") as caught:
                read(status=status)
            assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
        for purge in (kernel.executions.purge, kernel.outbox.purge):
            with pytest.raises(AutomateError, match="there are .*FAILED"):
                purge(older_than_seconds=60, statuses=["COMPLETED", status])

    def test_a_near_miss_is_named(self, kernel: Kernel) -> None:
        with pytest.raises(AutomateError, match="did you mean 'FAILED'"):
            kernel.executions.find(status="failed")

    def test_a_filter_that_there_is_not_is_no_filter(self, kernel: Kernel) -> None:
        for store in (kernel.executions, kernel.outbox):
            with pytest.raises(TypeError, match="did you mean 'status'"):
                store.page(statuss="FAILED")  # type: ignore[call-arg]

    @pytest.mark.parametrize("label", [5, b"x", {}])
    def test_a_label_is_text(self, kernel: Kernel, label: Any) -> None:
        for read in (kernel.executions.labelled, kernel.outbox.labelled, kernel.labelled):
            with pytest.raises(AutomateError, match="a label can't be"):
                read(label)
        with pytest.raises(AutomateError, match="a label can't be"):
            kernel.executions.page(labels=[label])

    def test_a_time_is_no_number(self, kernel: Kernel) -> None:
        item_id = kernel.outbox.enqueue("mail.send", {}, delay=60)
        with pytest.raises(AutomateError, match="run_at is a datetime"):
            kernel.outbox.reschedule([item_id], run_at=1e9)  # type: ignore[arg-type]

    def test_statistics_are_of_some_seconds(self, kernel: Kernel) -> None:
        for read in (kernel.outbox.activity, kernel.executions.activity):
            with pytest.raises(AutomateError, match="seconds is a number"):
                read(seconds=float("nan"))


@pytest.mark.parametrize("name", ["strict", "discover"])
def test_a_switch_is_on_or_off(name: str) -> None:
    """The text "no" turned it on."""
    with pytest.raises(ConfigError, match=f"{name}=True or {name}=False"):
        Kernel(**{"discover": False, name: "no"})  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [5, "workflows", [], object, Kernel])
def test_a_source_of_workflows_can_be_asked(source: Any) -> None:
    """It failed at the first event, and none was lost, but none went on either."""
    with pytest.raises(ConfigError, match=r"load\(\) and stamp\(\)"):
        Kernel(discover=False, workflow_source=source)


@pytest.mark.parametrize("secrets", [(["secret-value"],), (b"secret-value",), (None,), ()])
def test_a_webhook_is_signed_with_texts(secrets: Any) -> None:
    with pytest.raises(ConfigError, match="value of a secret") as caught:
        HmacSignature("KEY", header="X-Signature").sign(b"{}", *secrets)
    assert "secret-value" not in str(caught.value)
