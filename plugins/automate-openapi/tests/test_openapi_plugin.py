"""Plugins that are written from a document: what they send, and that no word of it is code."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from automate_cli.app import app
from automate_kernel import AutomateError, Kernel
from automate_kernel.base.errors import ConfigError
from automate_openapi.plugin_source import DocumentScaffold, scaffold_of
from automate_testing.authoring.example import ExampleFile
from hostile_documents import hostile_document
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_support import HERE, PETSTORE, TOKEN, document, operation
from recording_service import Service
from typer.testing import CliRunner

LEDGER = HERE / "ledger.yaml"
Loaded = Callable[..., Any]


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Loaded]:
    """Write a plugin, and return the class of its connector."""
    before = list(sys.path)

    def load(name: str, source: Any, **options: Any) -> Any:
        made = scaffolded(name, source, tmp_path, **options)
        folder = made.write(tmp_path)
        sys.path.insert(0, str(folder / "src"))
        module = importlib.import_module(f"{made.package}.connector")
        return getattr(module, made.filled("AcmeConnector"))

    yield load
    sys.path[:] = before
    for each in [name for name in sys.modules if name.startswith("automate_made")]:
        del sys.modules[each]


def scaffolded(name: str, source: Any, folder: Path, **options: Any) -> DocumentScaffold:
    """Return a plugin of a document, or of a file with one."""
    if isinstance(source, Mapping):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(source))
        source = path
    return scaffold_of(name, str(source), **options)


def kernel_of(connector: Any, service: Service, **config: Any) -> Kernel:
    """Return a kernel with the connector, whose secrets all have one value."""
    secrets = {
        f"{connector.key}_{word}".upper(): TOKEN for word in ("token", "api_key", "password")
    }
    return Kernel(
        plugins=[connector], discover=False, secrets=secrets,
        config={connector.key: {**service.config, **config}},
    )  # fmt: skip


# -- what is sent --------------------------------------------------------------------------------


def test_values_go_where_the_document_says(loaded: Loaded, service: Service) -> None:
    """Styles of the query, headers, forms, bodies; without what wasn't given."""
    pets = loaded("made-pets", PETSTORE)
    service.answer([{"id": 7, "name": "Rex", "more": True}])
    with kernel_of(pets, service) as kernel:
        values = {
            "tags": ["a", "b"], "ids": [1, 2], "words": ["x", "y"], "kinds": ["cat", "dog"],
            "filter": {"owner": "Ada"}, "where": {"age": 3}, "alive": True, "X-Trace": "t",
        }  # fmt: skip
        found = kernel.invoke("made_pets.list_pets", values)
        assert found[0]["name"] == "Rex"
        assert service.last.target == (
            "/pets?tags=a&tags=b&ids=1%2C2&words=x%20y&kinds=cat%7Cdog"
            "&filter%5Bowner%5D=Ada&where=%7B%22age%22%3A%203%7D&alive=true"
        )
        assert service.last.headers["x-trace"] == "t"
        assert service.last.headers["authorization"] == f"Bearer {TOKEN}"
        service.answers = []
        service.answer({"id": 8, "name": "Max"})
        kernel.invoke("made_pets.create_pet", {"name": "Max", "nickname": None})
        assert json.loads(service.last.body) == {"name": "Max", "nickname": None}
        kernel.invoke("made_pets.add_vaccination", {"petId": 8, "vaccine": "x", "tags": ["p", "q"]})
        assert service.last.target == "/pets/8/vaccinations"
        assert service.last.body == b"vaccine=x&tags=p&tags=q"
        service.answers = []
        service.answer({"id": "o"})
        kernel.invoke("made_pets.patch_owners_id", {"id": "o", "query_id": "q"})
        assert (service.last.target, service.last.body) == ("/owners/o?id=q", b"")
        with pytest.raises(AutomateError, match="nme"):
            kernel.invoke("made_pets.create_pet", {"name": "Max", "parent": {"nme": "x"}})


def test_the_pages_of_a_list_are_one_output(loaded: Loaded, service: Service) -> None:
    """By a cursor in the answer, by numbers, by an offset: as the document was recognised."""
    ledger = loaded("made-ledger", LEDGER)
    service.answer({"data": [{"id": "1", "name": "a"}], "meta": {"next_cursor": "c2"}})
    service.answer({"data": [{"id": "2", "name": "b"}], "meta": {"next_cursor": None}})
    with Kernel(discover=False) as kernel:
        kernel.register(tokened(ledger))
        kernel = Kernel(
            plugins=[tokened(ledger)], discover=False, secrets={"TOKEN": TOKEN},
            config={"made_ledger": {**service.config, "client_id": "c"}},
        )  # fmt: skip
    with kernel:
        given = {"limit": 1, "filter[status]": "open"}
        found = kernel.invoke("made_ledger.accounts_list", given)
        assert [each["id"] for each in found] == ["1", "2"]
        assert [each.target for each in service.sent] == [
            "/accounts?limit=1&filter%5Bstatus%5D=open",
            "/accounts?limit=1&filter%5Bstatus%5D=open&cursor=c2",
        ]
        service.answers = []
        service.answer([{"id": "t", "amount": 1.5}])
        values = {"account-id": "00000000-0000-4000-8000-000000000000", "max_items": 1}
        assert kernel.invoke("made_ledger.transfers_list", values)[0]["amount"] == 1.5
        assert service.last.target.endswith("/transfers?page=1&per_page=50")
        service.answers = []
        service.answer({"items": ["a", "b"]})
        assert kernel.invoke("made_ledger.rates", {"max_items": 2}) == ["a", "b"]
        assert service.last.target == "/rates?skip=0&limit=100"


_STATED = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    ("item", "returns", "tells"),
    [
        ({"type": "object"}, "returns=dict[str, Any]", True),
        ({"type": "string"}, "returns=str", False),
        (_STATED, "returns=models.LOutputItem", True),
        # What is checked by nothing: the contract's wrong answer would be taken for right.
        ({"oneOf": [_STATED, {"type": "integer"}]}, None, False),
        ({}, None, False),
    ],
)
def test_a_contract_of_hostile_answers_fits_what_is_checked(
    tmp_path: Path, item: Any, returns: str | None, tells: bool
) -> None:
    """Else a new plugin's own tests would fail, or the answer of a stranger be an output."""
    answer = {"200": {
        "description": "l", "headers": {"Link": {"schema": {"type": "string"}}},
        "content": {"application/json": {"schema": {"type": "array", "items": item}}},
    }}  # fmt: skip
    page = {"name": "page", "in": "query", "schema": {"type": "integer"}}
    listing = {"operationId": "l", "parameters": [page], "responses": answer}
    made = scaffolded("made-list", document({"/l": {"get": listing}}), tmp_path)
    files = made.files()
    source = files["src/automate_made_list/connector.py"]
    assert (returns or "returns=") in source if returns else "returns=" not in source
    tests = files["tests/test_made_list_connector.py"]
    assert ("reads_json = False" not in tests) is tells
    assert "    answer: ClassVar[Any] = [" in tests


def tokened(connector: Any) -> Any:
    """Return the connector with a token in place of an account that a person connects."""
    from automate_http import BearerAuth

    own = {"make_auth": lambda self: BearerAuth("TOKEN"), "key": connector.key}
    return type("Tokened", (connector,), own)


def test_a_key_tells_a_repeated_request_and_nothing_else_is_repeated(
    loaded: Loaded, service: Service
) -> None:
    """The header is the step's where the document has it; without it an error is final."""
    ledger, pets = tokened(loaded("made-ledger", LEDGER)), loaded("made-pets", PETSTORE)
    kernel = Kernel(
        plugins=[ledger, pets], discover=False, secrets={"TOKEN": TOKEN, "MADE_PETS_TOKEN": TOKEN},
        config={"made_ledger": {**service.config, "client_id": "c"}, "made_pets": service.config},
    )  # fmt: skip
    service.answer({"errors": [{"field": "currency", "message": "is unknown"}]}, status=503)
    values = {"name": "Savings", "currency": "EUR"}
    with kernel:
        assert kernel.operation("made_ledger.accounts_create").idempotent
        for _ in range(2):
            with pytest.raises(AutomateError, match="currency: is unknown") as caught:
                kernel.invoke("made_ledger.accounts_create", values, idempotency_key="k")
            assert caught.value.retryable
        one, two = (each.headers["idempotency-key"] for each in service.sent)
        assert one == two
        with pytest.raises(AutomateError) as caught:
            kernel.invoke("made_ledger.accounts_create", values)
        assert not caught.value.retryable
        with pytest.raises(AutomateError, match="unknown whether it was done") as caught:
            kernel.invoke("made_pets.create_pet", {"name": "Rex"}, idempotency_key="k")
        assert not caught.value.retryable


# -- credentials ---------------------------------------------------------------------------------

_OAUTH = {"tokenUrl": "https://login.example.com/token", "scopes": {"read": ""}}


@pytest.mark.parametrize(
    ("schemes", "call"),
    [
        ([{"type": "apiKey", "in": "header", "name": "X-Key"}], 'HeaderAuth("X-Key",'),
        ([{"type": "apiKey", "in": "query", "name": "key"}], 'QueryAuth("key",'),
        ([{"type": "apiKey", "in": "cookie", "name": "sid"}], 'CookieAuth("sid",'),
        ([{"type": "http", "scheme": "Bearer"}], "BearerAuth("),
        ([{"type": "http", "scheme": "basic"}], "BasicAuth("),
        ([{"type": "oauth2", "flows": {"clientCredentials": _OAUTH}}], "OAuth2("),
        ([{"type": "oauth2", "flows": {"implicit": _OAUTH}}], "BearerAuth("),
        ([{"type": "http", "scheme": "basic"}, {"type": "apiKey", "in": "query", "name": "k"}], "AllOf("),
        ([{"type": "mutualTLS"}], None),
    ],
)  # fmt: skip
def test_credentials_are_those_of_the_scheme(
    tmp_path: Path, schemes: list[Any], call: str | None
) -> None:
    """Each has its keys of secrets in the config; what isn't known is said."""
    named = {f"s{number}": each for number, each in enumerate(schemes)}
    content = document(
        {"/a": {"get": operation()}}, components={"securitySchemes": named},
        security=[dict.fromkeys(named, [])],
    )  # fmt: skip
    made = scaffolded("made", content, tmp_path)
    code = made.files()["src/automate_made/connector.py"]
    if call is None:
        assert "auth=" not in code
        assert any("no code is written for the scheme" in each for each in made.remarks)
    else:
        assert f"return {call}" in code


def test_a_document_from_afar_chooses_nobody_who_gets_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address on another host is no default: its author gives it, or the user."""
    from automate_openapi import plugin_source
    from automate_openapi.document import ApiDocument

    content = document(
        {"/a": {"get": operation()}},
        security=[{"o": []}],
        components={"securitySchemes": {"o": {
            "type": "oauth2", "flows": {"clientCredentials": _OAUTH},
        }}},
    )  # fmt: skip
    read = ApiDocument(content, "https://docs.example.net/openapi.json?token=hidden-in-the-query")
    monkeypatch.setattr(plugin_source, "read_document", lambda source: read)
    made = scaffold_of("made", "https://docs.example.net/openapi.json")
    config = made.files()["src/automate_made/config.py"]
    assert "    base_url: BaseUrl\n" in config and "    token_url: BaseUrl\n" in config
    assert any("another host" in each and "login.example.com" in each for each in made.remarks)
    assert "hidden-in-the-query" not in "".join([*made.files().values(), *made.remarks])
    read = ApiDocument(content, str(tmp_path / "openapi.json"))
    config = scaffold_of("made", "openapi.json").files()["src/automate_made/config.py"]
    assert 'token_url: BaseUrl = "https://login.example.com/token"' in config


# -- which operations ----------------------------------------------------------------------------


def big(count: int = 61) -> dict[str, Any]:
    return document({
        f"/a{number}": {"get": operation(operationId=f"a.get{number}", tags=[f"t{number % 2}"])}
        for number in range(count)
    })  # fmt: skip


def test_of_a_big_document_operations_are_chosen(tmp_path: Path) -> None:
    """The error lists its tags with their numbers; ids, methods with paths, and tags choose."""
    with pytest.raises(ConfigError, match="61 operations") as caught:
        scaffolded("made", big(), tmp_path)
    assert "t0 (31), t1 (30)" in str(caught.value.hint)
    assert "--tag" in str(caught.value)

    def chosen(**options: Any) -> tuple[str, ...]:
        return scaffolded("made", big(), tmp_path, **options).operations

    assert chosen(operations=["a.get1", "GET /a20"]) == ("a_get1", "a_get20")
    assert len(chosen(tags=["t1"])) == 30
    assert len(chosen(operations=["a.get1*"], tags=["t1"])) == 6
    with pytest.raises(ConfigError, match="called 'a.gte1'") as caught:
        chosen(operations=["a.gte1"])
    assert "did you mean a.get1" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="tag 't3'"):
        chosen(tags=["t3"])


def test_the_command_reports_and_overwrites_nothing(tmp_path: Path) -> None:
    """What was left out is said; a folder that is there is an error before anything is read."""
    words = [
        "plugins",
        "new",
        "made",
        "--from-openapi",
        str(PETSTORE),
        "--directory",
        str(tmp_path),
    ]
    made = CliRunner().invoke(app, words)
    assert made.exit_code == 0, made.output
    assert "uploadPhoto at #/paths/~1pets~1{petId}~1photo/post: its body is" in made.stderr
    file = tmp_path / "automate-made" / "README.md"
    file.write_text("mine")
    again = CliRunner().invoke(app, [*words[:4], "not-there.json", *words[5:]])
    assert again.exit_code and "exists already" in again.stderr
    assert file.read_text() == "mine"
    document = ["--from-openapi", str(PETSTORE)]
    for wrong in ([*document, "--kind", "filter"], ["--operation", "x"]):
        got = CliRunner().invoke(app, ["plugins", "new", "other", *wrong, *words[5:]])
        assert got.exit_code
        assert "hint" in got.stderr
    assert not (tmp_path / "automate-other").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("openapi: 3.1.0\npaths: {a: [\n", "line 3"),
        ('{"openapi": "3.1.0",\n "paths": {]}', "line 2"),
        ("openapi: 3.1.0\n", "wrong at #/paths: it is missing"),
        ("openapi: 3.1.0\npaths: []\n", "wrong at #/paths: it is no object"),
        ("openapi: 3.1.0\npaths: {/a/b: 7}\n", "wrong at #/paths/~1a~1b: it is no object"),
        ("openapi: 3.1.0\npaths: {/a: {get: [x]}}\n", "wrong at #/paths/~1a/get"),
        ("openapi: 3.1.0\npaths: {}\ncomponents: x\n", "wrong at #/components"),
        ('{"openapi": "3.1.0", "paths": {}, "info": {"title": "\\ud800"}}', "#/info/title"),
        ("openapi: 3.1.0\npaths: {}\n", "has no operations"),
        ("swagger: '2.0'\n", "Swagger 2.0"),
        ("hello", "no OpenAPI document"),
        ("openapi: 3.1.0\npaths: {/a: {get: {parameters: [{$ref: '#/x'}], responses: {}}}}", "get_a at #/paths/~1a/get: $ref '#/x' leads nowhere"),
        ("openapi: 3.1.0\npaths: {/a: {get: {parameters: [{in: query}], responses: {}}}}", None),
    ],
)  # fmt: skip
def test_a_malformed_document_is_an_error_with_the_place(
    tmp_path: Path, text: str, said: str | None
) -> None:
    """The line where it can't be parsed, else the pointer; what does no harm is passed over."""
    path = tmp_path / "x.yaml"
    path.write_text(text)
    if said is None:
        assert scaffold_of("made", str(path)).operations == ("get_a",)
        return
    with pytest.raises(ConfigError) as caught:
        scaffold_of("made", str(path))
    assert said in str(caught.value)


# -- no word is code -----------------------------------------------------------------------------


def fixed_names(source: str) -> set[str]:
    """The functions that a module calls by name, and the modules that it imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add(node.func.id)
    return found


_MODULES = {
    "__future__",
    "base64",
    "collections.abc",
    "json",
    "typing",
    "pydantic",
    "pydantic_core",
}


@settings(max_examples=40)
@given(seed=st.integers(0, 10**9), version=st.sampled_from(["3.0.3", "3.1.0"]))
def test_no_word_of_a_document_is_code(
    tmp_path_factory: pytest.TempPathFactory, seed: int, version: str
) -> None:
    """Whatever stands in it: the sources parse, import, describe themselves, and call our own."""
    folder = tmp_path_factory.mktemp("hostile")
    try:
        made = scaffolded("zeta", hostile_document(Random(seed), version), folder)
    except ConfigError as error:
        assert "no plugin can be written" in str(error)
        return
    written = made.write(folder)
    manifest = json.loads((written / "src/automate_zeta/automate.json").read_text())
    (plugin,) = manifest["plugins"]
    assert [each["name"] for each in plugin["operations"]] == sorted(made.operations) or set(
        each["name"] for each in plugin["operations"]
    ) == set(made.operations)
    for name in ("models", "config", "connector"):
        source = (written / f"src/automate_zeta/{name}.py").read_text()
        assert "\u202e" not in source and "\u2066" not in source
        for each in fixed_names(source):
            ours = each in _MODULES or each.startswith(("automate_http", "automate_kernel"))
            assert ours or "abort" not in each and each != "os", each
    readme = (written / "README.md").read_text()
    assert not re.search(r"(?<!\\)(<script|\]\(java)", readme)
    ExampleFile(written / "src/automate_zeta/example.yaml").text.index("zeta")
    assert "{{" not in (written / "src/automate_zeta/example.yaml").read_text()


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _doubled(made: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any]:
    """Return definitions each of which refers to the next one twice: the last 2**30 times."""
    return {f"A{at}": made(_ref(f"A{at + 1}")) for at in range(30)} | {"A30": {"type": "string"}}


_LISTS = _doubled(
    lambda each: {"anyOf": [{"type": "array", "items": each}, {"type": "array", "items": {"items": each, "type": "array"}}]}
)  # fmt: skip
_CHOICES = _doubled(lambda each: {"anyOf": [each, {"anyOf": [each, {"const": id(each)}]}]})
_OBJECTS = _doubled(
    lambda each: {
        "type": "object", "required": list("abcdefgh"), "properties": dict.fromkeys("abcdefgh", each),
    }
)  # fmt: skip
_DEEP: dict[str, Any] = {"type": "string"}
for _ in range(7):
    _DEEP = {"type": "array", "minItems": 20, "items": _DEEP}


@pytest.mark.parametrize(
    ("schemas", "root"),
    [
        (_LISTS, "A0"),
        (_CHOICES, "A0"),
        (_OBJECTS, "A0"),
        ({"A": {"anyOf": [_ref("A")] * 20}}, "A"),
        ({"A": {"anyOf": [_ref("B")] * 9}, "B": {"anyOf": [_ref("A"), {"type": "string"}] * 9}}, "A"),
        ({"A": _DEEP}, "A"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["query", "body", "answer"])
def test_a_small_document_that_unfolds_without_end_is_written_in_no_time(
    schemas: dict[str, Any], root: str, place: str, tmp_path: Path
) -> None:
    body = {"type": "object", "required": ["n"], "properties": {"n": _ref(root)}}
    content = {"application/json": {"schema": body}}
    call: dict[str, Any] = {"operationId": "call"}
    if place == "query":
        call["parameters"] = [{"name": "n", "in": "query", "schema": _ref(root)}]
    elif place == "body":
        call["requestBody"] = {"required": True, "content": content}
    answers = {"200": {"description": "", **({"content": content} if place == "answer" else {})}}
    given = document({"/x": {"post": {**call, "responses": answers}}})
    given["components"] = {"schemas": schemas}
    files = scaffolded("acme", given, tmp_path).files()
    assert sum(map(len, files.values())) < 100_000
    for path, text in files.items():
        if path.endswith(".py"):
            ast.parse(text)


def test_an_input_with_thousands_of_definitions_is_left_out_with_the_reason(tmp_path: Path) -> None:
    schemas = {f"A{at}": {"type": "array", "items": _ref(f"A{at + 1}")} for at in range(3_100)}
    schemas["A3100"] = {"type": "string"}
    body = {"type": "object", "properties": {"n": _ref("A0")}}
    large = {"requestBody": {"content": {"application/json": {"schema": body}}}, "responses": {}}
    given = document({"/x": {"post": large}, "/y": {"get": operation()}})
    given["components"] = {"schemas": schemas}
    made = scaffolded("acme", given, tmp_path)
    assert len(made.operations) == 1
    assert [each.partition(": ")[2] for each in made.left_out] == [
        "its input is too large to be written"
    ]


def test_sources_of_hostile_documents_are_clean(tmp_path: Path) -> None:
    """For ruff with the plugin's own rules, its formatter, and mypy at its strictest."""
    folders = []
    for seed in range(10, 22):
        try:
            made = scaffolded(f"h{seed}", hostile_document(Random(seed)), tmp_path)
        except ConfigError:
            continue
        folders.append(made.write(tmp_path))
    assert len(folders) > 9
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(str(each / "src") for each in folders)}
    sources = [str(path) for each in folders for path in (each / "src").rglob("*.py")]
    for tool in (
        ["ruff", "check", "--no-cache", "--quiet", "."],
        ["ruff", "format", "--no-cache", "--check", "--quiet", "."],
        ["mypy", "--strict", "--follow-imports=silent", "--no-error-summary", "--config-file=",
         f"--cache-dir={tmp_path / 'cache'}", *sources],
    ):  # fmt: skip
        ran = subprocess.run(
            [sys.executable, "-m", *tool], capture_output=True, text=True, cwd=tmp_path, check=False,
            env=environment,
        )  # fmt: skip
        assert (ran.returncode, ran.stdout[-3000:]) == (0, ""), ran.stdout[-3000:] + ran.stderr


def test_names_are_the_same_whatever_else_is_there(tmp_path: Path) -> None:
    """Of two operations or fields with one name each is told apart, and so again next time."""
    content = document({
        "/a-b": {"get": operation(operationId="do-it", parameters=[
            {"name": "a-b", "in": "query", "schema": {"type": "string"}},
            {"name": "a_b", "in": "query", "schema": {"type": "string"}},
            {"name": "class", "in": "query", "schema": {"type": "string"}},
        ])},
        "/a": {"get": operation(operationId="do.it"), "post": operation(operationId="close")},
    })  # fmt: skip
    made = scaffolded("made", content, tmp_path)
    names = made.operations
    assert len(set(names)) == 3 and "close_" in names
    assert sum(name.startswith("do_it_") for name in names) == 2
    assert scaffolded("made", content, tmp_path).files() == made.files()
    models = made.files()["src/automate_made/models.py"]
    assert "    a_b: str | None = None\n" in models
    assert 'a_b_2: str | None = Field(default=None, alias="a-b")' in models
    assert 'field_class: str | None = Field(default=None, alias="class")' in models
