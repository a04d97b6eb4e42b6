"""``automate call``: the options of an operation follow from its schema."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from automate_kernel import Kernel
from automate_cli import app_for
from automate_cli.app import app
from automate_kernel.base.errors import ConfigError
from command_line import CliRunner

CODE = '''\
import logging
from typing import Literal, Optional

from automate_kernel import Call
from automate_kernel.plugins.connectors import Connector, action, options
from pydantic import BaseModel, ConfigDict, Field


class Address(BaseModel):
    street: str = Field(description="Street and number.")
    zip: int = 0


class Post(BaseModel):
    channel: str = Field(description="Where it goes.")
    text: str = "hello"
    times: int = Field(1, ge=1, description="How often.")
    loud: bool = False
    tags: list[str] = []
    level: Literal["low", "high"] = "low"
    address: Optional[Address] = None
    timeout: float = 1.5
    post_token: str = "default-of-a-token"


class Chat(Connector):
    key = "chat"
    display_name = "Chat"

    @action(idempotent=True)
    def post(self, data: Post) -> dict[str, object]:
        """Post a message."""
        return {"got": data.model_dump(), "call": data.post_token}

    @action
    async def say(self, text: str) -> str:
        """Say it."""
        return text

    @action
    def quiet(self) -> None:
        """Give nothing."""

    @action
    def ratio(self, of: float) -> object:
        """Divide by nothing."""
        return {"of": of, "ratio": float("nan")}

    @action(destructive=True)
    def drop(self, channel: str) -> str:
        """Delete a channel."""
        return f"{channel} is gone"

    @action(input_schema={"type": "object"})
    def anything(self, data: dict[str, object]) -> dict[str, object]:
        """Take anything."""
        return data

    @action
    def fail(self, how: str, token: str) -> None:
        """Fail."""
        raise {"down": ConnectionError, "bug": ZeroDivisionError}[how](token)

    @action
    def login(self, password: str, end: str = "fail") -> str:
        """Log in."""
        logging.getLogger("a.library").error("logging in with %s", password)
        if end == "fail":
            raise ValueError(f"boom {password}")
        return f"in with {password}"

    @options("channel")
    def channels(self, search: str = "", level: str = "") -> list[tuple[str, str]]:
        return [(f"C{level or 1}", "general"), ("C2", "random")]


def automate_configure(kernel):
    @kernel.action("shop.order", transactional=True)
    def order(number: int, call: Call) -> str:
        """Order."""
        kernel.emit("ordered", {"number": number}, transaction=call.transaction)
        return f"order {number}"
'''


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run ``automate call`` in a project; returns the result."""
    settings = 'app = "callapp"\nplugins = ["callapp:Chat"]\ndiscover = false\n'
    (tmp_path / "automate.toml").write_text(settings)
    (tmp_path / "callapp.py").write_text(CODE)
    for name in [each for each in os.environ if each.startswith("AUTOMATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AUTOMATE_SECRET_CHAT", "hunter2-hunter2")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "callapp", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0, input: str | None = None, words: str = "") -> Any:
        given = ["call", *arguments]
        result = CliRunner().invoke(app, given, input=input, prog_name="automate")
        assert result.exit_code == code, result.output + repr(result.exception)
        assert "Traceback" not in result.output
        assert "hunter2" not in result.output
        for each in filter(None, [words]):
            assert each in result.output
        return result

    return run


def test_each_type_of_field_is_an_option(run: Callable[..., Any]) -> None:
    """Texts, numbers, booleans, lists, choices and inner objects are given by name."""
    result = run(
        "chat.post", "--channel", "C1", "--times=2", "--loud", "--tags", "a", "--tags", "b",
        "--level", "high", "--address.street", "Main 1", "--address.zip", "7",
        "--input.timeout", "3",
    )  # fmt: skip
    got = json.loads(result.stdout)["got"]
    assert got == {
        "channel": "C1", "text": "hello", "times": 2, "loud": True, "tags": ["a", "b"],
        "level": "high", "address": {"street": "Main 1", "zip": 7}, "timeout": 3.0,
        "post_token": "[hidden]",
    }  # fmt: skip


def test_the_whole_input_as_json(run: Callable[..., Any], tmp_path: Path) -> None:
    """--input takes JSON, a file or standard input, and single options count more."""
    whole = {"channel": "C1", "address": {"street": "a", "zip": 1}, "loud": True}
    (tmp_path / "post.json").write_text(json.dumps(whole))
    for source, stdin in ((json.dumps(whole), None), ("post.json", None), ("-", json.dumps(whole))):
        options = ("--address.zip", "9", "--no-loud", "--json")
        got = json.loads(run("chat.post", "--input", source, *options, input=stdin).stdout)["got"]
        assert got["address"] == {"street": "a", "zip": 9}
        assert (got["channel"], got["loud"]) == ("C1", False)
    run("chat.post", "--input", "[1]", code=2, words="must be a JSON object")
    run("chat.post", "--input", "nowhere.json", code=2, words="there is no file 'nowhere.json'")


def test_the_output_is_text_or_json(run: Callable[..., Any]) -> None:
    """A text is printed as it stands, for programs as JSON; nothing prints nothing."""
    assert run("chat.say", "--text", "hi there").stdout == "hi there\n"
    assert run("chat.say", "--text", "hi", "--json").stdout == '"hi"\n'
    assert run("chat.quiet").stdout == ""
    assert run("chat.say", "--text=--json").stdout == "--json\n"


def test_a_command_that_a_program_runs_within_itself_leaves_its_logs(
    run: Callable[..., Any],
) -> None:
    """All of its warnings were silent from then on."""
    root, own = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(own)
    before = root.handlers[:], root.level, logging.getLogger("httpx").level
    try:
        run("chat.say", "--text", "hi")
        assert (root.handlers, root.level, logging.getLogger("httpx").level) == before
    finally:
        root.removeHandler(own)
        root.setLevel(level)


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_an_output_that_json_has_not_is_told_and_not_printed(
    run: Callable[..., Any], how: tuple[str, ...]
) -> None:
    result = run("chat.ratio", "--of", "1", *how, code=1)
    assert result.stdout == ""
    assert "INVALID_ARGUMENT: the output of 'chat.ratio' can't be written" in result.stderr
    assert "ratio is NaN" in result.stderr and "use null, or text" in result.stderr


def test_help_shows_the_operation(run: Callable[..., Any]) -> None:
    """--help after a name has a line for each field, with type, default and description."""
    shown = run("chat.post", "--help").stdout
    lines = {line.split()[0]: " ".join(line.split()) for line in shown.splitlines() if line.split()}
    assert "Where it goes. (--choices channel lists what it may be)" in lines["--channel"]
    assert "required" in lines["--channel"]
    assert lines["--times"] == "--times integer 1 How often."
    assert lines["--level"] == "--level one of low, high low"
    assert lines["--address.street"].endswith("Street and number.")
    assert "--input.timeout" in lines
    assert "default-of-a-token" not in shown
    assert "chat.post  (idempotent)" in shown
    assert "Post a message." in shown
    assert "automate call shop.greet" in run("--help").stdout
    assert "no action" in run("chat.nothing", "--help").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--chanel", "x"], "did you mean '--channel'?"),
        (["--dryrun", "--channel", "x"], "did you mean '--dry-run'?"),
        (["--channel"], "--channel needs a value"),
        (["--channel", "a", "--channel", "b"], "given 2 times"),
        (["--channel", "a", "--times", "x"], "--times must be a whole number"),
        (["--channel", "a", "--times", "0"], "times: Input should be greater than or equal to 1"),
        (["--channel", "a", "--level", "mid"], "--level must be one of low, high"),
        (["--channel", "a", "extra"], "unexpected argument 'extra'"),
        (["--address", "{}", "--address.zip", "1", "--channel", "a"], "given as a whole"),
        ([], "channel: Field required"),
    ],
)
def test_wrong_usage_is_explained(run: Callable[..., Any], words: list[str], said: str) -> None:
    """A slip ends with 2, names the field and calls nothing."""
    run("chat.post", *words, code=2, words=said)


def test_a_dry_run_shows_the_checked_input(run: Callable[..., Any], tmp_path: Path) -> None:
    """Defaults are filled in, secrets unread and hidden, and nothing is called or stored."""
    data = json.loads(
        run(
            "chat.post", "--channel", "$secret:NOWHERE", "--post-token", "hunter2-hunter2",
            "--times", "$secret:CHAT", "--dry-run", "--json",
        ).stdout
    )  # fmt: skip
    assert data["operation"] == "chat.post"
    assert data["input"]["channel"] == "[secret NOWHERE]"
    assert data["input"]["post_token"] == "[hidden]"
    run("chat.drop", "--channel", "C1", "--dry-run", words="chat.drop would be called with:")
    assert not list(tmp_path.glob("*.sqlite3"))


def test_secrets_are_resolved_and_taken_out(run: Callable[..., Any]) -> None:
    """A reference reaches the action as its value, and no output shows it."""
    shown = run("chat.say", "--text", "it is $secret:CHAT").stdout
    assert shown == "it is [secret]\n"
    run("chat.say", "--text", "$secret:OTHER", code=1, words="AUTOMATE_SECRET_OTHER")


def test_a_literal_secret_is_not_shown(run: Callable[..., Any]) -> None:
    """An action quoted it in its error, its log and its output, and all was printed."""
    words = ["chat.login", "--password", "hunter2-33"]
    failed = run(*words, code=1, words="boom [secret]")
    assert "logging in with [secret]" in failed.output
    assert run(*words, "--end", "well").stdout == "in with [secret]\n"


def test_a_destructive_operation_asks(run: Callable[..., Any]) -> None:
    """Without a person to ask it needs --yes."""
    run("chat.drop", "--channel", "C1", code=2, words="add --yes")
    assert run("chat.drop", "--channel", "C1", "--yes").stdout == "C1 is gone\n"


def test_a_failure_has_its_code_and_exits_with_1(run: Callable[..., Any]) -> None:
    """The service's error is normalised; it says if another try may help."""
    secret = ["--token", "$secret:CHAT"]
    result = run("chat.fail", "--how", "down", *secret, code=1, words="UNAVAILABLE")
    assert "the same call may succeed later" in result.output
    run("chat.fail", "--how", "bug", *secret, code=1, words="INTERNAL")
    run("chat.nothing", code=2, words="chat")
    run("nobody.knows", code=1, words="there is no action 'nobody.knows'")


def test_choices_are_listed(run: Callable[..., Any]) -> None:
    """--choices asks the plugin, with the other options as values."""
    run("chat.post", "--choices", "channel", "--search", "gen", words="general")
    found = json.loads(run("chat.post", "--choices", "channel", "--level", "high", "--json").stdout)
    assert found[0] == {"value": "Chigh", "label": "general"}
    assert "low" in run("chat.post", "--choices", "level").stdout


def test_an_open_input_takes_any_option(run: Callable[..., Any]) -> None:
    """Where the schema names no fields, each option is JSON, or else text."""
    got = json.loads(run("chat.anything", "--a.b", "5", "--c", "words").stdout)
    assert got == {"a": {"b": 5}, "c": "words"}


def test_a_call_makes_no_database(run: Callable[..., Any], tmp_path: Path) -> None:
    """An action that needs none leaves no file behind."""
    run("chat.say", "--text", "hi")
    assert not list(tmp_path.glob("*.sqlite3"))


def test_a_transactional_action_writes_in_the_database(run: Callable[..., Any]) -> None:
    """An action of the application is called on the configured database."""
    assert run("shop.order", "--number", "4711").stdout == "order 4711\n"
    found = CliRunner().invoke(app, ["outbox", "ls", "--json"], prog_name="automate")
    assert len(json.loads(found.stdout)) == 1


def test_names_and_options_are_completed(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell gets keys of plugins, then operations, then options."""

    def completed(*words: str) -> list[str]:
        monkeypatch.setenv("_AUTOMATE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(["automate", "call", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words) + 1))
        result = CliRunner().invoke(app, [], prog_name="automate")
        return result.stdout.split()

    assert completed("ch") == ["chat."]
    assert completed("chat.p") == ["chat.post"]
    assert completed("shop.") == ["shop.order"]
    assert completed("chat.post", "--ch") == ["--choices", "--channel"]
    assert completed("nobody.knows", "--ch") == ["--choices"]


def test_one_kernel_is_made_for_a_call(run: Callable[..., Any], tmp_path: Path) -> None:
    """The application's code sees one kernel, and a call that needs no tables makes none."""
    counted = "def automate_configure(kernel):\n    open('kernels', 'a').write('x')\n"
    with (tmp_path / "callapp.py").open("a") as file:
        file.write(f"\n\nthe_rest = automate_configure\n\n\n{counted}    the_rest(kernel)\n")
    run("chat.say", "--text", "hi")
    assert (tmp_path / "kernels").read_text() == "x"
    assert not (tmp_path / "automate.sqlite3").exists()
    run("shop.order", "--number", "7")
    assert (tmp_path / "kernels").read_text() == "xx"


def test_an_application_has_it_on_its_own_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    """`app_for`, and so manage.py, calls operations of the kernel that it is given."""
    with Kernel(discover=False, secrets={}) as kernel:

        @kernel.action("math.add")
        def add(a: int, b: int = 1) -> int:
            """Add."""
            return a + b

        call = app_for(lambda: kernel, name="shopctl")
        assert call(["call", "math.add", "--a", "4"]) == 0
        assert capsys.readouterr().out == "5\n"
        assert call(["call", "math.add", "--help"]) == 0
        assert "--b" in capsys.readouterr().out
        with pytest.raises(ConfigError) as caught:
            call(["call", "math.add"])
        assert caught.value.hint == "shopctl call math.add --help shows its options"
