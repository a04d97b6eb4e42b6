"""The commands of ``manage.py`` for operators: emit, outbox, executions, reap, doctor."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import warm_forks
from automate_django import emit, get_kernel
from automate_django.models import OutboxItem, TaskResult, WorkflowExecution
from automate_kernel import Kernel, hookimpl
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.utils import timezone
from shop import tasks as test_tasks

PROJECT = Path(__file__).parents[2] / "django_project"
ORDER = {"lines": [{"price": 3, "quantity": 4}], "channel_id": "C1"}
Item = OutboxItem.objects


def run(*arguments: str) -> str:
    """What a command prints."""
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def run_json(*arguments: str) -> Any:
    """What a command prints as JSON."""
    return json.loads(run(*arguments, "--json"))


# -- emit ----------------------------------------------------------------------------------------


def test_emit_from_everywhere(alias: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the argument, a file and standard input; the id is printed, and the event happens."""
    file = tmp_path / "order.json"
    file.write_text(json.dumps(ORDER))
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(ORDER)))
    ids = [
        run("automate_emit", "order.created", json.dumps(ORDER)).strip(),
        run("automate_emit", "order.created", f"@{file}").strip(),
        run("automate_emit", "order.created", "-").strip(),
        run_json("automate_emit", "order.created", json.dumps(ORDER), "--tenant", "acme")["id"],
    ]
    assert [str(pk) for pk in Item.order_by("id").values_list("pk", flat=True)] == ids
    get_kernel().run_until_idle()
    assert WorkflowExecution.objects.filter(status="COMPLETED").count() == 4
    assert Item.get(pk=ids[3]).tenant_id == "acme"


def test_emit_later_and_once(alias: str) -> None:
    """A second event with the same key is the first one; a delay is a delay."""
    given = ("automate_emit", "order.created", "{}", "--idempotency-key", "o-1", "--delay", "2h")
    assert run(*given) == run(*given)
    assert timedelta(hours=1.9) < Item.get().next_attempt_at - timezone.now() < timedelta(hours=2.1)


@pytest.mark.parametrize("payload", ["{", "@no/such/file", "NaN"])
def test_emit_refuses_what_is_no_json(sqlite: str, payload: str) -> None:
    """With a clear error, and nothing is emitted."""
    with pytest.raises(CommandError, match="is not JSON|there is no file"):
        run("automate_emit", "order.created", payload)
    assert not Item.exists()


# -- outbox --------------------------------------------------------------------------------------


@pytest.fixture
def failed(alias: str) -> list[str]:
    """Three items that failed."""
    outbox = get_kernel().outbox
    ids = [
        outbox.enqueue("shop.order", {"number": n, "fail": True}, tenant_id=tenant)
        for n, tenant in (("1", "acme"), ("2", "acme"), ("3", "globex"))
    ]
    get_kernel().run_until_idle()
    assert set(Item.values_list("status", flat=True)) == {"FAILED"}
    return ids


def test_requeue(failed: list[str]) -> None:
    """One, or all that match; what was named and can't be is an error."""
    assert run("automate", "outbox", "requeue", failed[0]) == "1 item requeued\n"
    with pytest.raises(CommandError, match="could not be requeued"):
        run("automate", "outbox", "requeue", failed[0])
    found = run_json("automate", "outbox", "requeue", "--all", "--tenant", "acme", "--yes")
    assert found == {"requeued": 1, "unchanged": 0}
    assert set(Item.filter(status="PENDING").values_list("tenant_id", flat=True)) == {"acme"}
    assert Item.get(pk=failed[2]).status == "FAILED"


def test_purge(alias: str) -> None:
    """What finished long ago goes, with the results of tasks; what did not stays."""
    test_tasks.calculate_meaning_of_life.enqueue()
    get_kernel().run_until_idle()
    emit("order.created", ORDER)
    assert run_json("automate", "outbox", "purge", "--older-than", "1h", "--yes") == {"purged": 0}
    old = timezone.now() - timedelta(days=3)
    Item.filter(status="COMPLETED").update(completed_at=old)
    TaskResult.objects.update(updated_at=old)
    assert run_json("automate", "outbox", "purge", "--older-than", "2d", "--yes") == {"purged": 2}
    assert not TaskResult.objects.exists()
    assert Item.get().status == "PENDING"


# -- executions ----------------------------------------------------------------------------------


def test_executions(alias: str) -> None:
    """They are listed, shown with their steps, cancelled and resumed."""
    execution_id = get_kernel().start("order-notify", ORDER)
    (listed,) = run_json("automate", "executions", "list", "--workflow", "order-notify")
    assert (listed["id"], listed["status"]) == (execution_id, "PENDING")
    assert run("automate", "executions", "cancel", execution_id) == f"{execution_id} cancelled\n"
    with pytest.raises(CommandError, match="not all were cancelled"):
        run("automate", "executions", "cancel", execution_id)
    assert "CANCELLED" in run("automate", "executions", "show", execution_id)
    with pytest.raises(CommandError, match="manage.py automate executions ls"):
        run("automate", "executions", "show", "7")
    with pytest.raises(CommandError, match="--limit"):
        run("automate", "executions", "ls", "--limit", "0")


# -- doctor --------------------------------------------------------------------------------------


def doctor() -> tuple[bool, dict[str, list[dict[str, Any]]]]:
    """Whether all is well, and the findings by check."""
    out = io.StringIO()
    try:
        call_command("automate_doctor", "--json", stdout=out)
    except CommandError:
        pass
    told = json.loads(out.getvalue())
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in told["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return told["ok"], found


def test_a_well_project(alias: str) -> None:
    """Every check is told, and none complains."""
    ok, found = doctor()
    assert ok, found
    assert set(found) == {
        "versions", "settings", "database", "clock", "plugins", "workflows", "secrets", "polls",
        "schedules", "executions", "workers",
    }  # fmt: skip
    assert {each["state"] for findings in found.values() for each in findings} == {"ok"}
    assert "Django" in found["versions"][0]["text"]
    assert "CHECK" in run("automate_doctor")


@pytest.mark.parametrize(
    ("settings", "check", "words"),
    [
        ({"AUTOMATE_OUTBOX": {"STORE": "skiplocked"}}, "settings", "'skiplocked'"),
        ({"AUTOMATE_SECRETS": []}, "secrets", "CHAT_TOKEN"),
        ({"AUTOMATE_CONNECTORS": []}, "workflows", "chat"),
        ({"AUTOMATE_PROVIDERS": ["shop.models.Nothing"]}, "plugins", "Nothing"),
        ({"AUTOMATE_WORKFLOWS": ["no/such.yaml"]}, "workflows", "no/such.yaml"),
    ],
)
def test_what_is_broken(sqlite: str, settings: dict[str, Any], check: str, words: str) -> None:
    """Is a failure of its check, the exit code tells, and the other checks are still told."""
    with override_settings(**settings):
        ok, found = doctor()
        with pytest.raises(CommandError, match="are failures"):
            run("automate_doctor")
    assert not ok
    assert [each for each in found[check] if each["state"] == "fail" and words in each["text"]]
    assert found["versions"][0]["state"] == "ok"


@pytest.mark.parametrize("text", ["from automate_kernel import Nothing", "def half("])
def test_a_module_that_cant_be_imported(
    sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """The doctor and the check say which, and the line: its traceback is nowhere else."""
    module = tmp_path / "half_written.py"
    module.write_text(f"import automate_kernel\n{text}\n")
    monkeypatch.syspath_prepend(tmp_path)

    class Importing:
        @hookimpl
        def automate_configure(self, kernel: Kernel) -> None:
            import_module("half_written")

    with override_settings(AUTOMATE_HOOKS=[Importing()]):
        ok, found = doctor()
    assert not ok
    for check in ("settings", "database", "workers"):
        assert f"Error in {module}, line 2" in found[check][0]["text"]


def test_migrations_that_are_missing(sqlite: str) -> None:
    """Are named, with the command that applies them."""
    call_command("migrate", "automate_django", "zero", verbosity=0)
    try:
        ok, found = doctor()
    finally:
        call_command("migrate", "automate_django", verbosity=0)
    assert not ok
    assert "automate_django.0001_initial" in found["database"][0]["text"]
    assert "migrate automate_django" in found["database"][0]["remedy"]


def test_what_nobody_works_on(alias: str) -> None:
    """Items without a handler, paused kinds and failures are warnings."""
    outbox = get_kernel().outbox
    outbox.enqueue("of.another.program")
    outbox.pause("mail.send")
    outbox.enqueue("shop.order", {"number": "1", "fail": True})
    get_kernel().run_until_idle()
    ok, found = doctor()
    assert ok
    texts = " | ".join(each["text"] for each in found["workers"])
    assert "of.another.program, which has no handler" in texts
    assert "mail.send is paused" in texts
    assert "1 item failed for good" in texts


def test_no_secret_is_told(sqlite: str) -> None:
    """Though the doctor reads them all: it counts them, and names one that is not there."""
    out = io.StringIO()
    call_command("automate_doctor", stdout=out)
    assert "all 1 that are used can be read" in out.getvalue()
    assert "tok-51d0" not in out.getvalue()
    ok, found = doctor()
    assert (ok, found["secrets"][0]["state"]) == (True, "ok")
    assert "tok-51d0" not in str(found)
    with override_settings(AUTOMATE_SECRETS=["automate_kernel.secrets.EnvSecretsBackend"]):
        from automate_django.kernel import forget_kernel

        forget_kernel()
        assert "CHAT_TOKEN" in str(doctor())


# -- output --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    ["automate_doctor", "automate tokens ls", "automate outbox ls"],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_enough_is_no_error(
    sqlite: str, environment: dict[str, str], project_forks: str, arguments: str, unbuffered: str
) -> None:
    """As ``head`` is: neither a traceback, nor a complaint of Python's at its end."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb", buffering=0) as head:
        with warm_forks.running(
            project_forks, [sys.executable, "manage.py", *arguments.split()],
            cwd=PROJECT, env={**environment, "PYTHONUNBUFFERED": unbuffered},
            stdout=head, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            _, errors = process.communicate(120)
    assert (process.returncode, "BrokenPipe" in errors) == (1, False), errors
