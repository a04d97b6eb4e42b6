"""The command line, command by command, on a project with a SQLite file."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sqlite3
import sys
import threading
from datetime import datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import typer
from command_line import CliRunner

from automate_cli.app import app
from automate_cli.commands import events
from automate_kernel.outbox import Backoff
from automate_kernel.storage import TABLES


WORKFLOW = """\
name: order-notify
description: Adds up an order.
trigger: {type: event, event: order.created, if: "{{ event.payload.total > 100 }}"}
steps:
  - id: total
    action: cliapp_shop.total
    input: {lines: "{{ event.payload.lines }}"}
  - id: send
    action: cliapp_shop.send
    input: {text: "{{ steps.total.output }} EUR", token: "$secret:CHAT_TOKEN"}
    retry: {attempts: 3, delay: 10ms}
output: {sum: "{{ steps.total.output }}"}
"""
CODE = """\
from pathlib import Path

def total(lines: list[int]) -> int:
    return sum(lines)

def send(text: str, token: str) -> str:
    tries = Path(__file__).with_name("tries")
    count = int(tries.read_text()) if tries.exists() else 0
    tries.write_text(str(count + 1))
    if count < 2:
        raise ConnectionError(f"no answer to {token}")
    return text
"""
EVENT = '{"total": 120, "lines": [100, 20]}'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder with settings, a workflow and code, and a function that runs ``automate`` in it."""
    (tmp_path / "automate.toml").write_text('app = "cliapp_shop"\n[worker]\npoll_seconds = 0.05\n')
    (tmp_path / "cliapp_shop.py").write_text(CODE)
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "order.yaml").write_text(WORKFLOW)
    for name in [each for each in os.environ if each.startswith("AUTOMATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AUTOMATE_SECRET_CHAT_TOKEN", "hunter2-hunter2")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0, input: str | None = None):
        result = CliRunner().invoke(app, list(arguments), input=input, prog_name="automate")
        if result.exit_code != code:
            pytest.fail(f"exit code {result.exit_code}\n{result.output}\n{result.exception!r}")
        assert "Traceback" not in result.output
        assert "hunter2" not in result.output
        return result

    def data(*arguments: str, **options):
        return json.loads(run(*arguments, "--json", **options).stdout)

    def store():
        from automate_cli.database import open_storage
        from automate_kernel.outbox import RowsOutboxStore

        return RowsOutboxStore(open_storage("sqlite:///automate.sqlite3", folder=tmp_path))

    yield SimpleNamespace(run=run, data=data, store=store, folder=tmp_path)
    for name in [each for each in sys.modules if each.startswith("cliapp_")]:
        del sys.modules[name]


# -- run ---------------------------------------------------------------------------------------------


def test_run_puts_an_event_through_a_workflow_and_shows_its_steps(project) -> None:
    """Retries included; the error that is shown has no secret in it."""
    out = project.run("run", "workflows/order.yaml", "--event", "-", input=EVENT).stdout
    assert "↻ send  attempt 2 after UNAVAILABLE: " in out
    assert "✓ total" in out
    assert "order-notify COMPLETED" in out
    assert not (project.folder / "automate.sqlite3").exists()


def test_run_gives_the_execution_as_json(project) -> None:
    """For scripts: the output, each step's attempts, and nothing else on standard output."""
    (project.folder / "event.json").write_text(EVENT)
    execution = project.data("run", "order-notify", "--event", "event.json")
    assert execution["status"] == "COMPLETED"
    assert execution["output"] == {"sum": 120}
    assert {s["step_id"]: s["attempts"] for s in execution["steps"]} == {"total": 1, "send": 3}


def test_run_with_store_leaves_the_execution_in_the_database(project) -> None:
    """Afterwards executions ls, show and the picture tell of it."""
    stored = project.data("run", "order-notify", "--event", "-", "--store", input=EVENT)
    listed = project.data("executions", "ls", "--status", "completed")
    assert [each["id"] for each in listed] == [stored["id"]]
    shown = project.run("executions", "show", stored["id"]).stdout
    assert "│ ✓ send" in shown or "✓ send" in shown
    assert '"total": 120' in shown
    assert project.data("executions", "show", stored["id"])["output"] == {"sum": 120}


def begin_beside(slow, monkeypatch) -> None:
    """Let items of the kind `slow` begin before the workflow's first step ends."""
    both = threading.Barrier(2, timeout=60)

    def begin(item) -> None:
        both.wait()
        slow(item)

    def configure(kernel) -> None:
        kernel.handler("slow")(begin)

        @kernel.action("cliapp_shop.total")
        def total(lines: list[int]) -> int:
            both.wait()
            return sum(lines)

        @kernel.action("cliapp_shop.send")
        def send(text: str, token: str) -> str:
            return text

    shop = ModuleType("cliapp_shop")
    shop.automate_configure = configure
    monkeypatch.setitem(sys.modules, "cliapp_shop", shop)


def test_run_waits_for_what_else_it_has_begun(project, monkeypatch) -> None:
    """However long that takes: left behind it would run again, once its lease has ended."""
    shown, happened = threading.Event(), list[str]()
    join, show = threading.Thread.join, events._show

    def joined(thread: threading.Thread, timeout: float | None = None) -> None:
        # Whoever waits for so many seconds has waited for them.
        join(thread, 0 if timeout and thread.name == "automate-worker" else timeout)

    monkeypatch.setattr(threading.Thread, "join", joined)

    def look(*given) -> None:
        happened.append("shown")
        shown.set()
        show(*given)

    monkeypatch.setattr(events, "_show", look)

    def slow(item) -> None:
        shown.wait(0.5)
        happened.append("done")

    begin_beside(slow, monkeypatch)
    item_id = project.store().enqueue("slow")
    project.run("run", "order-notify", "--event", "-", "--store", input=EVENT)
    assert happened == ["done", "shown"]
    assert project.store().get(item_id).status.value == "COMPLETED"


def test_who_does_not_wait_for_what_else_was_begun_sees_what_was_asked_for(
    project, monkeypatch
) -> None:
    """Ctrl-C hands the rest back, and the execution that has ended is shown."""
    asked, over = threading.Event(), threading.Event()
    tell = events.Progress.waits_for

    def told(progress: events.Progress, others: int) -> None:
        tell(progress, others)
        asked.set()

    monkeypatch.setattr(events.Progress, "waits_for", told)

    def slow(item) -> None:
        assert asked.wait(60)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        over.wait(60)

    begin_beside(slow, monkeypatch)
    item_id = project.store().enqueue("slow")
    done = project.run("run", "order-notify", "--event", "-", "--store", input=EVENT)
    over.set()
    assert "order-notify COMPLETED" in done.stdout
    assert "waiting for what else has begun, 1 item; Ctrl-C hands it back" in done.stderr
    assert project.store().get(item_id).status.value == "PENDING"


def test_run_writes_to_no_database_of_an_app_unless_it_may(project) -> None:
    """A kernel that the app brings along has its own, which --store is needed for."""
    (project.folder / "cliapp_shop.py").write_text(
        "import sqlalchemy\nfrom automate_kernel import Kernel\n"
        "from automate_sqlalchemy import SqlAlchemyStorage\n"
        "engine = sqlalchemy.create_engine('sqlite:///own.sqlite3')\n"
        "storage = SqlAlchemyStorage(engine)\nstorage.create_tables()\n"
        "kernel = Kernel(storage, workflows=['w.yaml'], discover=False)\n"
        "kernel.action('a.b')(lambda: 1)\n"
    )
    (project.folder / "w.yaml").write_text(
        "name: w\ntrigger: {type: manual}\nsteps: [{id: a, action: a.b}]\n"
    )
    assert "add --store" in project.run("run", "w", code=2).stderr
    assert project.data("run", "w", "--store")["status"] == "COMPLETED"
    assert len(project.data("executions", "ls")) == 1


def test_run_of_a_workflow_that_fails_exits_with_1(project) -> None:
    """The step, the code and the message are told."""
    (project.folder / "fails.yaml").write_text(
        "name: fails\ntrigger: {type: manual}\nsteps:\n"
        "  - {id: a, action: cliapp_shop.total, input: {lines: 3}}\n"
    )
    out = project.run("run", "fails.yaml", code=1).stdout
    assert "✗ a" in out
    assert "INVALID_ARGUMENT" in out


def test_run_tells_when_the_event_would_not_start_the_workflow(project) -> None:
    """The trigger's condition counts, unless it is forced."""
    event = '{"total": 1, "lines": [1]}'
    result = project.run("run", "order-notify", "--event", "-", input=event, code=1)
    assert "doesn't start 'order-notify'" in result.stderr
    project.run("run", "order-notify", "--event", "-", "--force", input=event)


# -- emit and work -----------------------------------------------------------------------------------


def test_an_emitted_event_waits_until_a_worker_runs_it(project) -> None:
    """The id that emit prints is the item's, and the same key is the same event."""
    first = project.run("emit", "order.created", EVENT, "--idempotency-key", "7")
    again = project.run("emit", "order.created", "-", "--idempotency-key", "7", input=EVENT)
    assert first.stdout == again.stdout
    [item] = project.data("outbox", "ls")
    assert (item["id"], item["status"]) == (first.stdout.strip(), "PENDING")
    assert "lease_token" not in item
    assert project.data("outbox", "show", item["id"])["payload"]["name"] == "order.created"
    assert "completed" in project.run("worker", "--until-idle").stdout
    assert project.data("outbox", "show", item["id"])["status"] == "COMPLETED"
    assert [each["workflow"] for each in project.data("executions", "ls")] == ["order-notify"]


def test_items_are_cancelled_and_requeued_by_id_and_by_filter(project) -> None:
    """Many at once only after a yes, and of one kind if that is asked for."""
    ids = [project.run("emit", "x.y").stdout.strip() for _ in range(3)]
    assert project.data("outbox", "cancel", ids[0]) == {"cancelled": 1, "unchanged": 0}
    assert "3 items" not in project.run("outbox", "cancel", "--all", code=2).stdout
    assert project.data("outbox", "cancel", "--all", "--kind", "other", "--yes")["cancelled"] == 0
    assert project.data("outbox", "cancel", "--all", "--yes")["cancelled"] == 2
    assert (
        project.data("outbox", "requeue", "--all", "--status", "cancelled", "-y")["requeued"] == 3
    )
    assert project.data("outbox", "ls", "--by-kind")["counts"]["automate.event"] == {"PENDING": 3}
    result = project.run("outbox", "requeue", ids[0], code=1)
    assert "1 item could not be requeued" in result.stderr


def test_filters_reach_every_item_in_batches(project, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, and of one tenant if that is asked for."""
    monkeypatch.setattr("automate_kernel.outbox.operator_commands.BATCH", 2)
    for tenant in ("a", "a", "a", "a", "a", "b"):
        project.run("emit", "x.y", "--tenant", tenant)
    assert project.data("outbox", "cancel", "--all", "--tenant", "a", "-y")["cancelled"] == 5
    assert project.data("outbox", "ls", "--by-kind")["counts"]["automate.event"] == {
        "CANCELLED": 5, "PENDING": 1,
    }  # fmt: skip


def test_failed_items_come_back_at_a_rate_and_go_for_good(project) -> None:
    """What failed is requeued by filter, put off, and discarded."""
    ids = [project.run("emit", "x.y", "--idempotency-key", str(n)).stdout.strip() for n in range(3)]
    store = project.store()
    for item in store.claim_batch("worker"):
        store.mark_failed(item.id, "worker", "DOWN", "the service is down")
    again = ("outbox", "requeue", "--failed", "-y")
    assert project.data(*again, "--error-code", "OTHER")["requeued"] == 0
    assert project.data(*again, "--newer-than", "1h", "--limit", "2", "--rate", "0.1") == {
        "requeued": 2, "unchanged": 0,
    }  # fmt: skip
    due = [store.get(item_id).next_attempt_at for item_id in ids[:2]]
    assert (due[1] - due[0]).total_seconds() == 10
    assert project.data("outbox", "requeue", ids[0], "--delay", "2h")["rescheduled"] == 1
    assert store.get(ids[0]).waiting_for == "time"
    assert (
        "--rate goes with" in project.run("outbox", "requeue", ids[2], "--rate", "1", code=2).stderr
    )
    assert project.data("outbox", "purge", ids[2])["deleted"] == 1
    project.run("outbox", "cancel", *ids[:2])
    assert project.data("outbox", "purge", "--all", "--older-than", "1h", "-y")["deleted"] == 0
    assert project.data("outbox", "purge", "--all", "-y")["deleted"] == 2
    assert project.data("outbox", "ls") == []


def test_more_than_a_handful_are_changed_only_after_a_yes(project) -> None:
    """Ids too, if they are many."""
    ids = [project.run("emit", "x.y").stdout.strip() for _ in range(11)]
    assert "add --yes" in project.run("outbox", "cancel", *ids, code=2).stderr
    assert project.data("outbox", "cancel", *ids, "--yes")["cancelled"] == 11


def test_a_running_item_is_asked_to_stop(project) -> None:
    """Cancel names those that run only where that is said."""
    item_id = project.run("emit", "x.y").stdout.strip()
    store = project.store()
    store.claim_batch("worker")
    assert project.data("outbox", "cancel", "--all", "-y")["cancelled"] == 0
    assert project.data("outbox", "cancel", "--all", "--status", "running", "-y")["cancelled"] == 1
    assert store.stop_requests("worker").keys() == {item_id}


def test_kinds_are_limited(project) -> None:
    """Limits are set, listed and lifted."""
    project.run("outbox", "limit", "mail.send", "--concurrency", "5")
    project.run("outbox", "limit", "crm.update", "--rate", "100/1m", "--burst", "10")
    assert project.data("outbox", "limit") == [
        {"kind": "crm.update", "concurrency": None, "rate": 100, "per_seconds": 60.0, "burst": 10,
         "declared": False},
        {"kind": "mail.send", "concurrency": 5, "rate": None, "per_seconds": 1.0, "burst": None,
         "declared": False},
    ]  # fmt: skip
    assert "100 in 60 s" in project.run("outbox", "limit").stdout
    assert project.data("outbox", "limit", "mail.send", "--remove") == {
        "kind": "mail.send",
        "lifted": True,
    }
    assert project.data("outbox", "limit", "mail.send", "--remove")["lifted"] is False
    assert "100/1m" in project.run("outbox", "limit", "x", "--rate", "fast", code=2).stderr
    assert "nothing is limited" in project.run("outbox", "limit", "x", code=2).stderr


def test_an_executions_own_item_is_left_to_the_executions_commands(project) -> None:
    """Cancelling it would leave the execution waiting for ever."""
    flow = project.folder / "workflows" / "order.yaml"
    flow.write_text(WORKFLOW.replace("delay: 10ms", "delay: 5m"))
    project.run("emit", "order.created", EVENT)
    project.run("worker", "--until-idle")
    [item] = project.data("outbox", "ls", "--kind", "automate.advance")
    result = project.run("outbox", "requeue", item["id"], code=2)
    assert "use automate executions retry" in result.stderr
    for given in (item["id"],), ("--all", "--kind", item["kind"], "--yes"):
        result = project.run("outbox", "cancel", *given, code=2)
        assert "belongs to an execution" in result.stderr
    assert project.data("outbox", "cancel", "--all", "--yes")["cancelled"] == 0
    assert project.data("outbox", "show", item["id"])["status"] == "PENDING"


def test_kinds_are_paused_and_resumed_and_old_items_purged(project) -> None:
    """What is paused shows in stats; purge asks for how old."""
    asked = project.run("pause", "kind", "mail.send", "--reason", "down").stderr
    assert "there is no item of mail.send yet; is the name right?" in asked
    assert project.data("outbox", "ls", "--by-kind")["paused"] == ["mail.send"]
    assert "paused: mail.send" in project.run("outbox", "ls", "--by-kind").stdout
    project.run("resume", "kind", "mail.send")
    assert project.data("outbox", "ls", "--by-kind")["paused"] == []
    assert project.data("outbox", "requeue", "--stale") == {"reaped": 0}
    project.run("emit", "x.y")
    project.run("outbox", "cancel", "--all", "-y")
    assert project.data("outbox", "purge", "--older-than", "1h", "-y") == {"purged": 0}
    assert project.data("outbox", "purge", "--older-than", "0", "-y") == {"purged": 1}
    assert (
        "not a duration" in project.run("outbox", "purge", "--older-than", "x", "-y", code=2).stderr
    )


def test_a_workflow_that_nobody_has_seen_is_paused_with_a_question(project) -> None:
    """A misspelt name would hold up nothing, though the command said that it is paused."""
    project.run("run", "order-notify", "--detach", "--payload", EVENT)
    asked = project.run("pause", "workflow", "order-notfy").stderr
    assert "there is no execution of order-notfy yet" in asked
    assert "did you mean 'order-notify'?" in asked
    assert project.data("resume", "workflow", "order-notfy") == {"order-notfy": "resumed"}
    assert project.run("pause", "workflow", "order-notify").stderr == ""


def test_executions_are_cancelled_and_resumed(project) -> None:
    """A failed one runs again from where it failed; one that ended can't be cancelled."""
    flow = project.folder / "workflows" / "order.yaml"
    flow.write_text(WORKFLOW.replace("attempts: 3", "attempts: 1"))
    failed = project.data("run", "order-notify", "--event", "-", "--store", input=EVENT, code=1)
    project.run("executions", "retry", failed["id"])
    project.run("worker", "--until-idle")
    assert project.data("executions", "show", failed["id"])["status"] == "FAILED"  # the second try
    assert project.data("executions", "retry", failed["id"]) == {failed["id"]: "resumed"}
    project.run("worker", "--until-idle")
    assert project.data("executions", "show", failed["id"])["status"] == "COMPLETED"
    assert "is COMPLETED" in project.run("executions", "cancel", failed["id"], code=1).stderr


# -- what failed -------------------------------------------------------------------------------------

FAULTY = """
from automate_kernel import Kernel

kernel = Kernel


def charge(card: str) -> int:
    prices = {"visa": 1}
    return prices[card]


def refund(card):
    return 1 / 0
"""


@pytest.fixture
def failures(project):
    """Items of one kind that fail in two places, and a workflow's execution that fails."""
    from automate_kernel import Kernel
    from automate_cli.database import open_storage

    (project.folder / "cliapp_faulty.py").write_text(FAULTY)
    sys.path.insert(0, str(project.folder))
    import cliapp_faulty

    def work(item):
        getattr(cliapp_faulty, item.payload)("amex")

    storage = open_storage("sqlite:///automate.sqlite3", folder=project.folder)
    with Kernel(storage, discover=False) as kernel:
        kernel.handler("pay", backoff=Backoff(base_seconds=0.001))(work)
        kernel.action("shop.charge")(cliapp_faulty.charge)
        kernel.add_workflow(
            {
                "name": "pay",
                "trigger": {"type": "event", "event": "order.paid"},
                "steps": [
                    {
                        "id": "charge", "action": "shop.charge", "input": {"card": "amex"},
                        "retry": {"attempts": 2, "delay": 0, "jitter": False},
                    }
                ],
            }
        )  # fmt: skip
        ids = [
            kernel.outbox.enqueue("pay", what, max_attempts=2, labels={"order": number})
            for number, what in enumerate(("charge", "charge", "refund"))
        ]
        kernel.emit("order.paid", labels={"order": 4711})
        kernel.run_until_idle(patience=5)
        (execution,) = kernel.executions.find()
    return SimpleNamespace(ids=ids, execution=execution.id)


def test_an_item_shows_where_every_attempt_failed(project, failures) -> None:
    """Files, lines and their source, for people and for programs."""
    shown = project.run("outbox", "show", failures.ids[0]).stdout
    assert shown.count("return prices[card]") == 2
    assert "attempt 1 failed at" in shown
    assert "KeyError in cliapp_faulty.charge" in shown
    told = project.data("outbox", "show", failures.ids[0])
    assert [each["attempt"] for each in told["failed_attempts"]] == [1, 2]
    assert 'cliapp_faulty.py", line 9, in charge' in told["failed_attempts"][0]["trace"]
    assert told["labels"] == {"order": "0"}


def test_an_execution_shows_where_every_attempt_failed(project, failures) -> None:
    """With the step that it was."""
    shown = project.run("executions", "show", failures.execution).stdout
    assert shown.count("return prices[card]") == 2
    assert "charge, attempt 2 failed at" in shown
    told = project.data("executions", "show", failures.execution)
    assert told["error_group"] == "KeyError in cliapp_faulty.charge"
    assert [each["step_id"] for each in told["failed_attempts"]] == ["charge", "charge"]
    assert [(each["attempt"], each["status"]) for each in told["attempts"]] == [
        (1, "FAILED"), (2, "FAILED"),
    ]  # fmt: skip
    for each in told["attempts"]:
        assert each["started_at"] <= each["ended_at"]
        assert each["duration_seconds"] >= 0
        assert each["worker_id"] in shown
    assert "order=4711" in shown


def test_errors_are_grouped_and_put_back_by_group(project, failures) -> None:
    """Errors of one code and two places are two groups; one is retried, the other stays."""
    groups = project.data("outbox", "ls", "--by-error")
    assert [(each["group"], each["count"]) for each in groups] == [
        ("KeyError in cliapp_faulty.charge", 2),
        ("ZeroDivisionError in cliapp_faulty.refund", 1),
    ]
    assert (
        "ZeroDivisionError in cliapp_faulty.refund"
        in project.run("outbox", "ls", "--by-error").stdout
    )
    (group,) = project.data("executions", "ls", "--by-error")
    assert (group["kind"], group["group"]) == ("pay", "KeyError in cliapp_faulty.charge")
    wanted = ("--failed", "--error", "KeyError in cliapp_faulty.charge", "-y")
    assert project.data("outbox", "retry", *wanted)["requeued"] == 2
    assert [each["count"] for each in project.data("outbox", "ls", "--by-error")] == [1]
    found = project.data("executions", "ls", "--error", "KeyError in cliapp_faulty.charge")
    assert [each["id"] for each in found] == [failures.execution]


def test_things_are_found_by_a_key_of_the_hosts(project, failures) -> None:
    """The event, and what it started; an item; with the name or without."""
    found = project.data("executions", "ls", "--label", "order=4711")
    assert [each["id"] for each in found] == [failures.execution]
    found = project.data("outbox", "ls", "--label", "order=4711")
    assert [each["kind"] for each in found] == ["automate.event"]
    assert project.data("outbox", "ls", "--label", "2")[0]["id"] == failures.ids[2]
    assert "no items" in project.run("outbox", "ls", "--label", "order=9").stdout
    assert failures.execution in project.run("executions", "ls", "--label", "4711").stdout
    (item,) = project.data("outbox", "ls", "--label", "order=1", "--kind", "pay")
    assert item["id"] == failures.ids[1]
    (execution,) = project.data("executions", "ls", "--label", "4711", "--status", "failed")
    assert execution["id"] == failures.execution
    emitted = project.run("emit", "x.y", "--label", "order=8", "--label", "customer=c").stdout
    assert project.data("outbox", "ls", "--label", "customer=c")[0]["id"] == emitted.strip()
    assert "has no value" in project.run("emit", "x.y", "--label", "order", code=2).stderr


# -- looking -----------------------------------------------------------------------------------------


def test_workflows_are_validated_with_their_actions(project) -> None:
    """What the model can't know: actions, their fields, webhooks, variables."""
    assert project.data("workflow", "validate")["ok"] is True
    (project.folder / "workflows" / "wrong.yaml").write_text(
        "name: wrong\ntrigger: {type: webhook, connector: http, trigger: push}\nsteps:\n"
        "  - {id: a, action: cliapp_shop.totel}\n"
        "  - {id: b, action: cliapp_shop.total, input: {lins: []}}\n"
        "  - {id: b2, action: cliapp_shop.total, input: {lines: [{price: '{{ 1 }}'}]}}\n"
        "  - {id: b3, action: cliapp_shop.total, input: {lines: many}}\n"
        "  - {id: c, action: http.pst}\n"
        "  - {id: d, action: cliapp_shop.send, input: {text: $env:HOME, token: x}}\n"
    )
    out = project.run("workflow", "validate", "workflows/wrong.yaml", code=2).stdout
    for told in (
        "trigger: http has no trigger 'push'",
        "steps.a.action: there is no action 'cliapp_shop.totel' (did you mean 'cliapp_shop.total'?",
        "steps.b.input.lins: cliapp_shop.total has no such field (it has: lines)",
        "steps.b.input: cliapp_shop.total needs the field 'lines'",
        "steps.b3.input.lines: cliapp_shop.total: Input should be a valid ",
        "steps.c.action:",
        "env:",
    ):
        assert told in out
    assert "steps.b2" not in out
    assert project.data("workflow", "validate", "--syntax", "workflows/wrong.yaml")["ok"] is True


def test_a_run_with_an_unknown_action_says_so_at_once(project) -> None:
    """Who waits for it here has the reason, where a worker would hand it over."""
    (project.folder / "typo.yaml").write_text(
        "name: typo\ntrigger: {type: manual}\nsteps:\n  - {id: a, action: cliapp_shop.totel}\n"
    )
    for store in ((), ("--store",)):
        result = project.run("run", "typo.yaml", *store, code=1)
        assert "there is no action 'cliapp_shop.totel'" in result.output


def test_an_execution_says_which_worker_has_it_and_for_how_long(project) -> None:
    """Else one whose worker was killed is RUNNING, and nobody says why nothing happens."""
    from automate_kernel import Kernel

    project.run("db", "migrate")
    kernel = Kernel(project.store().storage, discover=False, secrets={})
    kernel.add_workflow(project.folder / "workflows")
    one = kernel.start("order-notify", json.loads(EVENT))
    assert project.data("executions", "show", one)["worker"] is None
    (item,) = kernel.outbox.claim_batch("killed-worker", 1)
    found = project.data("executions", "show", one)["worker"]
    assert found["id"] == "killed-worker"
    assert datetime.fromisoformat(found["lease_expires_at"]) == item.lease_expires_at
    shown = " ".join(project.run("executions", "show", one).stdout.split())
    assert "worker killed-worker, until 2" in shown
    assert "unless it goes on" in shown
    kernel.outbox.release([item.id], "killed-worker")
    project.run("worker", "--until-idle")
    assert project.data("executions", "show", one)["worker"] is None


def test_what_is_handed_over_is_shown(project) -> None:
    """By the execution, by top and by the doctor, with the reason."""
    (project.folder / "typo.yaml").write_text(
        "name: typo\ntrigger: {type: event, event: typo.made}\nsteps:\n"
        "  - {id: a, action: cliapp_shop.totel}\n"
    )
    from automate_kernel import Kernel

    store = project.store()
    store.storage.create_tables()
    kernel = Kernel(store.storage, discover=False, secrets={})
    kernel.add_workflow(project.folder / "typo.yaml")
    one = kernel.start("typo")
    kernel.run_until_idle()
    told = "know the action 'cliapp_shop.totel'"
    shown = " ".join(project.run("executions", "show", one).stdout.split())
    assert "handed over" in shown
    assert told in shown
    assert project.data("executions", "show", one)["handed_over"]["code"] == "UNKNOWN_ACTION"
    assert "1 handed over" in project.run("top", "--once").stdout
    findings = project.data("doctor")["findings"]
    assert any(told in each["text"] for each in findings)


def test_a_malformed_workflow_is_told_with_its_line(project) -> None:
    """All its problems, whichever command reads it."""
    broken = project.folder / "broken.yaml"
    broken.write_text(
        "name: x\ntrigger: {type: manual}\nsteps:\n  - {id: a, action: b.c, retrys: 2}\n"
    )
    for arguments in (("workflow", "validate", "broken.yaml"), ("run", "broken.yaml")):
        result = project.run(*arguments, code=2)
        assert "broken.yaml:4: steps.a.retrys: there is no such field" in result.output
    broken.write_text("name: [x\n")
    assert "broken.yaml:2" in project.run("run", "broken.yaml", code=2).stderr


CASES = """\
replace: {cliapp_shop.send: {output: sent}}
real: [cliapp_shop.total]
cases:
  - name: it adds up
    payload: {total: 120, lines: [100, 20]}
    expect:
      calls: [{cliapp_shop.send: {text: 120 EUR}}]
  - name: it is wrong
    payload: {total: 120, lines: [100, 20]}
    expect: {output: {sum: 121}}
"""


def test_workflows_are_tested_with_their_cases(project) -> None:
    """Each with its result; 1 if one fails, 2 without any; the real service is not called."""
    assert "there are no tests" in project.run("workflow", "test", code=2).stderr
    (project.folder / "workflows" / "order.test.yaml").write_text(CASES)
    out = project.run("workflow", "test", code=1).stdout
    assert "✓ it adds up" in out
    assert "output.sum: expected 121, got 120" in out
    assert "1 passed, 1 failed" in out
    found = project.data("workflow", "test", "workflows", "--only", "adds")
    assert (found["ok"], [each["name"] for each in found["cases"]]) == (True, ["it adds up"])
    error = project.run("workflow", "test", "workflows", "--only", "it ads up", code=2).stderr
    assert "no case has 'it ads up' in its name" in error
    assert "did you mean 'it adds up'?" in error
    assert not (project.folder / "tries").exists()
    assert not (project.folder / "automate.sqlite3").exists()
    assert project.data("workflow", "ls")[0]["name"] == "order-notify"
    # A copy elsewhere is tested by itself, though a workflow of its name is configured.
    (project.folder / "order.yaml").write_text(WORKFLOW.replace("EUR", "USD"))
    (project.folder / "order.test.yaml").write_text(CASES.replace("EUR", "USD"))
    assert project.data("workflow", "test", "order.test.yaml", "--only", "adds")["ok"] is True
    # Of a workflow that is configured by its file, the cases beside it are meant.
    config = project.folder / "automate.toml"
    config.write_text('workflows = ["workflows/order.yaml"]\n' + config.read_text())
    assert project.data("workflow", "test", "--only", "adds")["ok"] is True
    (project.folder / "wrong.test.yaml").write_text("cass: []")
    assert "wrong.test.yaml:1: cass" in project.run("workflow", "test", ".", code=2).stderr


def test_a_dry_run_shows_the_calls_and_makes_none(project) -> None:
    """With the payload given, from a file or standard input; 1 if something would fail."""
    out = project.run(
        "run", "--dry-run", "order-notify", "--payload", EVENT, "--output", "total=7"
    ).stdout
    assert "the event starts it" in out
    assert '{"lines": [100, 20]}' in out
    assert '"text": "7 EUR"' in out
    assert "hunter2" not in out
    out = project.run("run", "--dry-run", "workflows/order.yaml", "--event", "-", input=EVENT)
    assert "[depends on steps.total.output] EUR" not in out.stdout  # a text is marked as a whole
    assert "depends on steps.total.output" in out.stdout
    found = project.data("run", "--dry-run", "order-notify", "--payload", "{}", code=1)
    assert found["starts"] is None
    assert any("lines" in problem for problem in found["problems"])
    assert not (project.folder / "tries").exists()
    for arguments, text in (
        (("--output", "total"), "write step=JSON"),
        (("--output", "totl=1"), "did you mean 'total'"),
        (("--payload", "1", "--event", "-"), "once"),
    ):
        assert text in project.run("run", "--dry-run", "order-notify", *arguments, code=2).stderr


def test_two_definitions_are_compared(project) -> None:
    """Files, names and stored hashes; how many executions go on with the first."""
    flow = project.folder / "workflows" / "order.yaml"
    (project.folder / "old.yaml").write_text(flow.read_text())
    changed = flow.read_text().replace("10ms", "20ms").replace("EUR", "USD")
    assert (
        "automate db migrate"
        in project.run("workflow", "show", "order-notify", "--diff", "stored", code=1).stderr
    )
    project.run("run", "order-notify", "--event", "-", "--store", input=EVENT)
    flow.write_text(changed)
    out = project.run("workflow", "show", "workflows/order.yaml", "--diff", "old.yaml").stdout
    assert "~ steps.send.retry.delay: 10ms → 20ms" in out
    assert "~ steps.send.input.text: {{ steps.total.output }} EUR → {{ steps" in out
    found = project.data("workflow", "show", "order-notify", "--diff", "stored")
    assert [change["place"] for change in found["changes"]] == [
        "steps.send.input.text", "steps.send.retry.delay",
    ]  # fmt: skip
    assert found["running_before"] == 0
    (project.folder / "new.yaml").write_text(changed.replace("name: order-notify", "name: new"))
    assert (
        "no execution of 'new'"
        in project.run("workflow", "show", "new.yaml", "--diff", "stored", code=2).stderr
    )
    digest = found["before"]["hash"]
    assert (
        "no difference" in project.run("workflow", "show", "old.yaml", "--diff", digest[:10]).stdout
    )
    assert (
        "no stored definition"
        in project.run("workflow", "show", "old.yaml", "--diff", "0" * 12, code=1).stderr
    )


def test_a_workflow_is_drawn_as_text_mermaid_and_svg(project) -> None:
    """From its name or its file."""
    assert "\n    send  [" in project.run("workflow", "show", "order-notify").stdout
    assert project.run("workflow", "show", "order-notify", "--mermaid").stdout.startswith(
        "flowchart"
    )
    assert project.run("workflow", "show", "workflows/order.yaml", "--svg").stdout.startswith(
        "<svg"
    )
    assert project.data("workflow", "show", "order-notify")["name"] == "order-notify"
    assert [each["name"] for each in project.data("workflow", "ls")] == ["order-notify"]
    schema = json.loads(project.run("workflow", "show", "--schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")


def test_plugins_are_listed_and_shown(project) -> None:
    """With their actions and what those take; others may be installed too."""
    listed = project.data("plugins", "ls")
    own = [each for each in listed if each["source"].startswith("automate-http ")]
    assert [(each["kind"], each["key"]) for each in own] == [
        ("connector", "http"),
        ("relay", "http"),
    ]
    shown = project.run("plugins", "show", "connector:http").stdout
    assert "action  post(url, " in shown
    assert "allow_private_networks" in shown
    for meant in ("htpp", "http.post"):
        assert "did you mean http?" in project.run("plugins", "show", meant, code=1).stderr


def test_secrets_check_names_what_is_missing_and_shows_no_value(
    project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the exit code that a deployment looks at."""
    [secret] = project.data("doctor", "--secrets")["secrets"]
    assert (secret["key"], secret["ok"], secret["backend"]) == ("CHAT_TOKEN", True, "env")
    monkeypatch.setenv("AUTOMATE_SECRET_CHAT_TOKEN", "2024")
    [secret] = project.data("doctor", "--secrets")["secrets"]
    assert "short or common" in secret["warning"]
    assert "short or common" in project.run("doctor", "--secrets").stdout
    monkeypatch.delenv("AUTOMATE_SECRET_CHAT_TOKEN")
    out = project.run("doctor", "--secrets", code=1).stdout
    assert "set the environment variable AUTOMATE_SECRET_CHAT_TOKEN" in out


def test_doctor_finds_nothing_and_then_finds_it_all(
    project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each check fails by itself, and the others are still made."""
    project.run("db", "migrate")
    report = project.data("doctor")
    assert report["ok"] is True
    assert {each["state"] for each in report["findings"]} == {"ok"}
    monkeypatch.delenv("AUTOMATE_SECRET_CHAT_TOKEN")
    monkeypatch.setenv("AUTOMATE_DATABSE", "x")
    flow = project.folder / "workflows" / "order.yaml"
    flow.write_text(WORKFLOW.replace("cliapp_shop.total", "cliapp_shop.nope"))
    result = project.run("doctor", "--database", "sqlite:////nowhere/x.db", code=1)
    for told in ("unable to open", "cliapp_shop.nope", "CHAT_TOKEN", "AUTOMATE_DATABSE"):
        assert told in result.stdout


def test_doctor_notices_stale_leases_and_late_items(project) -> None:
    """A worker that died, and nobody there to take over."""
    from datetime import datetime, timedelta, timezone

    from automate_cli.database import open_storage
    from automate_kernel.outbox import RowsOutboxStore

    storage = open_storage("sqlite:///automate.sqlite3", folder=project.folder)
    storage._clock = lambda: datetime.now(timezone.utc) - timedelta(hours=1)
    outbox = RowsOutboxStore(storage, lease_seconds=5)
    outbox.enqueue_many([])
    for kind in ("a.b", "c.d"):
        outbox.enqueue(kind)
    outbox.claim_batch("worker-that-died", kinds=["a.b"])
    storage.engine.dispose()
    out = project.run("doctor", code=1).stdout
    assert "1 item held by workers that stopped renewing: worker-that-died" in out
    assert "the oldest due item has waited for" in out
    assert "1 item waiting, the oldest due for" in out
    assert "and no worker runs" in out
    assert "start one: automate worker" in out
    assert "no worker runs" not in project.run("doctor", "--idle-after", "2h").stdout
    assert project.data("outbox", "requeue", "--stale") == {"reaped": 1}


def test_config_shows_each_value_and_where_it_came_from(project) -> None:
    """Flags, variables, the file with its line, defaults."""
    shown = project.data("doctor", "--settings", "--database", "postgresql://u:hunter2@h/d")[
        "settings"
    ]
    assert shown["database"]["value"] == "postgresql://u:***@h/d"
    assert shown["database"]["source"] == "--database"
    assert shown["app"]["source"] == "automate.toml:1"
    told = project.data(
        "doctor", "--settings", "--show-values", "--database", "postgresql://u:p4ss@h/d"
    )
    assert told["settings"]["database"]["value"] == "postgresql://u:p4ss@h/d"
    assert shown["worker.slots"] == {
        "value": 10, "source": "default", "variable": "AUTOMATE_WORKER_SLOTS",
        "help": "Calls at once in a process.",
    }  # fmt: skip


def test_every_command_has_help_with_examples() -> None:
    """One that lacks them would be the one that somebody needs."""
    import typer

    def check(command, path: list[str]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            if not inner.hidden:  # another name of one that is shown
                check(inner, [*path, name])
        if not hasattr(command, "commands"):
            assert command.help, path
            assert f"automate {' '.join(path)}" in (command.epilog or ""), path

    check(typer.main.get_command(app), [])


# -- mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "code", "told"),
    [
        ("automate.sqlite3", 2, "not given as a URL"),
        ("postgresql://u:hunter2@127.0.0.1:1/d", 1, "Connection refused"),
        ("sqlite:////nowhere/x.db", 1, "check that the folder exists"),
        ("sqlite:///cliapp_shop.py", 1, "not a database"),
    ],
)
def test_a_wrong_database_is_one_line_and_a_remedy(project, url: str, code: int, told: str) -> None:
    """Whatever the driver raised, and with no password in it."""
    result = project.run("outbox", "ls", "--database", url, code=code)
    assert told in result.stderr
    assert "hint: " in result.stderr
    assert len(result.stderr.strip().split("\n")) == 2


def test_a_database_that_cannot_be_written_is_told_so(project) -> None:
    """Instead of a locked or missing table."""
    project.run("emit", "x.y")
    url = f"sqlite:///file:{project.folder}/automate.sqlite3?mode=ro&uri=true"
    result = project.run("emit", "x.y", "--database", url, code=1)
    assert "readonly" in result.stderr
    assert "permissions" in result.stderr


def test_an_app_that_raises_at_import_does_not_end_in_a_traceback(project) -> None:
    """Unless that is asked for."""
    (project.folder / "cliapp_shop.py").write_text("raise RuntimeError('at import')\n")
    result = project.run("run", "order-notify", code=2)
    assert result.stderr.startswith("error: app: cliapp_shop can't be imported: RuntimeError")
    project.run("outbox", "ls", code=2)
    project.run("outbox", "ls", "--database", "sqlite:///automate.sqlite3")
    debugged = CliRunner().invoke(app, ["run", "order-notify", "--debug"])
    assert "Traceback" in debugged.output


def test_a_plugin_that_raises_at_import_is_shown_as_broken(
    project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands that don't need it work."""
    from automate_kernel.plugins import discovery

    (project.folder / "cliapp_broken.py").write_text("raise SystemExit('no licence')\n")
    found = discovery.Found(
        "connector", "bad", "cliapp_broken:Bad", "automate.connectors", "automate-bad", "1"
    )
    monkeypatch.setattr("automate_kernel.plugins.registry.scan", lambda: (found,))
    assert project.data("plugins", "ls")[0]["state"] == "DISCOVERED"
    out = project.run("plugins", "ls", "--load", code=1)
    assert "no licence" in out.stdout
    assert "no licence" in project.run("plugins", "show", "bad", code=2).stderr
    assert project.data("run", "order-notify", "--event", "-", input=EVENT)["status"] == "COMPLETED"
    assert "BROKEN" in project.run("doctor", code=1).stdout


UNUSABLE = """
from automate_kernel.plugins.connectors import Connector, action

class Strict(Connector):
    key = "strict"
    display_name = "Strict"

    @classmethod
    def config_schema(cls):
        return {
            "type": "object",
            "properties": {"url": {"type": "string", "description": "where it is"}},
            "required": ["url"],
        }

    @action
    def ping(self) -> dict[str, str]:
        return {}

class Dying(Connector):
    key = "dying"
    display_name = "Dying"

    def __init__(self, config, *, ctx=None):
        raise RuntimeError("no licence")

class Unread(Connector):
    key = "unread"
    display_name = "Unread"

    @classmethod
    def actions(cls):
        raise SystemExit(3)
"""


def test_a_plugin_that_loads_and_can_not_be_used_is_told(
    project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its config, its constructor, its actions; a schema may be a mapping."""
    from automate_kernel.plugins import discovery

    (project.folder / "cliapp_unusable.py").write_text(UNUSABLE)
    found = tuple(
        discovery.Found(
            "connector", name.lower(), f"cliapp_unusable:{name}", "automate.connectors", "x", "1"
        )
        for name in ("Strict", "Dying", "Unread")
    )
    monkeypatch.setattr("automate_kernel.plugins.registry.scan", lambda: found)
    listed = project.data("plugins", "ls", "--load", code=1)
    assert {each["key"]: each["state"] for each in listed} == {
        "dying": "UNUSABLE",
        "strict": "UNUSABLE",
        "unread": "UNUSABLE",
    }
    out = project.run("plugins", "ls", "--load", code=1).stdout
    assert "connector strict: the config of connector 'strict' is not valid: " in out
    assert "connector 'dying' could not be created: RuntimeError" in out
    assert "connector unread: connector 'unread' raised SystemExit" in out
    assert "config  url: where it is" in project.run("plugins", "show", "strict").stdout
    with (project.folder / "automate.toml").open("a") as file:
        file.write('[config.strict]\nurl = "http://x"\n')
    listed = project.data("plugins", "ls", "--load", code=1)
    assert [each["key"] for each in listed if each["state"] == "LOADED"] == ["strict"]


def test_wrong_settings_are_told_by_every_command(project) -> None:
    """With file, line and what was meant."""
    with (project.folder / "automate.toml").open("a") as file:
        file.write("slot = 3\n")
    for arguments in (("doctor", "--settings"), ("worker",), ("outbox", "ls"), ("run", "x")):
        result = project.run(*arguments, code=2)
        assert "automate.toml:4: worker.slot: there is no such setting" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("emit", "x", "{"), "PAYLOAD is not JSON: line 1"),
        (("emit", "x", "NaN"), "NaN is no JSON number"),
        (("emit", "x", "@nope.json"), "there is no file 'nope.json'"),
        (("outbox", "limit", "k", "--rate", "5/0s"), "per_seconds must be"),
        (("run", "nope.yaml"), "there is no file 'nope.yaml'"),
        (("executions", "ls", "--status", "done"), "--status: there is no 'done'"),
        (("executions", "ls", "--limit", "0"), "--limit"),
        (("outbox", "ls", "--status", "FAILD"), "did you mean FAILED"),
        (("outbox", "cancel"), "name the items, or say --all"),
        (("outbox", "purge", "7", "--all", "--yes"), "name the items, or say --all"),
        (("worker", "--processes", "0"), "--processes must be at least 1"),
        (("serve", "--host", "256.0.0.1"), "can't listen on 256.0.0.1"),
        (("workflow", "show", "order-notify", "--svg", "--mermaid"), "take one"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(
    project, arguments: tuple[str, ...], told: str
) -> None:
    """The code that tells a script that trying again is no use."""
    assert told in project.run(*arguments, code=2).stderr


def test_what_is_not_there_exits_with_1(project) -> None:
    """With the command that lists what there is."""
    for subject in ("executions", "outbox"):
        assert f"automate {subject} ls" in project.run(subject, "show", "7", code=1).stderr
    for arguments in (("run", "nope"), ("workflow", "show", "nope")):
        assert "there is no workflow 'nope'" in project.run(*arguments, code=1).stderr
    assert "automate plugins ls" in project.run("plugins", "show", "nope", code=1).stderr


def test_help_tells_the_defaults(project) -> None:
    """Those of the settings too, where an option is left out."""
    for command, defaults in (
        ("worker", ("(1)", "(10)", "(30.0)", "(15.0)", "(127.0.0.1)")),
        ("serve", ("(127.0.0.1)", "(8080)", "(10)", "(text)")),
    ):
        told = project.run(command, "--help").stdout
        assert [each for each in defaults if f"[default: {each}" not in told] == []
    assert "5 is 5/1s" in " ".join(
        project.run("outbox", "limit", "--help").stdout.replace("│", " ").split()
    )


def test_a_bug_of_ours_says_how_to_report_it(project, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, no traceback, and no secret."""
    from automate_cli.session import Session

    def broken(self: Session) -> None:
        raise KeyError("oh")

    monkeypatch.setattr(Session, "plain", property(broken))
    result = project.run("outbox", "ls", code=1)
    assert "this should not happen: KeyError: 'oh'" in result.stderr
    assert "--debug" in result.stderr


def test_memory_that_ends_is_no_bug_of_ours(project, monkeypatch: pytest.MonkeyPatch) -> None:
    """To report it would help nobody."""
    from automate_cli.session import Session

    def exhausted(self: Session) -> None:
        raise MemoryError

    monkeypatch.setattr(Session, "plain", property(exhausted))
    result = project.run("outbox", "ls", code=1)
    assert "error: there is not enough memory" in result.stderr
    assert "report" not in result.stderr


def test_another_databases_tables_are_made_by_db_create(project, postgresql_url: str) -> None:
    """Not by themselves, as migrations may be meant to; the way is told."""
    result = project.run("emit", "x.y", "--database", postgresql_url, code=1)
    assert "run automate db migrate" in result.stderr
    assert (
        "run automate db migrate"
        in project.run("worker", "--database", postgresql_url, code=1).stderr
    )
    assert (
        "none of the tables" in project.run("doctor", "--database", postgresql_url, code=1).stdout
    )
    assert len(project.data("db", "migrate", "--database", postgresql_url)["created"]) == len(
        TABLES
    )
    assert project.data("db", "migrate", "--database", postgresql_url)["created"] == []
    project.run("emit", "x.y", "--database", postgresql_url)
    assert project.data("doctor", "--database", postgresql_url)["ok"] is True


@pytest.fixture
def lacking(project):
    """The project on a SQLite file whose tables lack a table, two columns and an index."""
    project.run("db", "migrate")
    with contextlib.closing(sqlite3.connect(project.folder / "automate.sqlite3")) as connection:
        connection.executescript(
            "DROP INDEX automate_execution_parent;"
            "ALTER TABLE automate_execution DROP COLUMN parent_id;"
            "ALTER TABLE automate_worker DROP COLUMN problem;"
            "DROP TABLE automate_budget"
        )


def test_what_the_tables_lack_is_told_and_added(project, lacking) -> None:
    """By db migrate --check, doctor and worker; --sql only shows what it does."""
    for command in (["db", "migrate", "--check"], ["doctor"], ["worker", "--until-idle"]):
        output = project.run(*command, code=1).output
        assert "automate_execution.parent_id is missing" in output
        assert "run automate db migrate" in output
    sql = project.run("db", "migrate", "--sql").stdout
    assert 'ALTER TABLE "automate_worker" ADD COLUMN "problem" TEXT;' in sql
    project.run("db", "migrate", "--check", code=1)
    assert "migrated" in project.run("db", "migrate").stdout
    assert "nothing to do" in project.run("db", "migrate").stdout
    checked = project.data("db", "migrate", "--check")
    assert (checked["ok"], checked["remedy"]) == (True, None)
    assert project.data("doctor")["ok"] is True
    project.run("emit", "order.created", EVENT)
    project.run("worker", "--until-idle")


def test_the_sql_of_the_shown_migration_migrates(project, lacking) -> None:
    """Run by hand it does what the command would."""
    sql = project.run("db", "migrate", "--sql").stdout
    with contextlib.closing(sqlite3.connect(project.folder / "automate.sqlite3")) as connection:
        connection.executescript(sql)
    assert project.data("db", "migrate", "--check")["ok"] is True
    assert "nothing to do" in project.run("db", "migrate", "--sql").stderr


def test_looking_at_a_file_without_tables_makes_none(project) -> None:
    """Neither db migrate --check nor --sql does; db migrate does."""
    sqlite3.connect(project.folder / "automate.sqlite3").close()
    assert "has none" in project.run("db", "migrate", "--check", code=1).output
    assert 'CREATE TABLE "automate_outbox"' in project.run("db", "migrate", "--sql").stdout
    assert len(project.data("db", "migrate")["created"]) == len(TABLES)


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("doctor", 0, "automate.sqlite3: there is no file"),
        ("executions ls", 0, "no executions"),
        ("executions show x", 1, "there is no execution 'x'"),
        ("approvals ls", 0, "nothing waits"),
        ("approvals show x s --link --by ann", 2, "where links lead to"),
        ("schedules ls", 0, "no workflow has a schedule"),
        ("polls ls", 0, "no workflow listens"),
        ("outbox ls", 0, "no items"),
        ("outbox ls --by-kind", 0, "the outbox is empty"),
        ("outbox limit", 0, "no kind is limited"),
        ("outbox ls --by-error", 0, ""),
        ("outbox requeue x", 1, "there is no item"),
        ("workflow ls --paused", 0, "no workflow is paused"),
        ("executions ls --label a=b", 0, "no executions"),
        ("top --once", 0, "no worker is running"),
        ("db migrate --check", 1, "it has none of the tables"),
        ("db migrate --sql", 0, "CREATE TABLE"),
    ],
)
def test_a_look_makes_no_file(project, line: str, code: int, told: str) -> None:
    """Where there is none, there is nothing to be seen, and nothing is left behind."""
    assert told in project.run(*line.split(), code=code).output
    assert not list(project.folder.glob("*.sqlite3*"))


@pytest.mark.parametrize(
    "line", ["emit a.b {}", "pause kind k", "outbox limit k --concurrency 1", "db migrate"]
)
def test_the_first_row_makes_the_file(project, line: str) -> None:
    """With its tables."""
    project.run(*line.split())
    assert project.data("db", "migrate", "--check")["ok"]


FORM = """\
name: ask
trigger: {type: manual}
steps:
  - id: ask
    approval:
      title: May it go?
      form:
        - {name: n, type: integer, required: true, minimum: 2.5}
        - {name: t, max_length: 3}
        - {name: f, type: number, maximum: 4}
        - {name: b, type: boolean}
        - {name: d, type: date}
        - {name: c, type: choice, choices: [red, blue]}
        - {name: o, type: choice, choices: [red, blue], default: blue}
"""
WRONG = '{"t": "long", "f": 9, "b": "perhaps", "d": 5, "c": "green", "o": "x"}'


def test_a_wrong_form_is_told_what_would_be_right(project) -> None:
    """Each kind of field has an example in the hint, which is taken as it is printed."""
    (project.folder / "workflows" / "ask.yaml").write_text(FORM)
    begun = project.run("run", "ask", "--detach").stdout.split()[0]
    ids = begun, "ask", "approve", "--by", "ann"
    project.run("worker", "--until-idle")
    for form in ([], ["--form", "n=3"], ["--form", "[3]"], ["--form", "{}"]):
        told = project.run("approvals", "decide", *ids, *form, code=2).output
        assert "hint: for example --form '{\"n\": 3}'" in told
    told = project.run("approvals", "decide", *ids, "--form", WRONG, code=2).output
    (given,) = shlex.split(told.partition("--form ")[2])
    right = json.loads(given)
    assert list(right) == ["n", "t", "f", "b", "d", "c", "o"]
    done = project.data("approvals", "decide", *ids, "--form", given)
    assert done["form"] == right


def test_a_secret_in_an_output_is_refused_in_plain_words(project) -> None:
    """By validate, and where it runs all the same; no type of ours is named."""
    flow = project.folder / "workflows" / "order.yaml"
    said = 'output: {at: "Bearer {{ secrets.CHAT_TOKEN }}"}'
    flow.write_text(WORKFLOW.replace('output: {sum: "{{ steps.total.output }}"}', said))
    (project.folder / "event.json").write_text(EVENT)
    told = project.run("workflow", "validate", code=2).output
    assert "output: it is stored, and no secret is: take CHAT_TOKEN out" in told
    told = project.run("run", "order-notify", "--event", "event.json", code=1).output
    assert "at is a secret (none is stored: name it in the input of the action" in told
    assert "SecretRef" not in told and "Sealed" not in told


def test_ctrl_c_while_it_loads_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the exit code of an interruption, as later on."""
    from automate_cli import main

    class Loading(ModuleType):
        @property
        def app(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "automate_cli.app", Loading("app"))
    monkeypatch.setattr(sys, "argv", ["automate", "worker"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert (caught.value.code, capsys.readouterr().err) == (130, "interrupted\n")


def test_executions_are_counted_and_resumed_by_filter(project) -> None:
    """By workflow, with what ended lately; without ids it takes --failed, and --yes."""
    flow = project.folder / "workflows" / "order.yaml"
    flow.write_text(WORKFLOW.replace("attempts: 3", "attempts: 1"))
    project.run("emit", "order.created", EVENT)
    project.run("worker", "--until-idle")
    for arguments in (
        [],
        ["--workflow", "order-notify"],
        ["ID", "--failed"],
        ["ID", "--rate", "1"],
    ):
        assert "--failed" in project.run("executions", "retry", *arguments, code=2).stderr
    found = project.data("executions", "ls", "--by-workflow")["workflows"]["order-notify"]
    assert found["standing"] == {
        "PENDING": 0, "RUNNING": 0, "PAUSED": 0, "CANCELLING": 0, "FAILED": 1
    }  # fmt: skip
    assert found["ended"] == {"completed": 0, "failed": 1, "cancelled": 0}
    assert found["steps"] == {"completed": 1, "retried": 0, "failed": 1}
    shown = project.run("executions", "ls", "--by-workflow", "--within", "15m").stdout
    assert "order-notify" in shown
    assert "order-notify" in project.run("top", "--once").stdout
    assert "--yes" in project.run("executions", "retry", "--failed", code=2).stderr
    resume = ("executions", "retry", "--failed", "--yes")
    assert project.data(*resume, "--error-code", "NOT_FOUND") == {"resumed": 0}
    assert project.data(*resume, "--older-than", "1h") == {"resumed": 0}
    (project.folder / "tries").write_text("100")
    wanted = ("--workflow", "order-notify", "--newer-than", "1h", "--error-code", "UNAVAILABLE")
    assert project.data(*resume, *wanted, "--limit", "5") == {"resumed": 1}
    project.run("worker", "--until-idle")
    assert project.data("executions", "ls")[0]["status"] == "COMPLETED"


# -- workflow ls --stored, publish ----------------------------------------------------------------------

GREETING = """\
name: greet
trigger: {type: event, event: customer.came}
steps:
  - {id: say, sleep: 1s}
"""


def test_a_file_becomes_versions_of_a_workflow_in_the_database(project) -> None:
    """A draft starts nothing, its publication does, and a former version comes back as a new one."""
    file = project.folder / "greet.yaml"
    file.write_text(GREETING)
    first = project.data("workflow", "publish", "greet.yaml", "--comment", "first")
    assert (first["number"], first["version"], first["changed"]) == (1, 1, True)
    assert project.data("workflow", "publish", "greet.yaml")["changed"] is False
    file.write_text(GREETING.replace("1s", "2s"))
    draft = project.data("workflow", "publish", "greet.yaml", "--draft")
    assert (draft["number"], draft["version"], draft["latest"]) == (2, 1, 2)
    assert project.data("workflow", "publish", "greet")["version"] == 2
    back = project.run("workflow", "publish", "greet", "--number", "1").stdout
    assert back == "greet: version 3 is published\n"
    listed = project.data("workflow", "ls", "greet", "--stored")
    assert [(each["number"], each["state"]) for each in listed] == [
        (3, "published"), (2, ""), (1, ""),
    ]  # fmt: skip
    assert (listed[0]["restored_from"], listed[2]["comment"]) == (1, "first")
    assert [each["name"] for each in project.data("workflow", "ls", "--stored")] == ["greet"]
    assert project.run("emit", "customer.came", "--json").stdout  # it runs where workers are


def test_a_tenants_workflow_is_another(project) -> None:
    """Each of two tenants has its own under one name, and neither is everybody's."""
    (project.folder / "greet.json").write_text(
        json.dumps(
            {
                "name": "greet",
                "trigger": {"type": "manual"},
                "steps": [{"id": "say", "sleep": "1s"}],
            }
        )
    )
    for tenant in ("acme", "rival"):
        project.run("workflow", "publish", "greet.json", "--tenant", tenant)
    assert len(project.data("workflow", "ls", "--stored")) == 2
    assert len(project.data("workflow", "ls", "--stored", "--tenant", "acme")) == 1
    assert (
        "no workflow 'greet' in"
        in project.run("workflow", "ls", "greet", "--stored", code=1).stderr
    )


def test_what_can_not_be_published_says_why_and_saves_nothing(project) -> None:
    """The line of a wrong text, a name that a file has, a missing version, a Python file."""
    (project.folder / "wrong.yaml").write_text(GREETING.replace("sleep", "slep"))
    (project.folder / "taken.yaml").write_text(GREETING.replace("greet", "order-notify"))
    (project.folder / "code.py").write_text("")
    for arguments, code, told in (
        (["wrong.yaml"], 2, "4"),
        (["taken.yaml"], 2, "a workflow from a file has this name"),
        (["code.py"], 2, "Python"),
        (["missing.yaml"], 2, "missing.yaml: No such file"),
        (["greet"], 1, "there is no workflow 'greet'"),
        (["wrong.yaml", "--number", "1"], 2, "--number doesn't go with a file"),
        (["greet", "--draft"], 2, "--draft doesn't go with a workflow's name"),
    ):
        assert told in project.run("workflow", "publish", *arguments, code=code).stderr, arguments
    assert project.data("workflow", "ls", "--stored") == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("pause", "kind", "k", "--tenant", "acme"), "--tenant doesn't go with a kind"),
        (("pause", "poll", "a.b", "--reason", "why"), "--reason doesn't go with a poll"),
        (("pause", "workflow", "w", "--number", "0"), "--number doesn't go with a workflow"),
        (("resume", "schedule", "w", "--start-over"), "--start-over doesn't go with a schedule"),
        (("resume", "poll", "a.b", "--start-over"), "add --yes"),
        (("workflow", "ls", "order-notify"), "--stored lists its versions"),
        (("workflow", "ls", "--paused", "--tenant", "acme"), "--tenant doesn't go with --paused"),
    ],
)
def test_an_option_of_something_else_is_refused(project, arguments, told) -> None:
    """Ignored, it would let more stand still, or go on, than was meant."""
    assert told in project.run(*arguments, code=2).stderr


def test_an_execution_is_paused_by_its_id_and_one_that_ended_can_not_be(project) -> None:
    """The result of each id is printed, and the exit code says that not all were paused."""
    waiting = project.data("run", "order-notify", "--detach", "--payload", EVENT)["execution_id"]
    assert project.data("pause", "execution", waiting) == {waiting: "paused"}
    assert project.data("executions", "ls")[0]["status"] == "PAUSED"
    assert "not all were paused" in project.run("pause", "execution", waiting, code=1).stderr
    assert project.data("resume", "execution", waiting) == {waiting: "resumed"}
    project.run("worker", "--until-idle")
    told = project.run("resume", "execution", waiting, code=1).stderr
    assert "executions retry is for FAILED" in told


def test_there_are_at_most_45_commands_each_with_an_example() -> None:
    """Somebody who looks for a command reads the list; what is another's option isn't in it."""

    def shown(command, path=()):
        for name, each in getattr(command, "commands", {}).items():
            if not each.hidden:
                yield from shown(each, (*path, name))
        if not hasattr(command, "commands"):
            yield " ".join(path), command.epilog or ""

    found = dict(shown(typer.main.get_command(app)))
    assert len(found) <= 45, sorted(found)
    assert [name for name, text in found.items() if f"automate {name}" not in text] == []
