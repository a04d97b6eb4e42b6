"""How the commands of ``automate`` become those of ``manage.py``."""

from __future__ import annotations

import io
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from automate_django import get_kernel
from automate_django.models import OutboxItem
from automate_kernel.cli.commands.outbox import OUTBOX
from django.core.management import (
    CommandError,
    call_command,
    execute_from_command_line,
    load_command_class,
)
from django.utils import timezone

PROJECT = Path(__file__).parents[2] / "django_project"
ORDER = {"lines": [{"price": 3, "quantity": 4}], "channel_id": "C1"}
Item = OutboxItem.objects


@pytest.fixture
def failed(sqlite: str) -> list[str]:
    """Three items that failed."""
    outbox = get_kernel().outbox
    ids = [outbox.enqueue("shop.order", {"number": n, "fail": True}) for n in "123"]
    get_kernel().run_until_idle()
    return ids


def test_looking_again_and_again(failed: list[str]) -> None:
    """As lines or documents on the command's own output, until Ctrl-C."""

    class Impatient(io.StringIO):
        def flush(self) -> None:
            raise KeyboardInterrupt

    for options, words in (((), "failed 3"), (("--json",), '"FAILED": 3')):
        out = Impatient()
        call_command("automate_outbox", "stats", "--watch", "5", *options, stdout=out)
        assert words in out.getvalue()
    with pytest.raises(CommandError, match="less than 0.1"):
        call_command("automate_outbox", "stats", "--watch", "0")


def test_colours_are_for_terminals(failed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes too; with ``--no-color``, and where nobody looks, text is plain."""
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NO_COLOR", raising=False)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(out: io.StringIO, **options: bool) -> str:
        call_command("automate_outbox", "ls", stdout=out, **options)
        assert failed[0] in out.getvalue()
        return out.getvalue()

    assert "\x1b[31mFAILED" in shown(Terminal())
    for plain in (shown(Terminal(), no_color=True), shown(io.StringIO())):
        assert "\x1b" not in plain and "─" not in plain


@pytest.mark.parametrize(("answer", "left"), [("n", 3), ("", 3), ("y", 0)])
def test_a_person_is_asked(
    failed: list[str], answer: str, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many it is about, beside the command's output; all but a yes changes nothing."""
    asked, out = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stdin", Person(f"{answer}\n"))
    monkeypatch.setattr("sys.stderr", asked)
    given = ("automate_outbox", "discard", "--all", "--kind", "shop.order", "--json")
    if left:
        with pytest.raises(CommandError, match="nothing was changed"):
            call_command(*given, stdout=out)
    else:
        call_command(*given, stdout=out)
    assert "Discard 3 items? [y/N]" in asked.getvalue() and "Discard" not in out.getvalue()
    assert Item.count() == left


class Person(io.StringIO):
    """A terminal that somebody types into."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def test_options_from_code(failed: list[str]) -> None:
    """``call_command`` takes them by name, with values of their own types."""
    out = io.StringIO()
    call_command(
        "automate_outbox", "requeue", all=True, kind="shop.order", limit=1, yes=True, stdout=out
    )
    assert out.getvalue() == "1 item requeued\n"
    call_command("automate_emit", "order.created", payload=ORDER, delay=3600, stdout=out)
    item = Item.get(kind="automate.event")
    assert item.payload["payload"] == ORDER and item.payload["source"] == "manage.py"
    assert item.next_attempt_at > timezone.now() + timedelta(minutes=50)


def test_help_is_of_manage_py(sqlite: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The examples can be copied."""
    for command, example in (
        (("automate_outbox", "requeue"), "manage.py automate_outbox requeue --failed --kind"),
        (("automate_emit",), "jq .order dump.json | manage.py automate_emit order.created -"),
        (("automate_reap",), "manage.py automate_reap --stale-seconds 600"),
        (("automate_executions", "resume"), "manage.py automate_executions resume ID"),
    ):
        with pytest.raises(SystemExit):
            execute_from_command_line(["manage.py", *command, "--help"])
        assert example in capsys.readouterr().out


def test_exit_codes(failed: list[str]) -> None:
    """Those of ``automate``: 1, the work failed, and 2, it was asked for wrongly."""
    for options, code in ((("requeue", str(uuid4())), 1), (("requeue",), 2), (("limit", "x"), 2)):
        with pytest.raises(CommandError) as caught:
            call_command("automate_outbox", *options)
        assert caught.value.returncode == code


def test_every_command_of_the_command_line_is_there(sqlite: str) -> None:
    """Under the same names."""
    parser = load_command_class("automate_django", "automate_outbox").create_parser("", "")
    (commands,) = (each.choices for each in parser._actions if each.dest == "command")
    names = {name for each in OUTBOX.commands for name in (each.name, *each.also)}
    assert names == set(commands)
    assert {"list", "retry"} <= names


BARE = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("typer", "rich", "sqlalchemy", "tomli", "uvicorn"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
sys.path.insert(0, sys.argv[1])
from shopsite.configured import configure
configure()
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("automate_emit", "x.y", "{}")
call_command("automate_outbox", "cancel", "--all", "--kind", "x", "--yes")
call_command("automate_outbox", "workers")
call_command("automate_executions", "ls")
call_command("automate_reap")
call_command("automate_doctor", "--json")
"""


def test_without_the_libraries_of_the_command_line() -> None:
    """Django's extra doesn't bring them."""
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(PROJECT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "0 items cancelled" in done.stdout and "no executions" in done.stdout
