"""How a worker logs: as JSON with ids if it is asked to, and without secrets."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
from warm_forks import Forked
from automate_django import get_kernel
from automate_django.management.commands.automate_worker import log_as
from automate_django.models import OutboxItem
from django.core.management import CommandError, call_command
from django.test import override_settings
from shop import tasks as test_tasks


@pytest.fixture
def logging_kept() -> Iterator[None]:
    """The root logger as it was, afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--processes", "2"]])
def test_a_worker_logs_json(
    sqlite: str,
    start: Callable[..., Forked],
    until: Callable[..., None],
    options: list[str],
) -> None:
    """Each line a document, of each process; what a task logs has the id of its item."""
    said = test_tasks.tells_its_secret.enqueue()
    worker = start("automate_worker", "--log-format", "json", *options)
    until(lambda: OutboxItem.objects.get(pk=said.id).status == "FAILED", worker)
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=120)
    assert worker.returncode == 0, output
    # What a command prints is no log; that is its first line.
    logged = [json.loads(line) for line in output.splitlines()[1:]]
    (failed,) = [line for line in logged if line["message"].endswith("state=FAILED")]
    assert (failed["item_id"], failed["kind"]) == (said.id, "django.task.default")
    assert "401 for" in failed["exception"]
    assert "tok-51d0" not in output


def test_a_line_is_logged_once(
    sqlite: str, logging_kept: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a document, by loggers too that printed for themselves; files they write are left alone."""
    own = logging.getLogger("shop.printing")
    own.addHandler(logging.StreamHandler(sys.stderr))
    own.propagate = False
    log_as(get_kernel(), log_format="json")
    own.warning("with the token %s", get_kernel().secrets.get("CHAT_TOKEN"))
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["logger"] == "shop.printing"
    assert "tok-51d0" not in line


def test_without_a_format_nothing_is_changed(sqlite: str, logging_kept: None) -> None:
    """The project's ``LOGGING`` says."""
    before = logging.getLogger().handlers[:]
    call_command("automate_worker", "--until-idle")
    assert logging.getLogger().handlers == before


def test_the_setting_is_the_default(
    sqlite: str, logging_kept: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a format that there is not is told."""
    test_tasks.noop_task.enqueue()
    with override_settings(AUTOMATE_WORKER={"LOG_FORMAT": "json"}):
        call_command("automate_worker", "--until-idle")
    lines = capsys.readouterr().err.splitlines()
    assert "state=SUCCESSFUL" in json.loads(lines[-1])["message"]
    with pytest.raises(CommandError, match="invalid choice: 'xml'"):
        call_command("automate_worker", "--until-idle", "--log-format", "xml")
