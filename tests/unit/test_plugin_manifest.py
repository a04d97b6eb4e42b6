"""Manifests: what a package says of its plugins, read without an import, and what has drifted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from pydantic import BaseModel, Field, SecretStr

from automate_testing.authoring.check import _secrets
from automate_testing.authoring.reference import reference_page
from automate_kernel.plugins.connectors import (
    Connector,
    PollResult,
    TriggerSpec,
    action,
    options,
    poll,
)
from automate_kernel.plugins import compatibility, manifest_text
from automate_testing.authoring.description import describe, drift, pydantic_version
from automate_kernel.plugins.discovery import _headers
from automate_kernel.plugins.kinds import CONNECTOR, FILTER, SECRETS_BACKEND
from automate_kernel.plugins.manifest import (
    Manifest,
    ManifestError,
    beside,
    installed_manifest,
    manifest_of,
)
from automate_kernel.plugins.records import PluginRecord, PluginState
from automate_kernel.secrets import EnvSecretsBackend
from automate_kernel.secrets.keys import SecretKey
from automate_kernel.triggers.webhooks import HmacSignature


class ChatConfig(BaseModel):
    token: SecretStr = Field(SecretStr("$secret:CHAT_TOKEN"), description="The bot's token.")


class Chat(Connector):
    """
    Posts messages.

    And more.
    """

    key = "chat"
    display_name = "A chat"

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        return ChatConfig

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        return [TriggerSpec("posted", signature=HmacSignature("$secret:HOOK", header="X-S"))]

    @action(read_only=True)
    def read(self, channel: str, limit: int = 10) -> dict[str, str]:
        """Read a channel."""
        return {}

    @action(destructive=True)
    def drop(self, channel: str) -> None:
        """Delete a channel."""


def about(plugin: Any = Chat, **changed: Any) -> dict[str, Any]:
    return {**describe(CONNECTOR, "chat", "chat:Chat", plugin), **changed}


def manifest(*plugins: Any, **changed: Any) -> Manifest:
    values = {"distribution": "automate-chat", "version": "1.0", "pydantic": pydantic_version()}
    return Manifest(**{**values, **changed}, plugins=plugins or (about(),))


def test_a_description_has_what_a_host_shows() -> None:
    """Names, hints, schemas, and the secrets that webhooks and the config's defaults name."""
    found = about()
    assert (found["title"], found["description"]) == ("A chat", "Posts messages.")
    assert found["secrets"] == ["HOOK"]
    read, drop = sorted(found["operations"], key=lambda each: each["name"], reverse=True)
    assert (read["read_only"], read["idempotent"], read["destructive"]) == (True, True, False)
    assert (drop["read_only"], drop["idempotent"], drop["destructive"]) == (False, False, True)
    assert read["input"]["required"] == ["channel"]
    assert found["triggers"][0]["event"] == "chat.posted"
    json.dumps(found, allow_nan=False)


class Row(BaseModel):
    number: int = Field(description="The row's number.")


class Sheet(Chat):
    """Rows of sheets."""

    @action
    def add(self, book: str, sheet: str) -> None:
        """Add a row."""

    @options("sheet", of="add")
    def sheets(self, book: str, search: str = "") -> list[str]:
        return []

    @poll("row", every="5m", max_events=20, payload_schema=Row)
    def rows(self, cursor: Any) -> PollResult:
        """A row was added."""
        return PollResult()


def test_polls_and_dynamic_options_are_described() -> None:
    """The page shows them, and a manifest that lacks one has drifted."""
    found = about(Sheet)
    (event,) = found["polls"]
    assert (event["event"], event["every_seconds"]) == ("chat.row", 300.0)
    assert event["payload"]["properties"]["number"]["type"] == "integer"
    (add,) = (each for each in found["operations"] if each["name"] == "add")
    assert add["options"] == [{"name": "sheet", "needs": ["book"]}]
    page = reference_page("automate-chat", [found], None)
    assert "Poll `row`" in page
    assert "`chat.row`, 20 at most" in page
    assert "The row's number." in page
    assert "lists the choices of `sheet` for the values of `book`" in page
    assert drift(manifest(about()), found)[-1] == "polls is new"


def test_a_plugin_without_polls_and_options_has_no_such_parts() -> None:
    """So the manifests of older versions say what the code says."""
    assert "polls" not in about()
    assert not any("options" in each for each in about()["operations"])


def test_a_secret_default_is_not_in_a_description() -> None:
    """A schema masks what a SecretStr holds, and so does the manifest."""
    assert "CHAT_TOKEN" not in json.dumps(about())


def test_a_function_and_a_backend_are_described_by_their_parameters() -> None:
    """Without an address or a value that differs from run to run."""

    def shorten(value: str, length: int = 10, marker: object = object()) -> str:
        """Shorten a text."""
        return value

    found = describe(FILTER, "shorten", "x:shorten", shorten)
    assert found["parameters"] == ["value", "length=10", "marker=…"]
    assert found["description"] == "Shorten a text."
    assert "operations" not in describe(SECRETS_BACKEND, "env", "x:y", EnvSecretsBackend)


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Byte for byte, too."""
    file = tmp_path / "automate.json"
    file.write_text(manifest().to_text(), "utf-8")
    read = Manifest.read(file)
    assert read == manifest()
    assert read.to_text() == file.read_text("utf-8")


def test_a_list_of_plugins_parses_no_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is long is read when it is asked for, once, and is what a whole reading gives."""
    file = tmp_path / "automate.json"
    several = [about(), about(key="talk", title="Talk"), describe(FILTER, "up", "x:up", str.upper)]
    file.write_text(manifest(*several).to_text(), "utf-8")
    lengths: list[int] = []
    whole = manifest_text.parsed
    monkeypatch.setattr(
        manifest_text, "parsed", lambda text: lengths.append(len(text)) or whole(text)
    )
    read = Manifest.read(file)
    found = read.of_class("connector", "team", "chat.deep:Chat")
    assert found is not None
    assert (found["title"], found["key"], len(read.plugins)) == ("A chat", "team", 3)
    assert sum(lengths) < file.stat().st_size / 5, lengths
    assert found["operations"] == about()["operations"]
    assert dict(found) == {**about(), "key": "team", "target": "chat.deep:Chat"}
    assert found.get("polls") is None and "polls" not in found
    assert list(read.plugins) == sorted(several, key=lambda each: (each["kind"], each["key"]))
    assert len([each for each in lengths if each > 1000]) <= 3


@pytest.mark.parametrize("indent", [None, 1, 2, 4])
def test_a_manifest_of_another_layout_is_read_as_a_whole(
    tmp_path: Path, indent: int | None
) -> None:
    """Somebody's editor has laid it out, or a person has put a plugin in."""
    file = tmp_path / "automate.json"
    made = manifest(about(), about(key="talk"))
    text = json.dumps(json.loads(made.to_text()), indent=indent, ensure_ascii=True)
    file.write_text(text.replace("\n    {\n", "\n    {", 1), "utf-8")
    assert Manifest.read(file) == made
    file.write_bytes(made.to_text().replace("\n", "\r\n").encode())
    assert Manifest.read(file) == made


def test_what_nobody_has_read_yet_may_be_unreadable(tmp_path: Path) -> None:
    """A list shows the plugin; who asks for more hears of it, and the doctor does."""
    file = tmp_path / "automate.json"
    file.write_text(manifest().to_text().replace('"config": {', '"config": {{', 1), "utf-8")
    read = Manifest.read(file)
    assert read.plugins[0]["title"] == "A chat"
    for ask in (read.require_readable, lambda: read.has_account("connector", "chat:Chat")):
        with pytest.raises(ManifestError, match="can't be read") as caught:
            ask()
        assert str(file) in caught.value.message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "reinstall"),
        ("[]", "reinstall"),
        ('{"manifest": 1}', "reinstall"),
        ('{"manifest": 2}', "install a newer automate-kernel"),
        (
            '{"manifest": 1, "distribution": "a", "version": "1", "pydantic": "2", "plugins": [1]}',
            "reinstall",
        ),
        ("\ud83d".encode("utf-8", "surrogatepass").decode("latin-1"), "reinstall"),
    ],
    ids=["empty", "list", "bare", "newer", "odd plugins", "no json"],
)
def test_an_unreadable_manifest_says_what_to_do(tmp_path: Path, text: str, hint: str) -> None:
    """One error for whatever is wrong with the file."""
    file = tmp_path / "automate.json"
    file.write_text(text, "utf-8")
    with pytest.raises(ManifestError) as caught:
        Manifest.read(file)
    assert str(file) in caught.value.message
    assert caught.value.hint is not None and caught.value.hint.startswith(hint)


def test_a_class_is_described_under_each_of_its_keys() -> None:
    """By the path of its entry point, and by that of its module; another class isn't."""
    made = manifest(about(account=True), about(key="talk", title="Talk"))
    here = {"key": "team-chat", "target": "chat.deep:Chat"}
    assert made.of_class("connector", **here) == {**about(account=True), **here}
    assert (made.of_class("connector", "talk", "chat:Chat") or {})["title"] == "Talk"
    assert made.has_account("connector", "chat.deep:Chat") is True
    assert made.of_class("connector", "chat", "chat:Other") is None
    assert made.of_class("provider", "chat", "chat:Chat") is None


@pytest.mark.parametrize("loaded", [False, True], ids=["fresh", "loaded"])
def test_a_manifest_is_found_without_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: bool
) -> None:
    """Of a package that would fail to import, and of a target deep in it."""
    package = tmp_path / "manifested"
    package.mkdir()
    (package / "__init__.py").write_text("" if loaded else "raise SystemExit('imported')")
    (package / "automate.json").write_text(manifest().to_text(), "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    if loaded:
        monkeypatch.setitem(sys.modules, "manifested", __import__("manifested"))
    found = manifest_of("manifested.deep.below:Chat")
    assert found is not None and found.entry("connector", "chat") == about()
    assert ("manifested" in sys.modules) is loaded


def test_a_manifest_is_read_where_its_distribution_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of a distribution whose package lies somewhere else, such as a project's folder."""
    for place in ("site", "project"):
        (tmp_path / place / "placed").mkdir(parents=True)
        (tmp_path / place / "placed" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "project"))
    site = str(tmp_path / "site")
    record = PluginRecord(
        "connector", "chat", "placed:Chat", "placed", PluginState.DISCOVERED, location=site
    )
    assert installed_manifest(record) is None
    for place in ("project", "site"):
        path = tmp_path / place / "placed" / "automate.json"
        path.write_text(manifest().to_text(), "utf-8")
        read = installed_manifest(record)
        assert read is not None and read.path == path
    path.write_text("{")
    with pytest.raises(ManifestError, match="can't be read"):
        installed_manifest(record)


def test_what_is_no_package_has_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module, a name that leads nowhere, and a module that claims to have no origin."""
    (tmp_path / "plain_module.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    odd = type(sys)("odd_module")
    odd.__spec__ = None
    monkeypatch.setitem(sys.modules, "odd_module", odd)
    for target in ("plain_module:X", "nowhere_at_all:X", "odd_module:X", "__main__:X"):
        assert manifest_of(target) is None
        assert beside(target, "anything") is None


def test_what_has_not_changed_has_not_drifted() -> None:
    """The code says the same as its manifest."""
    assert drift(manifest(), about()) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"title": "Another"}, ["title has changed"]),
        ({"operations": []}, ["operations.read is no more", "operations.drop is no more"]),
        ({"secrets": ["HOOK", "OTHER"]}, ["secrets has changed"]),
        ({"more": 1}, ["more is new"]),
    ],
    ids=["title", "operations", "secrets", "new"],
)
def test_what_has_changed_is_named(changed: dict[str, Any], told: list[str]) -> None:
    """Each part by its path."""
    assert sorted(drift(manifest(), about(**changed))) == sorted(told)


def test_a_field_that_became_required_is_named() -> None:
    """By operation and schema."""

    class Stricter(Chat):
        """Posts messages."""

        @action(read_only=True)
        def read(self, channel: str, limit: int) -> dict[str, str]:
            """Read a channel."""
            return {}

    told = drift(manifest(), about(Stricter))
    assert "operations.read.input.required has changed" in told


def test_a_plugin_that_the_manifest_does_not_know_is_named() -> None:
    """The author added an entry point, and no more."""
    assert drift(manifest(about(key="other")), about()) == ["connector chat is not in it"]


def test_another_pydantic_words_schemas_otherwise() -> None:
    """Of schemas that another version wrote only the fields count, and which are required."""
    old = json.loads(json.dumps(about()))
    for operation in old["operations"]:
        operation["input"]["additionalProperties"] = True
        operation["input"]["title"] = "Old"
    assert drift(manifest(old, pydantic="2.0"), about()) == []
    assert drift(manifest(old), about()) != []
    old["operations"][0]["input"]["properties"].pop("channel")
    assert len(drift(manifest(old, pydantic="2.0"), about())) == 1


_NUMBERS = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(
    lambda ns: ".".join(map(str, ns))
)
_CLAUSES = st.lists(
    st.tuples(st.sampled_from([">=", "<=", ">", "<"]), _NUMBERS), min_size=1, max_size=3
)


@given(version=_NUMBERS, clauses=_CLAUSES, space=st.sampled_from(["", " "]))
def test_plain_versions_are_compared_as_packaging_does(
    version: str, clauses: list[tuple[str, str]], space: str
) -> None:
    """The quick way, which imports nothing, and the whole of PEP 440 agree."""
    specifier = f",{space}".join(f"{sign}{space}{number}" for sign, number in clauses)
    quick = compatibility._satisfies_plainly(version, specifier)
    assert quick is SpecifierSet(specifier).contains(version, prereleases=True)


@pytest.mark.parametrize(
    "specifier", ["", "~=1.0", "==1.*", ">=1.0a1", "!=1", ">=1;python_version>'3'", ">=1,"]
)
def test_other_versions_are_left_to_packaging(specifier: str) -> None:
    """The quick way says that it doesn't know."""
    assert compatibility._satisfies_plainly("1.0", specifier) is None
    assert compatibility._satisfies_plainly("1.0.dev1", ">=1") is None


@pytest.mark.parametrize(
    ("requirement", "wanted"),
    [
        ("automate-kernel>=0.1,<2", ">=0.1,<2"),
        ("automate-kernel<2,>=0.1", ">=0.1,<2"),
        ("automate-kernel (<2,>=0.1)", ">=0.1,<2"),
        ("Automate_Kernel >= 1", ">=1"),
        ("automate-kernel[cli]>=1,<2", ">=1,<2"),
        ("automate-kernel", ""),
        ("automate-kernel>=1; extra == 'x'", ""),
        ("automate-kernel-more>=3", ""),
    ],
)
def test_the_requirement_on_the_kernel_is_read(requirement: str, wanted: str) -> None:
    """In each form in which builders write it; one with a marker is for an extra."""
    found = compatibility.requirement_on_kernel(["pydantic>=2", requirement])
    assert found.replace(" ", "") == wanted


@pytest.mark.parametrize(
    "requirements",
    [
        ["automate-kernel>=0.1,<2"],
        ["automate-kernel[cli]>=0.1,<2"],
        ["automate-kernel[cli, yaml] (<2,>=0.1)"],
        ["automate-kernel>=0.1,<2", "automate-kernel[testing]; extra == 'test'"],
        ["automate-kernel>=0.1,<2", "automate-kernel-more>=3"],
    ],
    ids=["plain", "extra", "extras", "marker", "neighbour"],
)
def test_a_usual_requirement_is_read_without_packaging(
    requirements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its import would take longer than the scan of a hundred plugins."""
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    assert compatibility.requirement_on_kernel(requirements) == ">=0.1,<2"


def test_headers_end_where_the_readme_begins() -> None:
    """A README with lines that look like headers changes nothing; names have no case."""
    text = "Metadata-Version: 2.4\nNAME: a\nVersion: 1\nRequires-Dist: b>=1\n\nName: other\n"
    assert _headers(text) == {"name": ["a"], "version": ["1"], "requires-dist": ["b>=1"]}
    assert _headers(None) is None


def test_a_key_of_a_secret_is_no_secret() -> None:
    """What pages would show must be hidden, and what only names a secret need not."""

    class Named(BaseModel):
        token: str
        api_key: SecretStr
        token_secret: SecretKey = "CHAT_TOKEN"
        webhook_secrets: list[SecretKey] = ["CHAT_HOOK"]
        password_secret: SecretKey | None = None

    about = {"config": Named.model_json_schema()}
    found = type("Found", (), {"key": "chat"})()
    check = SimpleNamespace(descriptions={found: about})
    ((problem, remedy),) = _secrets(check)
    assert problem.startswith("config.chat.token looks like a secret")
    assert "SecretKey" in remedy
