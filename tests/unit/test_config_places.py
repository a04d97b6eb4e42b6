"""An error about config says where the host writes it, with a line that can be copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from automate_kernel.monitoring.diagnosis import plugin_findings
from automate_kernel import Connector, Kernel, action
from automate_cli.session import Session
from automate_kernel.base.errors import AutomateError
from automate_kernel.plugins.compatibility import extra_with
from automate_kernel.secrets.keys import SecretKey
from pydantic import BaseModel, field_validator


class ChatConfig(BaseModel):
    workspace: str
    bot_token: str
    retries: int = 3


class Chat(Connector):
    key = "chat"

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        return ChatConfig

    @action
    def ping(self) -> str:
        """Answer."""
        return "pong"


class Plain(Chat):
    key = "plain-chat"

    @classmethod
    def config_schema(cls) -> Any:
        return {
            "type": "object",
            "properties": {"bot_token": {"type": "string"}},
            "required": ["bot_token"],
        }


def hint_of(kernel: Kernel, name: str) -> str:
    with pytest.raises(AutomateError) as caught:
        kernel.invoke(name)
    return caught.value.hint or ""


def test_in_python_it_goes_to_the_kernel() -> None:
    """The hint is an argument of `Kernel`; a secret is written as a reference."""
    with Kernel(discover=False, plugins=[Chat, Plain]) as kernel:
        assert hint_of(kernel, "chat.ping") == (
            'pass it to the kernel: config={\'chat\': {"workspace": …, "bot_token": '
            '"$secret:CHAT_BOT_TOKEN"}}'
        )
        assert '"$secret:PLAIN_CHAT_BOT_TOKEN"' in hint_of(kernel, "plain-chat.ping")


def test_only_wrong_fields_are_named() -> None:
    """A field that is there and wrong is named too, and its value isn't."""
    config = {"chat": {"workspace": "w", "bot_token": "hunter2-hunter2", "retries": "many"}}
    with Kernel(discover=False, plugins=[Chat], config=config) as kernel:
        with pytest.raises(AutomateError) as caught:
            kernel.invoke("chat.ping")
        assert caught.value.hint == "pass it to the kernel: config={'chat': {\"retries\": …}}"
        assert "many" not in str(caught.value)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "text", "place"),
    [
        ("automate.toml", "", "automate.toml, below [config.chat]"),
        (
            "pyproject.toml",
            "[tool.automate]\n",
            "pyproject.toml, below [tool.automate.config.chat]",
        ),
        (None, "", "automate.toml, below [config.chat]"),
    ],
)
def test_on_the_command_line_it_goes_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str | None, text: str, place: str
) -> None:
    """The hint names the file that was read, and the table in it."""
    monkeypatch.chdir(tmp_path)
    if file is not None:
        (tmp_path / file).write_text(f"{text}discover = false\n")
    session = Session(file)
    kernel = session.in_memory()
    kernel.plugins.register(Chat)
    hint = hint_of(kernel, "chat.ping")
    session.close()
    assert hint == f'write it in {place}: workspace = …, bot_token = "$secret:CHAT_BOT_TOKEN"'


def test_a_missing_secret_says_who_needs_it_and_where_it_goes() -> None:
    """The plugin, the backends that were asked, and what to set in them."""
    config = {"chat": {"workspace": "w", "bot_token": "$secret:CHAT"}}
    with Kernel(discover=False, plugins=[Chat], config=config) as kernel:
        with pytest.raises(AutomateError) as caught:
            kernel.invoke("chat.ping")
    assert "secret 'CHAT' was not found in env" in caught.value.message
    assert "the config of 'chat' needs it" in caught.value.message
    assert caught.value.hint == "set the environment variable AUTOMATE_SECRET_CHAT"
    with (
        Kernel(discover=False, plugins=[Chat], config=config, secrets={}) as kernel,
        pytest.raises(AutomateError, match="add 'CHAT' to the mapping of secrets"),
    ):
        kernel.invoke("chat.ping")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the missing module is that of an extra, the remedy is to install that extra."""
    info = tmp_path / "automate_fancy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: automate-fancy\nVersion: 1.0\n"
        "Requires-Dist: nowhere_at_all>=2; extra == 'chat'\nRequires-Dist: httpx\n"
    )
    (info / "entry_points.txt").write_text("[automate.connectors]\nfancy = fancy_plugin:Fancy\n")
    (tmp_path / "fancy_plugin.py").write_text("import nowhere_at_all.client\n")
    monkeypatch.syspath_prepend(tmp_path)
    with Kernel() as kernel:
        kernel.plugins.load_all()
        (record,) = [each for each in kernel.plugins.records() if each.key == "fancy"]
    assert record.remedy is not None
    assert record.remedy.startswith("pip install 'automate-fancy[chat]', which it needs for this")
    with Kernel() as kernel:
        (found,) = [each for each in plugin_findings(kernel) if "fancy" in each.text]
    assert (found.state, found.text.partition("; ")[2]) == (
        "ok", "not installed: fancy of automate-fancy[chat]")  # fmt: skip
    with Kernel(config={"fancy": {}}) as kernel:
        (found,) = [each for each in plugin_findings(kernel) if "BROKEN" in each.text]
    assert found.state == "fail"
    assert extra_with("httpx", "automate-fancy") is None
    assert extra_with("nowhere_at_all", "not-installed-at-all") is None
    assert extra_with(None, None) is None


class SignedConfig(BaseModel):
    name: SecretKey | None = None
    names: list[SecretKey] = []
    by_place: dict[str, SecretKey] = {}
    token: str = ""


class Signed(Connector):
    key = "signed"

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        return SignedConfig


def test_a_reference_where_the_key_of_a_secret_is_asked_for_is_its_key() -> None:
    """All other fields are written so. Its value was looked up as a key, and hidden in the error."""
    config = {
        "name": "$secret:TOKEN",
        "names": ["$secret:{TOKEN}", "OTHER"],
        "by_place": {"here": "{{ secrets.TOKEN }}"},
        "token": "$secret:TOKEN",
    }
    secrets = {"TOKEN": "the-value-of-it"}
    with Kernel(plugins=[Signed], discover=False, config={"signed": config}, secrets=secrets) as k:
        assert k.connector("signed").config == {
            "name": "TOKEN",
            "names": ["TOKEN", "OTHER"],
            "by_place": {"here": "TOKEN"},
            "token": "the-value-of-it",
        }


class Worded(Chat):
    key = "worded"

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        return WordedConfig


class WordedConfig(BaseModel):
    region: str = "eu"

    @field_validator("region")
    @classmethod
    def known(cls, value: str) -> str:
        if value != "eu":
            raise ValueError("the region is unknown (there are: eu)")
        return value


class Quoted(Chat):
    key = "quoted"

    @classmethod
    def config_schema(cls) -> Any:
        return {"type": "object", "required": ["owner's name"]}


@pytest.mark.parametrize(
    ("key", "config", "field"),
    [("worded", {"region": "mars"}, "region"), ("quoted", {"a": 1}, "owner's name")],
)
def test_problems_are_told_apart_by_what_they_are(
    key: str, config: dict[str, Any], field: str
) -> None:
    """Their words are an author's, and a name may have a quote in it."""
    with Kernel(discover=False, plugins=[Worded, Quoted], config={key: config}) as kernel:
        assert hint_of(kernel, f"{key}.ping") == (
            f'pass it to the kernel: config={{{key!r}: {{"{field}": …}}}}'
        )
