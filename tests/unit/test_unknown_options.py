"""An option of a plugin's config that its model doesn't know is an error, and no silence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from automate_kernel import Connector, Kernel, action
from automate_cli.session import Session
from automate_kernel.base.errors import ConfigError
from automate_kernel.monitoring.diagnosis import plugin_findings
from automate_kernel.operations.plugin import complete_config
from automate_kernel.operations.schemas.checks import compile_schema
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    field_validator,
    model_validator,
)


class Server(BaseModel):
    kind: Literal["server"] = "server"
    port: int = 1


class Socket(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["socket"]
    path: str = "/run/x"


class Servers(RootModel[list[Server]]):
    pass


class Quiet(BaseModel):
    timeout_seconds: int = 5
    server: Server = Server()
    places: list[Annotated[Server | Socket, Field(discriminator="kind")]] = []
    named: dict[str, Server] = {}
    rooted: Servers = Servers([])
    sender: str = Field("a", validation_alias=AliasChoices("from", "from_address"))
    host: str = Field("h", validation_alias=AliasPath("service", "host"))


class Strict(Quiet):
    model_config = ConfigDict(extra="forbid")


def refused(model: Any, config: dict[str, Any]) -> str:
    """Return the error of a call of a plugin with *config*; empty if it is made."""
    with Kernel(discover=False, plugins=[plugin_of(model)], config={"chat": config}) as kernel:
        try:
            kernel.invoke("chat.ping")
        except ConfigError as error:
            assert error.hint == "it is passed to the kernel, in config['chat']"
            return error.message.removeprefix("the config of connector 'chat' is not valid: ")
        return ""


def plugin_of(model: Any) -> type[Connector]:
    class Chat(Connector):
        key = "chat"
        display_name = "Chat"

        @classmethod
        def config_schema(cls) -> Any:
            return model

        @action
        def ping(self) -> str:
            """Answer."""
            return "pong"

    return Chat


@pytest.mark.parametrize("model", [Quiet, Strict])
@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"tiemout": 3}, "tiemout: is unknown (did you mean 'timeout_seconds'?)"),
        ({"sender": "x"}, "sender: is unknown (did you mean 'server'?)"),
    ],
)
def test_the_nearest_is_named(model: Any, config: dict[str, Any], problem: str) -> None:
    """Whether the model forbids it or says nothing."""
    assert refused(model, config) == problem


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"server": {"prot": 3}}, "server.prot: is unknown (did you mean 'port'?)"),
        (
            {"places": [{"kind": "server"}, {"kind": "server", "prot": 3}]},
            "places.1.prot: is unknown (did you mean 'port'?)",
        ),
        ({"named": {"a": {"prot": 3}}}, "named.a.prot: is unknown (did you mean 'port'?)"),
        ({"rooted": [{"xyz": 3}]}, "rooted.0.xyz: is unknown (known: kind, port)"),
        (
            {"places": [{"kind": "socket", "paht": "/x"}]},
            "places.0.socket.paht: is unknown (did you mean 'path'?)",
        ),
    ],
)
def test_models_in_models_are_looked_at(config: dict[str, Any], problem: str) -> None:
    """A list, a mapping, a model by its tag: a slip deep down is one, too."""
    assert refused(Quiet, config) == problem


@pytest.mark.parametrize("name", ["from", "from_address", "service"])
def test_aliases_are_known(name: str) -> None:
    """A field is given by each of its aliases, or by the first part of a path."""
    assert refused(Quiet, {name: {"host": "x"} if name == "service" else "x"}) == ""


def test_a_name_beside_its_alias_is_known() -> None:
    """Where the model takes both."""

    class Both(BaseModel):
        model_config = ConfigDict(populate_by_name=True)
        sender: str = Field(alias="from")

    assert refused(Both, {"sender": "x"}) == refused(Both, {"from": "x"}) == ""


@pytest.mark.parametrize("extra", ["allow", "ignore"])
def test_a_model_that_takes_more_decides(extra: Any) -> None:
    """What it says of itself counts, in a model inside it too."""

    class Inner(BaseModel):
        model_config = ConfigDict(extra=extra)

    class Open(BaseModel):
        model_config = ConfigDict(extra=extra)
        inner: Inner = Inner()

    assert refused(Open, {"any": 1, "inner": {"thing": 2}}) == ""


def test_a_model_that_reads_for_itself_may_know_more() -> None:
    """A former name that its author's code translates is an option, and works as before."""

    class Former(BaseModel):
        colour: str

        @model_validator(mode="before")
        @classmethod
        def translated(cls, data: Any) -> Any:
            return {"colour": data["color"]} if "color" in data else data

    class Own(BaseModel):
        colour: str

        def __init__(self, color: str) -> None:
            super().__init__(colour=color)

    def split(given: dict[str, Any]) -> dict[str, Any]:
        return {"port": given["address"].partition(":")[2]}

    class Outer(BaseModel):
        first: Annotated[Server, BeforeValidator(split)]
        second: Server

        @field_validator("second", mode="before")
        @classmethod
        def shortened(cls, given: Any) -> Any:
            return split(given)

    assert refused(Former, {"color": "red"}) == ""
    assert refused(Own, {"color": "red"}) == ""
    assert refused(Outer, {each: {"address": "h:2"} for each in ("first", "second")}) == ""


def test_without_a_model_anything_is_taken() -> None:
    """A plain JSON Schema is open unless it says otherwise, and so is a plugin without one."""

    class Free(Connector):
        key = "free"
        display_name = "Free"

        @action
        def shown(self) -> dict[str, Any]:
            """Return the config."""
            return dict(self.config)

    with Kernel(discover=False, plugins=[Free], config={"free": {"any": 1}}) as kernel:
        assert kernel.invoke("free.shown") == {"any": 1}
    assert refused({"type": "object"}, {"any": 1}) == ""


def schema_of(model: Any) -> dict[str, Any]:
    return plugin_of(model).config_json_schema()


def test_the_published_schema_is_closed_where_a_misspelt_option_is_an_error() -> None:
    """A form or an editor finds the slip before the kernel does, in models inside it too."""

    class Plain(BaseModel):
        server: Server = Server()
        servers: list[Server] = []

    schema = schema_of(Plain)
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Server"]["additionalProperties"] is False


def test_a_model_that_takes_more_has_an_open_schema() -> None:
    """One that says so, that reads for itself, or that has a field with two names."""

    class Ignoring(BaseModel):
        model_config = ConfigDict(extra="ignore")

    class Allowing(BaseModel):
        model_config = ConfigDict(extra="allow")

    class Translating(BaseModel):
        @model_validator(mode="before")
        @classmethod
        def translated(cls, data: Any) -> Any:
            return data

    class Both(BaseModel):
        model_config = ConfigDict(populate_by_name=True)
        sender: str = Field(alias="from")

    class Splitting(BaseModel):
        server: Annotated[Server, BeforeValidator(lambda given: given)] = Server()

    for model in (Ignoring, Allowing, Translating, Both, Quiet):
        assert schema_of(model).get("additionalProperties") is not False, model
    schema = schema_of(Splitting)
    assert schema["additionalProperties"] is False
    assert "additionalProperties" not in schema["$defs"]["Server"]


SERVER = st.sampled_from([{}, {"port": 2}, {"prot": 2}])
OPTIONS = {
    "timeout_seconds": st.just(3), "tiemout": st.just(3), "server": SERVER,
    "named": st.dictionaries(st.sampled_from("ab"), SERVER), "rooted": st.lists(SERVER, max_size=2),
    "split": SERVER, "from": st.just("x"), "from_address": st.just("x"),
}  # fmt: skip


@settings(max_examples=30)
@given(st.fixed_dictionaries({}, optional=OPTIONS), st.booleans())
def test_the_schema_refuses_the_options_that_the_kernel_refuses(
    config: dict[str, Any], two_names: bool
) -> None:
    """And no others: where it can't say which names a field has, it is open."""

    class Split(BaseModel):
        port: int = 1

    class Options(BaseModel):
        timeout_seconds: int = 5
        server: Server = Server()
        named: dict[str, Server] = {}
        rooted: Servers = Servers([])
        split: Annotated[Split, BeforeValidator(lambda given: {"port": 1})] = Split()

    class Named(Options):
        sender: str = Field("a", validation_alias=AliasChoices("from", "from_address"))

    model = Named if two_names else Options
    found = compile_schema(schema_of(model), "config")(config)
    try:
        complete_config(plugin_of(model), config)
    except ConfigError:
        assert found or two_names
    else:
        assert found == []


def test_the_place_is_named_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file and its table; the doctor says it before anything is called."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "automate.toml").write_text("discover = false\n[config.chat]\ntiemout = 3\n")
    session = Session()
    kernel = session.in_memory()
    kernel.plugins.register(plugin_of(Quiet))
    found = [each for each in plugin_findings(kernel) if each.state == "fail"]
    session.close()
    assert [(each.text.rpartition(": ")[2], each.remedy) for each in found] == [
        (
            "is unknown (did you mean 'timeout_seconds'?)",
            "it stands in automate.toml, below [config.chat]",
        )
    ]
