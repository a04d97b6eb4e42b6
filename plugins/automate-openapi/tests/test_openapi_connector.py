"""The connector on documents and services of all kinds."""

from __future__ import annotations

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from automate_http import ServiceClient
from automate_kernel import AutomateError, Call, ConfigError, Kernel
from automate_kernel.operations.context import calling
from automate_openapi import OpenApiConnector
from openapi_support import (
    PETSTORE,
    TOKEN,
    call,
    connector,
    document,
    operation,
    specs,
)
from recording_service import Service


def test_names_come_from_ids_or_paths(tmp_path: Path) -> None:
    """Made fit; two that would be one are told apart, whatever their order."""
    paths = {
        "/a": {"get": operation(operationId="issues/list for repo"), "put": operation()},
        "/b/{x}": {"get": operation(operationId="twice"), "post": operation(operationId="twice")},
        "/": {"get": operation(operationId="  ")},
    }
    found = set(specs(connector(document(paths), tmp_path)))
    turned = dict(reversed(paths.items()))
    assert found == set(specs(connector(document(turned), tmp_path)))
    twice = {name for name in found if name.startswith("twice_")}
    assert found - twice == {"issues.list_for_repo", "put_a", "get"}
    assert len(twice) == 2


def test_actions_are_chosen_by_pattern_and_tag(tmp_path: Path) -> None:
    made = connector(PETSTORE, tmp_path, actions=["*Pet*"], exclude=["delete*"], tags=["pets"])
    assert set(specs(made)) == {"listPets", "createPet", "getPet", "replacePet"}


def test_methods_say_what_an_action_does(tmp_path: Path) -> None:
    """The host's own word counts more, and the last pattern that fits."""
    hints = {"*": {}, "createPet": {"idempotent": True}, "hasPet": {"destructive": True}}
    found = specs(connector(PETSTORE, tmp_path, hints=hints))
    nature = {
        name: (each.read_only, each.destructive, each.idempotent) for name, each in found.items()
    }
    assert nature["listPets"] == (True, False, True)
    assert nature["replacePet"] == (False, False, True)
    assert nature["deletePet"] == (False, True, True)
    assert nature["addNote"] == (False, False, False)
    assert nature["createPet"] == (False, False, True)
    assert nature["hasPet"] == (False, True, True)


def test_fields_of_one_name_are_told_apart(tmp_path: Path, service: Service) -> None:
    """Each reaches its own place."""
    body = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"id": {"type": "string"}, "query_id": {"type": "string"}},
                }
            }
        },
    }
    named = [{"name": "id", "in": where, "schema": {"type": "string"}} for where in
             ("header", "query", "cookie", "path")]  # fmt: skip
    paths = {"/x/{id}": {"post": operation(operationId="x", parameters=named, requestBody=body)}}
    made = connector(document(paths), tmp_path, **service.config)
    values = {
        "id": "1", "query_id": "2", "header_id": "3", "cookie_id": "4", "body_id": "5",
        "body_query_id": "6",
    }  # fmt: skip
    assert set(specs(made)["x"].input_schema["properties"]) == set(values)
    call(made, "x", values)
    sent = service.last
    assert (sent.target, sent.headers["id"]) == ("/x/1?id=2", "3")
    assert sent.headers["cookie"] == "id=4"
    assert json.loads(sent.body) == {"id": "5", "query_id": "6"}


def test_a_body_may_be_left_out_but_not_a_part_of_it(tmp_path: Path, service: Service) -> None:
    made = connector(PETSTORE, tmp_path, auth={"token": {"secret": "T"}}, **service.config)
    call(made, "patch_owners_id", {"id": "1"})
    assert service.last.body == b""
    assert "content-type" not in service.last.headers
    with pytest.raises(AutomateError, match="not valid"):
        call(made, "patch_owners_id", {"id": "1", "nickname": "x"})


def test_a_body_of_choices_is_one_field(tmp_path: Path, service: Service) -> None:
    schema = {"oneOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "string"}]}
    body = {"required": True, "content": {"application/vnd.x+json": {"schema": schema}}}
    made = connector(
        document({"/x": {"post": operation(requestBody=body)}}), tmp_path, **service.config
    )
    call(made, "post_x", {"body": [1, 2]})
    assert service.last.body == b"[1,2]"
    assert service.last.headers["content-type"] == "application/vnd.x+json"


def test_further_fields_of_a_body_are_sent_where_it_takes_them(
    tmp_path: Path, service: Service
) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {}},
        "additionalProperties": {"type": "integer"},
    }
    body = {"content": {"application/json": {"schema": schema}}}
    made = connector(
        document({"/x": {"post": operation(requestBody=body)}}), tmp_path, **service.config
    )
    call(made, "post_x", {"a": "1", "b": 2})
    assert json.loads(service.last.body) == {"a": "1", "b": 2}
    with pytest.raises(AutomateError, match="b: must be integer"):
        call(made, "post_x", {"b": "2"})


# -- files ---------------------------------------------------------------------------------------


def test_a_multipart_body_can_not_be_broken_out_of(tmp_path: Path, service: Service) -> None:
    """And is the same for the same input, so that a repetition is one."""
    made = connector(PETSTORE, tmp_path, auth={"token": {"secret": "T"}}, **service.config)
    photo = {"base64": "AAEC", "filename": 'a"\r\nX: y.png', "content_type": "image/png"}
    for _ in range(2):
        call(made, "uploadPhoto", {"petId": 1, "photo": photo, "caption": "é"})
    assert service.sent[0].body == service.sent[1].body
    head, _, rest = service.last.body.partition(b"\r\n\r\n")
    assert b'filename="a%22%0D%0AX: y.png"\r\nContent-Type: image/png' in head
    assert rest.startswith(b"\x00\x01\x02\r\n--")
    bad = {**photo, "content_type": "image/png\r\nX: y"}
    with pytest.raises(AutomateError, match="header"):
        call(made, "uploadPhoto", {"petId": 1, "photo": bad})


def test_a_path_is_taken_from_one_folder_alone(tmp_path: Path, service: Service) -> None:
    """And by default from none."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"content")
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    auth = {"token": {"secret": "T"}}
    made = connector(PETSTORE, tmp_path, auth=auth, **service.config)
    with pytest.raises(AutomateError, match="'path' is unknown"):
        call(made, "replacePhoto", {"petId": 1, "body": {"path": "a.bin"}})
    made = connector(PETSTORE, tmp_path, auth=auth, files_from=str(folder), **service.config)
    call(made, "replacePhoto", {"petId": 1, "body": {"path": "a.bin"}})
    assert service.last.body == b"content"
    for outside in ("../secret", "link", str(tmp_path / "secret")):
        with pytest.raises(AutomateError, match="leads out of files_from"):
            call(made, "replacePhoto", {"petId": 1, "body": {"path": outside}})


# -- documents that are not as they should be ------------------------------------------------------


def test_a_broken_action_leaves_the_others_alone(
    tmp_path: Path, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    paths = {
        "/bad": {"get": operation(operationId="bad", parameters=[{"$ref": "#/nowhere"}])},
        "/unread": {
            "get": operation(operationId="unread", parameters=[{"$ref": "http://[x/y#/z"}])
        },
        "/odd/{id}": {
            "get": operation(
                operationId="odd",
                parameters=[{"name": "q", "in": "query", "schema": {"pattern": "\\p{L}"}}],
            )
        },
        "/remote": {"$ref": "https://elsewhere.example/x.json"},
        "/good": {"get": operation(operationId="good")},
        "/vague": {"get": operation(operationId="vague", responses={"2XX": {"$ref": "#/nowhere"}})},
    }
    made = connector(document(paths), tmp_path, **service.config)
    with caplog.at_level(logging.WARNING):
        found = specs(made)
        assert len(list(found.values())) == 5
    assert "'odd' is checked less" in caplog.text
    assert "'vague' is checked less than its document says: response 2XX: $ref" in caplog.text
    call(made, "vague")
    assert "the path's 'id'" in caplog.text
    call(made, "good")
    call(made, "odd", {"id": "1", "q": "é"})
    with pytest.raises(AutomateError, match=r"'unread' can't be called.*is no address"):
        call(made, "unread")
    with pytest.raises(AutomateError, match=r"'bad' can't be called.*leads nowhere") as caught:
        call(made, "bad")
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "no valid JSON or YAML, line 1"),
        ("openapi: 3.0.0\npaths: [", "no valid JSON or YAML, line"),
        ("a: &a [x]\nb: {<<: *a}", "no valid JSON or YAML, line 2"),
        ("swagger: '2.0'", "Swagger 2.0"),
        ("[]", "no OpenAPI document"),
        ("openapi: 4.0.0", "no OpenAPI document"),
        ("[" * 100_000, "no valid JSON or YAML|too deep"),
        (
            "a0: &a0 [x, x]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 20)}]\n" for n in range(1, 12)),
            "too large",
        ),
        ("x" * 2_000, "larger than"),
    ],
    ids=[
        "json", "yaml", "merge", "swagger", "list", "version", "deep", "aliases", "long",
    ],
)  # fmt: skip
def test_a_document_that_can_not_be_read_says_why(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    limit = 1_000 if text.startswith("x") else 1_000_000
    with pytest.raises(ConfigError, match=problem):
        specs(connector(path, tmp_path, max_document_bytes=limit))


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't be read: No such file"):
        specs(connector(tmp_path / "no.yaml", tmp_path))


def test_nothing_is_read_to_start_a_kernel() -> None:
    """Nor to check a workflow."""
    kernel = Kernel(discover=False, config={"api": {"document": "/nowhere.yaml"}})
    kernel.register(OpenApiConnector, key="api")
    with kernel:
        kernel.connector("api")
        kernel.add_workflow({
            "name": "w", "trigger": {"type": "manual"},
            "steps": [{"id": "a", "action": "api.anything", "input": {}}],
        })  # fmt: skip


def test_yaml_means_what_json_would(tmp_path: Path) -> None:
    """No dates, no sexagesimal numbers, and Norway stays a country."""
    path = tmp_path / "x.yaml"
    path.write_text(
        "openapi: 3.0.3\ninfo: {title: T, version: 2026-11-26}\n"
        "paths: {/x: {get: {responses: {200: {description: d, content: {application/json: "
        "{schema: {enum: [no, on, 12:30:45, 2026-01-01, 0777, 1.5, true]}}}}}}}}\n"
    )
    made = connector(path, tmp_path)
    enum = specs(made)["get_x"].output_schema["enum"]
    assert enum == ["no", "on", "12:30:45", "2026-01-01", "0777", 1.5, True]


# -- where the document comes from -----------------------------------------------------------------


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    made = connector(document({"/a": {"get": operation()}}), tmp_path)
    assert specs(made) is specs(made)
    (tmp_path / "openapi.json").write_text(json.dumps(document({"/bb": {"get": operation()}})))
    assert set(specs(made)) == {"get_bb"}


def test_clients_of_a_former_document_are_closed_later(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the document after the next, or with the connector: requests on their way still end."""
    opened: list[ServiceClient] = []
    closed: list[ServiceClient] = []

    class Noted(ServiceClient):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            opened.append(self)

        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr("automate_openapi.connector.ServiceClient", Noted)
    made = connector(document({"/a": {"get": operation()}}), tmp_path, **service.config)
    call(made, "get_a")
    for number in (1, 2, 3):
        changed = document({"/a": {"get": operation(description="x" * number)}})
        (tmp_path / "openapi.json").write_text(json.dumps(changed))
        call(made, "get_a")
        assert len(opened) == number + 1
        assert closed == opened[: number - 1]
    made.close()
    assert sorted(map(id, closed)) == sorted(map(id, opened))
    assert len(service.sent) == 4
    call(made, "get_a")
    assert len(opened) == 5, "the next call opens new ones"


def test_a_url_is_asked_again_by_its_etag(service: Service) -> None:
    """After a while; and while it can't be had, the last document counts."""
    now = [0.0]
    service.answer(document({"/a": {"get": operation()}}), ETag='"1"')
    made = from_url(service)
    made._source._clock = lambda: now[0]
    first = specs(made)
    assert specs(made) is first
    assert len(service.sent) == 1
    now[0] = 4_000.0
    service.answers[:] = [(304, {}, b"")]
    assert specs(made) is first
    assert service.last.headers["if-none-match"] == '"1"'
    now[0] = 8_000.0
    service.answers[:] = [(503, {}, b"")]
    assert specs(made) is first
    assert specs(made) is first
    assert len(service.sent) == 3, "it is asked at most once in a minute while it is away"
    now[0] = 8_100.0
    service.answers.clear()
    service.answer(document({"/b": {"get": operation()}}))
    assert set(specs(made)) == {"get_b"}


def test_many_threads_read_a_document_once(service: Service) -> None:
    """Each on an event loop of its own."""
    service.answer(document({"/a": {"get": operation()}}))
    made = from_url(service, base_url=service.url)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: call(made, "get_a"), range(16)))
    assert len(answers) == 16
    assert [each.target for each in service.sent].count("/openapi.json") == 1


def test_a_query_of_the_documents_url_is_not_shown(service: Service) -> None:
    """It may hold a token."""
    service.answer({"swagger": "2.0"})
    made = from_url(service)
    made = OpenApiConnector(
        {**made.config, "document": f"{service.url}/x.json?token=abcdef"}, ctx=made.ctx
    )
    with pytest.raises(AutomateError, match=r"x\.json' is of Swagger") as caught:
        specs(made)
    assert "abcdef" not in str(caught.value)
    assert service.last.target.endswith("?token=abcdef")


def test_a_folder_may_have_any_name(tmp_path: Path, service: Service) -> None:
    folder = tmp_path / "a #1?%20b"
    folder.mkdir()
    parameter = {"name": "q", "in": "query", "schema": {"$ref": "#/components/schemas/Q"}}
    content = document(
        {"/a": {"get": operation(parameters=[parameter])}},
        components={"schemas": {"Q": {"type": "string"}}},
    )
    made = connector(content, folder, **service.config)
    assert specs(made)["get_a"].input_schema["$defs"] == {"Q": {"type": "string"}}


def from_url(service: Service, **config: Any) -> OpenApiConnector:
    """Return a connector whose document is at the service itself."""
    made = connector(PETSTORE, Path(), **{"allow_private_networks": ["127.0.0.1"], **config})
    return OpenApiConnector(
        {**made.config, "document": f"{service.url}/openapi.json"}, ctx=made.ctx
    )


@pytest.mark.parametrize("told", ["config", "document"])
def test_credentials_are_sent_in_the_clear_to_this_machine_alone(tmp_path: Path, told: str) -> None:
    """Whoever names the address, and before anything is sent; the check says so too."""
    paths = {"/pets": {"get": operation()}}
    source = document(paths, servers=[{"url": "http://pets.example"}])
    config: dict[str, Any] = {"auth": {"key": {"secret": "PET_TOKEN", "type": "bearer"}}}
    if told == "config":
        config["base_url"] = "http://pets.example"
        with pytest.raises(ConfigError, match="allow_plain_http"):
            connector(source, tmp_path, **config)
        assert connector(source, tmp_path, **{**config, "allow_plain_http": True})
        del config["auth"]
        assert connector(source, tmp_path, **config)
        return
    made = connector(source, tmp_path, **config)
    for work in (made.check(), made.execute_action(sorted(specs(made))[0], {})):
        with pytest.raises(ConfigError, match="http://pets.example is not https"):
            asyncio.run(work)


def test_a_url_must_be_public_and_encrypted(service: Service) -> None:
    """Unless the config says otherwise."""
    for url in ("http://api.example.com/x.json", "HTTP://api.example.com/x.json"):
        with pytest.raises(ConfigError, match="must be https"):
            OpenApiConnector({"document": url})
    made = connector(PETSTORE, Path())
    secure = service.url.replace("http:", "https:")
    made = OpenApiConnector({"document": secure}, ctx=made.ctx)
    with pytest.raises(AutomateError, match="loopback address"):
        specs(made)


def test_a_fetched_document_does_not_choose_who_gets_credentials(service: Service) -> None:
    """It may be somebody else's by now. The config's own address counts."""
    content = document(
        {"/a": {"get": operation()}},
        components={"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    )
    service.answer(content)
    auth = {"token": {"secret": "T"}}
    with pytest.raises(ConfigError, match=r"another host, 'api.example.com'"):
        call(from_url(service, auth=auth), "get_a")
    call(from_url(service, auth=auth, base_url=service.url), "get_a")
    assert service.last.headers["authorization"] == f"Bearer {TOKEN}"


def test_other_documents_are_read_only_if_they_may_be(tmp_path: Path, service: Service) -> None:
    """Those below the document's folder, on request."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "pets.yaml").write_text(
        "Name: {name: name, in: query, required: true, schema: {$ref: '#/Text'}}\n"
        "Text: {type: string, minLength: 2}\n"
    )
    parameters = [{"$ref": "shared/pets.yaml#/Name"}]
    content = document({"/a": {"get": operation(parameters=parameters)}})
    made = connector(content, tmp_path, **service.config)
    with pytest.raises(AutomateError, match="external_refs"):
        call(made, "get_a", {"name": "Rex"})
    made = connector(content, tmp_path, external_refs=True, **service.config)
    call(made, "get_a", {"name": "Rex"})
    assert service.last.target == "/a?name=Rex"
    with pytest.raises(AutomateError, match="minLength"):
        call(made, "get_a", {"name": "R"})
    parameters[0]["$ref"] = "../other.yaml#/Name"
    with pytest.raises(ConfigError, match="not below"):
        specs(connector(content, tmp_path, external_refs=True))


def test_documents_of_one_host_may_refer_to_each_other(service: Service) -> None:
    parameters = [{"$ref": "more.json#/Name"}]
    service.answer(document({"/a": {"get": operation(parameters=parameters)}}))
    service.answer({"Name": {"name": "name", "in": "query", "schema": {}}})
    made = from_url(service, external_refs=True, base_url=service.url)
    assert set(specs(made)["get_a"].input_schema["properties"]) == {"name"}
    service.answers.clear()
    service.answer(document({"/a": {"$ref": "https://elsewhere.example/x.json"}}))
    with pytest.raises(ConfigError, match="another host"):
        specs(from_url(service, external_refs=True))


@pytest.mark.parametrize("way", ["up", "absolute", "file", "link"])
def test_a_document_that_is_referred_to_leads_no_further_out(tmp_path: Path, way: str) -> None:
    """The second file may refer to what is below the first one's folder, too, and to no more."""
    folder, outside = tmp_path / "api", tmp_path / "outside.yaml"
    (folder / "shared").mkdir(parents=True)
    outside.write_text("Name: {name: name, in: query, schema: {type: string}}\n")
    (folder / "shared" / "link.yaml").symlink_to(outside)
    (folder / "near.yaml").write_text(outside.read_text())
    parameters = [{"$ref": "shared/pets.yaml#/Name"}]
    content = document({"/a": {"get": operation(parameters=parameters)}})
    second = folder / "shared" / "pets.yaml"
    second.write_text("Name: {$ref: '../near.yaml#/Name'}\n")
    made = connector(content, folder, external_refs=True)
    assert set(specs(made)["get_a"].input_schema["properties"]) == {"name"}
    place = {
        "up": "../../outside.yaml", "absolute": str(outside), "file": outside.as_uri(),
        "link": "link.yaml",
    }[way]  # fmt: skip
    second.write_text(f"Name: {{$ref: '{place}#/Name'}}\n")
    with pytest.raises(ConfigError, match="not below"):
        specs(connector(content, folder, external_refs=True))


@pytest.mark.parametrize("place", ["https://elsewhere.example/x.json", "file", "{origin}1/x.json"])
def test_a_fetched_document_leads_to_no_other_host_through_a_second(
    service: Service, tmp_path: Path, place: str
) -> None:
    """Nor to a file, nor to another port; nothing is asked there."""
    file = tmp_path / "x.json"
    file.write_text('{"Name": {"name": "name", "in": "query", "schema": {}}}')
    place = file.as_uri() if place == "file" else place.format(origin=service.url)
    parameters = [{"$ref": "more.json#/Name"}]
    service.answer(document({"/a": {"get": operation(parameters=parameters)}}))
    service.answer({"Name": {"$ref": f"{place}#/Name"}})
    with pytest.raises(ConfigError, match="another host"):
        specs(from_url(service, external_refs=True, base_url=service.url))
    assert [each.target.rpartition("/")[2] for each in service.sent][1:] == ["more.json"]


# -- addresses and credentials ---------------------------------------------------------------------


def test_variables_make_the_address(tmp_path: Path, service: Service) -> None:
    variables = {"host": {"default": "api", "enum": ["api", "127.0.0.1"]}, "stage": {}}
    server = {"url": "http://{host}:{port}/{stage}", "variables": variables}
    content = document({"/a": {"get": operation()}}, servers=[server])
    port = service.url.rpartition(":")[2]
    given = {"host": "127.0.0.1", "port": port, "stage": "v2"}
    config = {"allow_private_networks": ["127.0.0.1"], "server_variables": given}
    call(connector(content, tmp_path, **config), "get_a")
    assert service.last.target == "/v2/a"
    given["host"] = "evil.example"
    with pytest.raises(ConfigError, match=r"'host' is not one of api, 127\.0\.0\.1"):
        call(connector(content, tmp_path, **config), "get_a")
    del given["stage"]
    given["host"] = "127.0.0.1"
    with pytest.raises(ConfigError, match="has the variable 'stage'"):
        call(connector(content, tmp_path, **config), "get_a")
    unread = document({"/a": {"get": operation()}}, servers=[{"url": "http://[x"}])
    with pytest.raises(ConfigError, match="no whole address"):
        call(connector(unread, tmp_path, **config), "get_a")


def test_the_check_reaches_the_service(tmp_path: Path, service: Service) -> None:
    """Without credentials; any answer will do."""
    service.answer({}, 401)
    made = connector(PETSTORE, tmp_path, auth={"token": {"secret": "T"}}, **service.config)
    assert call_check(made).startswith("Pet store 2.0 at http://127.0.0.1:")
    assert "authorization" not in service.last.headers


def call_check(made: OpenApiConnector) -> str:
    from automate_kernel.operations.portal import Portal

    portal = Portal()
    try:
        return portal.run(made.check())
    finally:
        portal.close()


@pytest.mark.parametrize(
    ("scheme", "auth", "wanted"),
    [
        (
            {"type": "http", "scheme": "Bearer"}, {"secret": "T"},
            {"authorization": f"Bearer {TOKEN}"},
        ),
        ({"type": "apiKey", "in": "header", "name": "X-Key"}, {"secret": "T"}, {"x-key": TOKEN}),
        (
            {"type": "apiKey", "in": "cookie", "name": "sid"}, {"secret": "T"},
            {"cookie": f"flavour=a; sid={TOKEN}"},
        ),
        (
            {"type": "openIdConnect"}, {"secret": "T"}, {"authorization": f"Bearer {TOKEN}"},
        ),
        (
            {"type": "mutualTLS"}, {"type": "header", "name": "X-Key", "secret": "T"},
            {"x-key": TOKEN},
        ),
    ],
    ids=["bearer", "header", "cookie", "openid", "told_here"],
)  # fmt: skip
def test_each_scheme_sends_its_credentials(
    tmp_path: Path, service: Service, scheme: Any, auth: Any, wanted: dict[str, str]
) -> None:
    cookie = {"name": "flavour", "in": "cookie", "schema": {"type": "string"}}
    content = document(
        {"/x": {"get": operation(parameters=[cookie])}},
        components={"securitySchemes": {"s": scheme}},
        security=[{"s": []}],
    )
    made = connector(content, tmp_path, auth={"s": auth}, **service.config)
    call(made, "get_x", {"flavour": "a"})
    assert wanted.items() <= service.last.headers.items()


def test_a_key_in_the_query_leaves_the_rest_as_it_was_written(
    tmp_path: Path, service: Service
) -> None:
    """A comma in an item is none between items."""
    ids = {"name": "ids", "in": "query", "explode": False, "schema": {"type": "array"}}
    content = document(
        {"/x": {"get": operation(parameters=[ids])}},
        components={"securitySchemes": {"s": {"type": "apiKey", "in": "query", "name": "key"}}},
        security=[{"s": []}],
    )
    made = connector(content, tmp_path, auth={"s": {"secret": "T"}}, **service.config)
    call(made, "get_x", {"ids": ["a,b", "c"]})
    assert service.last.target == f"/x?ids=a%2Cb,c&key={TOKEN}"


def test_client_credentials_get_a_token(tmp_path: Path, service: Service) -> None:
    flows = {"clientCredentials": {"tokenUrl": f"{service.url}/token", "scopes": {"read": ""}}}
    content = document(
        {"/x": {"get": operation()}},
        components={"securitySchemes": {"o": {"type": "oauth2", "flows": flows}}},
        security=[{"o": ["read"]}],
    )
    service.answer({"access_token": "fresh", "token_type": "Bearer", "expires_in": 3600})
    auth = {"o": {"client_id": "me", "client_secret": "T", "scopes": ["read"]}}
    made = connector(content, tmp_path, auth=auth, **service.config)
    call(made, "get_x")
    call(made, "get_x")
    assert [sent.target for sent in service.sent] == ["/token", "/x", "/x"]
    assert service.last.headers["authorization"] == "Bearer fresh"


def test_what_fails_before_the_request_may_be_tried_again(tmp_path: Path, service: Service) -> None:
    """The service got nothing, only the one that gives tokens."""
    flows = {"clientCredentials": {"tokenUrl": f"{service.url}/token", "scopes": {}}}
    content = document(
        {"/x": {"post": operation()}},
        components={"securitySchemes": {"o": {"type": "oauth2", "flows": flows}}},
        security=[{"o": []}],
    )
    service.answers[:] = [(503, {}, b"")]
    made = connector(content, tmp_path, auth={"o": {"client_id": "me"}}, **service.config)
    with pytest.raises(AutomateError) as caught:
        call(made, "post_x")
    assert caught.value.retryable
    assert {each.target for each in service.sent} == {"/token"}


def test_credentials_stay_away_from_public_actions(tmp_path: Path, service: Service) -> None:
    """Also those that the config describes itself, unless the document knows no schemes at all."""
    paths = {"/x": {"get": operation(security=[])}}
    auth = {"mine": {"type": "header", "name": "X-Key", "secret": "T"}}
    schemes = {"securitySchemes": {"s": {"type": "http", "scheme": "bearer"}}}
    call(
        connector(document(paths, components=schemes), tmp_path, auth=auth, **service.config),
        "get_x",
    )
    assert "x-key" not in service.last.headers
    call(connector(document(paths), tmp_path, auth=auth, **service.config), "get_x")
    assert service.last.headers["x-key"] == TOKEN


def test_without_credentials_nothing_is_sent(tmp_path: Path, service: Service) -> None:
    """The error names what to set. An action that needs none works."""
    made = connector(PETSTORE, tmp_path, **service.config)
    with pytest.raises(AutomateError, match=r"none are configured: token") as caught:
        call(made, "getPet", {"petId": 1})
    assert caught.value.hint == "set auth.token in the connector's config"
    assert not service.sent
    call(made, "addNote", {"body": "x"})
    assert "authorization" not in service.last.headers


def test_a_scheme_that_is_not_in_the_document_is_a_mistake(tmp_path: Path) -> None:
    made = connector(PETSTORE, tmp_path, auth={"tokn": {"secret": "T"}})
    with pytest.raises(ConfigError, match="no security scheme 'tokn'"):
        specs(made)


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "raises"), [("warn", False), ("off", False), ("error", True)], ids=str
)
def test_an_answer_is_compared_with_the_document(
    tmp_path: Path, service: Service, caplog: pytest.LogCaptureFixture, how: str, raises: bool
) -> None:
    auth = {"token": {"secret": "T"}}
    made = connector(PETSTORE, tmp_path, auth=auth, validate_output=how, **service.config)
    service.answer({"id": "seven", "name": "a secret word"})
    if raises:
        with pytest.raises(AutomateError, match="id: must be integer") as caught:
            call(made, "getPet", {"petId": 7})
        assert not caught.value.retryable
    else:
        assert call(made, "getPet", {"petId": 7})["id"] == "seven"
    assert ("id: must be integer" in caplog.text) is (how == "warn")
    assert "a secret word" not in caplog.text


def test_content_that_is_no_json_has_a_form(tmp_path: Path, service: Service) -> None:
    made = connector(document({"/x": {"get": operation()}}), tmp_path, **service.config)
    service.answers[:] = [(200, {"Content-Type": "image/png"}, b"\x89PNG")]
    assert call(made, "get_x") == {"base64": "iVBORw==", "content_type": "image/png"}
    service.answers[:] = [(200, {"Content-Type": "text/csv"}, b"a,b")]
    assert call(made, "get_x") == "a,b"
    service.answers[:] = [(204, {}, b"")]
    assert call(made, "get_x") is None


@pytest.mark.parametrize(
    ("status", "headers", "post", "get"),
    [
        (500, {}, False, True),
        (502, {}, False, True),
        (503, {}, False, True),
        (503, {"Retry-After": "7"}, True, True),
        (429, {"Retry-After": "7"}, True, True),
        (409, {}, True, True),
        (404, {}, False, False),
    ],
)
def test_only_what_was_not_done_is_done_again(
    tmp_path: Path, service: Service, status: int, headers: Any, post: bool, get: bool
) -> None:
    """A call that isn't idempotent is repeated only if the service says that it did nothing."""
    content = document({"/x": {"get": operation(), "post": operation()}})
    service.answers[:] = [(status, headers, b"")]
    for name, wanted in (("post_x", post), ("get_x", get)):
        made = connector(content, tmp_path, **service.config)
        with pytest.raises(AutomateError) as caught:
            call(made, name)
        assert caught.value.retryable is wanted
        # The second one isn't sent: the service's wait is heeded.
        assert caught.value.retry_after == (pytest.approx(7, abs=2) if headers else None)
    keyed = connector(content, tmp_path, idempotency_header="Idempotency-Key", **service.config)
    with pytest.raises(AutomateError) as caught:
        call(keyed, "post_x")
    assert caught.value.retryable is post, "this call has no key"
    with calling(Call("api.post_x", idempotency_key="k")), pytest.raises(AutomateError) as caught:
        call(keyed, "post_x")
    assert caught.value.retryable is get, "the service knows a repetition by its key"


def test_a_key_is_that_of_the_step_whatever_it_sends(tmp_path: Path, service: Service) -> None:
    where = {"name": "q", "in": "query", "schema": {"type": "string"}}
    content = document({"/x": {m: operation(parameters=[where]) for m in ("get", "post", "put")}})
    made = connector(content, tmp_path, idempotency_header="Idempotency-Key", **service.config)
    sent = []
    for name, q, key in (
        ("post_x", "a", "k"), ("post_x", "b", "k"), ("post_x", "a", "l"), ("put_x", "a", "k"),
        ("get_x", "a", "k"), ("post_x", "a", None),
    ):  # fmt: skip
        with calling(Call(f"api.{name}", idempotency_key=key)):
            call(made, name, {"q": q})
        sent.append(service.last.headers.get("idempotency-key"))
    assert sent[0] == sent[1] and len({*sent[1:4], None}) == 4
    assert sent[4:] == [None, None]


def test_what_was_never_sent_may_be_sent_again(tmp_path: Path) -> None:
    config = {"base_url": "http://127.0.0.1:9", "allow_private_networks": True}
    made = connector(document({"/x": {"post": operation()}}), tmp_path, **config)
    with pytest.raises(AutomateError) as caught:
        call(made, "post_x")
    assert caught.value.retryable


# -- pages -----------------------------------------------------------------------------------------


def test_a_list_is_gathered_from_its_pages(tmp_path: Path, service: Service) -> None:
    """With max_items; without it one page comes, as the service gives it."""
    trace = {"name": "X-Trace", "in": "header", "schema": {"type": "string"}}
    where = {"name": "q", "in": "query", "schema": {"type": "string"}}
    content = document({"/x": {"get": operation(parameters=[trace, where])}})
    pages = {"*": {"by": "cursor", "field": "meta.next", "items": "data"}}
    made = connector(content, tmp_path, pages=pages, max_items=100, **service.config)
    service.answer({"data": [1, 2], "meta": {"next": "a&b"}})
    service.answer({"data": [3, 4], "meta": {"next": None}})
    found = call(made, "get_x", {"q": "a,b", "X-Trace": "t", "max_items": 3})
    assert found == [1, 2, 3]
    assert [each.target for each in service.sent] == ["/x?q=a%2Cb", "/x?q=a%2Cb&cursor=a%26b"]
    assert {each.headers["x-trace"] for each in service.sent} == {"t"}
    assert call(made, "get_x")["data"] == [3, 4]
    with pytest.raises(AutomateError, match="maximum 100"):
        call(made, "get_x", {"max_items": 101})


@pytest.mark.parametrize(
    ("pages", "problem"),
    [
        ({"by": "cursor"}, "field is missing"),
        ({"by": "magic"}, "link"),
    ],
    ids=["cursor", "unknown"],
)
def test_wrong_pages_are_a_mistake_of_the_config(pages: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        OpenApiConnector({"document": "x", "pages": {"*": pages}})


@pytest.mark.parametrize("place", ["https://login.example/token", "{origin}1/token"])
def test_a_fetched_document_does_not_choose_who_gets_the_clients_secret(
    service: Service, place: str
) -> None:
    """Only the config names a token's address on another host, or on another port."""
    flows = {"clientCredentials": {"tokenUrl": place.format(origin=service.url), "scopes": {}}}
    schemes = {"o": {"type": "oauth2", "flows": flows}}
    content = document(
        {"/x": {"get": operation()}}, components={"securitySchemes": schemes}, security=[{"o": []}]
    )
    service.answer(content)
    auth = {"client_id": "me", "client_secret": "T"}
    with pytest.raises(ConfigError, match="token_url on another host"):
        call(from_url(service, auth={"o": auth}, base_url=service.url), "get_x")
    assert len(service.sent) == 1
    service.answer({"access_token": "issued", "token_type": "bearer", "expires_in": 60})
    service.answer({})
    elsewhere = service.url.replace("127.0.0.1", "localhost")
    told = {"o": {**auth, "token_url": f"{elsewhere}/token"}}
    made = from_url(service, auth=told, base_url=service.url, allow_private_networks=True)
    call(made, "get_x")
    assert service.last.headers["authorization"] == "Bearer issued"


def test_a_token_url_that_can_not_be_read_is_a_fault_of_the_config(service: Service) -> None:
    """And no bug of ours."""
    flows = {"clientCredentials": {"tokenUrl": "https://[nowhere", "scopes": {}}}
    content = document(
        {"/x": {"get": operation()}},
        components={"securitySchemes": {"o": {"type": "oauth2", "flows": flows}}},
        security=[{"o": []}],
    )
    service.answer(content)
    made = from_url(
        service, auth={"o": {"client_id": "me", "client_secret": "T"}}, base_url=service.url
    )
    with pytest.raises(ConfigError, match="token_url on another host"):
        call(made, "get_x")
