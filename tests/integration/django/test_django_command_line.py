"""``manage.py automate``: the command line on the project's kernel."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import typer
from automate_django import get_kernel
from automate_django.models import OutboxItem
from automate_kernel import FileOutputStore
from automate_cli.app import hosted
from automate_cli.command import Commands, Context
from automate_kernel.base.errors import ConfigError
from django.core.management import CommandError, call_command, execute_from_command_line
from django.test import override_settings
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

    for options, words in (((), "3 failed"), (("--json",), '"failed": 3')):
        out = Impatient()
        call_command("automate", "top", "--every", "5", *options, stdout=out)
        assert words in out.getvalue()
    with pytest.raises(CommandError, match="--every"):
        call_command("automate", "top", "--every", "0")


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
        call_command("automate", "outbox", "ls", stdout=out, **options)
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
    given = ("automate", "outbox", "purge", "--all", "--kind", "shop.order", "--json")
    if left:
        with pytest.raises(CommandError, match="nothing was changed"):
            call_command(*given, stdout=out)
    else:
        call_command(*given, stdout=out)
    assert "Delete 3 items? [y/N]" in asked.getvalue() and "Delete" not in out.getvalue()
    assert Item.count() == left


class Person(io.StringIO):
    """A terminal that somebody types into."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def test_options_from_code(failed: list[str]) -> None:
    """``call_command`` takes them by name, with values of their own types."""
    out = io.StringIO()
    given = ("--all", "--kind", "shop.order", "--limit", 1, "--yes")
    call_command("automate", "outbox", "requeue", *given, stdout=out)
    assert out.getvalue() == "1 item requeued\n"
    call_command("automate_emit", "order.created", json.dumps(ORDER), delay=3600, stdout=out)
    item = Item.get(kind="automate.event")
    assert item.payload["payload"] == ORDER and item.payload["source"] == "manage.py"
    assert item.next_attempt_at > timezone.now() + timedelta(minutes=50)


def help_of(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``--help`` prints."""
    with contextlib.suppress(SystemExit):
        execute_from_command_line(["manage.py", *words, "--help"])
    return capsys.readouterr().out


def test_help_is_of_manage_py(sqlite: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The examples can be copied."""
    for command, example in (
        (("automate", "outbox", "requeue"), "manage.py automate outbox requeue --failed --kind"),
        (("automate", "executions", "retry"), "manage.py automate executions retry ID"),
    ):
        assert example in help_of(*command, capsys=capsys)


def test_exit_codes(failed: list[str]) -> None:
    """Those of ``automate``: 1, the work failed, and 2, it was asked for wrongly."""
    for options, code in ((("requeue", str(uuid4())), 1), (("requeue",), 2), (("limit", "x"), 2)):
        with pytest.raises(CommandError) as caught:
            call_command("automate", "outbox", *options)
        assert caught.value.returncode == code


def test_django_s_options_may_stand_anywhere(
    sqlite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of ``manage.py`` are Django's; the rest is for the command."""
    for words in (
        ("--no-color", "outbox", "ls", "--by-kind", "--json"),
        ("outbox", "ls", "--by-kind", "--json", "-v0"),
    ):
        execute_from_command_line(["manage.py", "automate", *words, "--skip-checks"])
        assert '"counts"' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        execute_from_command_line(["manage.py", "automate", "outbox", "ls", "--database", "x"])
    assert "No such option" in capsys.readouterr().err


def test_help_shows_defaults(sqlite: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of every command: of the mounted ones and of Django's own."""
    for words, shown in (
        (("automate", "outbox", "ls"), r"--limit .*\[default: 20\]"),
        (("automate_emit",), r"\(default: manage.py\)"),
        (("automate_doctor",), r"\(default: 60s\)"),
        (("automate_worker",), r"\(default: 30"),
    ):
        text = re.sub(r"[\s│]+", " ", help_of(*words, capsys=capsys))
        assert re.search(shown, text), words


def test_the_commands_for_a_kernel_are_these(sqlite: str) -> None:
    """All that need no settings of ``automate``, under the same names."""
    names = set(typer.main.get_command(hosted).commands)
    assert names == {
        "approvals", "call", "db", "executions", "outbox", "pause", "polls", "resume", "schedules",
        "tokens", "top", "workflow",
    }  # fmt: skip
    assert {"list", "retry"} <= set(typer.main.get_command(hosted).commands["outbox"].commands)


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
from django.core.management import CommandError, call_command
call_command("migrate", verbosity=0)
call_command("automate_emit", "x.y", "{}")
call_command("automate_doctor", "--json")
try:
    call_command("automate", "outbox", "ls")
except CommandError as error:
    print(error)
"""


def test_without_the_libraries_of_the_command_line() -> None:
    """Django's own commands work; ``automate`` names the extra that it needs."""
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(PROJECT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "pip install 'automate-kernel[cli]'" in done.stdout


# -- commands of plugins -------------------------------------------------------------------------


def test_a_plugins_command_runs_on_the_projects_kernel(sqlite: str) -> None:
    """Its settings are Django's, its errors those of manage.py, and no file is read."""
    wave = Commands("wave", "Wave at people.")

    @wave.callback()
    def root() -> None:
        """Wave at people."""

    @wave.called("automate wave at Ada")
    def at(context: Context, name: str) -> None:
        """Wave at somebody."""
        assert context.session.kernel is get_kernel()
        if name == "nobody":
            raise ConfigError("nobody is there", hint="name somebody")
        context.out.data({"waves": context.session.settings["commands"]["wave"], "at": name})

    def run(*arguments: str) -> str:
        out = io.StringIO()
        call_command("automate", *arguments, stdout=out)
        return out.getvalue()

    with override_settings(AUTOMATE_COMMANDS={"wave": {"with": "flag"}}):
        get_kernel().plugins.register(wave, "command", key="wave")
        assert json.loads(run("wave", "at", "Ada", "--json")) == {
            "waves": {"with": "flag"}, "at": "Ada"
        }  # fmt: skip
        assert "Of the plugin register." in run("--help")
        assert "manage.py automate wave at Ada" in run("wave", "at", "--help")
        with pytest.raises(CommandError, match="nobody is there") as raised:
            run("wave", "at", "nobody")
        assert raised.value.returncode == 2
        with pytest.raises(CommandError, match="No such option"):
            run("wave", "at", "Ada", "--database", "sqlite:///x")


def test_a_plugins_output_store_is_named_in_the_settings(sqlite: str, tmp_path: Path) -> None:
    """With its options; a wrong one is an error of the check."""
    store = {"STORE": "automate_kernel.FileOutputStore", "OPTIONS": {"folder": tmp_path}}
    with override_settings(AUTOMATE_OUTBOX={"OUTPUTS": store}):
        found = get_kernel().executions.outputs.store
        assert isinstance(found, FileOutputStore) and found.folder == tmp_path
    for wrong, says in (
        ({**store, "OPTIONS": {"foldr": 1}}, "doesn't take these options"),
        ({"BACKEND": "s3"}, r"AUTOMATE_OUTBOX\['OUTPUTS'\]: an entry has other keys than STORE"),
    ):
        with (
            override_settings(AUTOMATE_OUTBOX={"OUTPUTS": wrong}),
            pytest.raises(CommandError, match=says),
        ):
            call_command("check")
