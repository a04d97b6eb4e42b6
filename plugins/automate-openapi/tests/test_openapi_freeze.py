"""Frozen modules: clean for tools, and the same when they run."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from automate_kernel import Kernel
from automate_kernel.operations.portal import Portal
from automate_openapi.freeze import frozen_module
from openapi_support import PETSTORE, TOKEN, connector, document, operation, specs
from recording_service import Service

USES = """
from pets_api import GetPetInput, Pet, Pets
from typing_extensions import assert_type


async def use(pets: Pets) -> None:
    wanted: GetPetInput = {"petId": 7, "X-Fields": ["id"]}
    pet = await pets.get_pet(**wanted)
    assert_type(pet, Pet)
    assert_type(pet["id"], int)
    assert_type(await pets.list_pets(kinds=["cat"]), list[Pet])
    await pets.create_pet(name="Rex", parent={"name": "Max"})
"""
WRONG = """
from pets_api import Pets


async def use(pets: Pets) -> None:
    await pets.get_pet(petId="7")
    await pets.list_pets(kinds=["cow"])
    await pets.create_pet()
    await pets.create_pet(name="Rex", id=7)
"""


def freeze(key: str, source: Any, folder: Path, **options: Any) -> str:
    return frozen_module(specs(connector(source, folder)), key=key, **options)  # type: ignore[arg-type]


Check = Callable[..., str]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """
    A function that returns what mypy says about files, and ruff about the first of them.

    mypy reads the kernel once for all tests: what it knows of it is kept.
    """
    cache = f"--cache-dir={tmp_path_factory.mktemp('mypy')}"
    strict = ["--strict", "--follow-imports=silent", "--no-error-summary", "--config-file=", cache]

    def check(folder: Path, module: str, *uses: str) -> str:
        said = ""
        for tool in (
            ["mypy", *strict, module, *uses],
            ["ruff", "check", "--isolated", "--output-format=concise", "--quiet", module],
        ):
            ran = subprocess.run(
                [sys.executable, "-m", *tool], capture_output=True, text=True, cwd=folder,
                check=False, env={**os.environ, "MYPYPATH": "."},
            )  # fmt: skip
            said += ran.stdout + ran.stderr
        return said

    return check


def test_a_frozen_module_is_clean_and_knows_its_types(tmp_path: Path, check: Check) -> None:
    """For mypy at its strictest, and ruff."""
    (tmp_path / "pets_api.py").write_text(freeze("pets", PETSTORE, tmp_path))
    (tmp_path / "uses.py").write_text(USES)
    (tmp_path / "wrong.py").write_text(WRONG)
    found = check(tmp_path, "pets_api.py", "uses.py", "wrong.py")
    errors = re.findall(r"^(.+): error", found, re.MULTILINE)
    assert sorted(set(errors)) == [f"wrong.py:{line}" for line in (6, 7, 8, 9)], found


def test_github_can_be_frozen(github: Path, tmp_path: Path, check: Check) -> None:
    """Thirty thousand lines, all of them clean."""
    module = freeze("github", github, tmp_path)
    assert module.count("    async def ") > 1_000
    (tmp_path / "github_api.py").write_text(module)
    assert check(tmp_path, "github_api.py") == ""


def test_a_frozen_module_works_the_same(tmp_path: Path, service: Service) -> None:
    """Its methods send what the actions send, and workflows find the actions."""
    module = loaded(freeze("pets", PETSTORE, tmp_path, only=["*Pet"]), tmp_path)
    config = {"document": str(PETSTORE), "auth": {"token": {"secret": "T"}}, **service.config}
    service.answer({"id": 7, "name": "Rex"})
    with Kernel(discover=False, config={"pets": config}, secrets={"T": TOKEN}) as kernel:
        kernel.register(module.Pets)
        pets, portal = kernel.connector("pets"), Portal()
        assert portal.run(pets.get_pet(petId=7)) == kernel.invoke("pets.getPet", {"petId": 7})
        portal.close()
        assert service.sent[0].target == service.sent[1].target == "/pets/7"
        assert kernel.invoke("pets.listPets", {}) == {"id": 7, "name": "Rex"}
    assert not hasattr(module.Pets, "list_pets"), "only what was asked for is frozen"


def loaded(text: str, folder: Path) -> Any:
    path = folder / "frozen.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("frozen", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_text_of_a_document_is_never_code(tmp_path: Path) -> None:
    """Whatever it says."""
    evil = '"""\nimport os; os.abort()\n"""\\" + os.abort() + f"{os.abort()}'
    name = {"name": evil, "in": "query", "schema": {"enum": [evil, None]}}
    content = document({f"/{evil}": {"get": operation(
        operationId=evil, summary=evil, description=evil, parameters=[name],
    )}})  # fmt: skip
    content["info"]["title"] = evil
    module = loaded(freeze("class", content, tmp_path), tmp_path)
    assert module.Class.key == "class"


@pytest.mark.parametrize("name", ["check", "close", "class", "config", "1st", "own operations"])
def test_a_method_takes_no_other_name_away(tmp_path: Path, name: str) -> None:
    content = document({"/x": {"get": operation(operationId=name)}})
    module = loaded(freeze("x", content, tmp_path), tmp_path)
    own = [each for each in vars(module.X) if not each.startswith("__") and each != "key"]
    assert len(own) == 2
    assert not set(own) - {"display_name"} & set(dir(module.X.__base__))


# Names of types and of the module itself, names twice, names that are none.
NAMES = ["list", "dict", "str", "bool", "cast", "Any", "None", "2fa", "get_user", "getUser", "-"]
EMOJI = "\N{SLIGHTLY SMILING FACE}"
FIELDS = {"class": 1, "from": "a", "self": "me", "values": "b", "größe": f'{EMOJI} "\\'}


def odd_document() -> dict[str, Any]:
    """Return one whose names are those of Python, or none at all."""
    numbers = {"type": "object", "additionalProperties": {"type": "integer"}}
    outputs = [{"type": "array", "items": numbers}, numbers, {"type": "string"}]
    parameters = [
        {"name": name, "in": "query", "required": name == "self", "schema": {"enum": [value]}}
        for name, value in FIELDS.items()
    ]
    paths = {}
    for number, name in enumerate(NAMES):
        content = {"application/json": {"schema": outputs[number % 3]}}
        answers = {"responses": {"200": {"description": "fine", "content": content}}}
        paths[f"/{number}"] = {"get": {"operationId": name, "parameters": parameters, **answers}}
    made = document(paths)
    made["info"]["title"] = f"Shop {EMOJI}"
    return made


def test_odd_names_make_a_clean_module(tmp_path: Path, service: Service, check: Check) -> None:
    """
    It sends what the actions send, whatever a document calls its things.

    A method called list was the type of those after it, and an emoji became two halves of it.
    """
    text = freeze("shop", odd_document(), tmp_path)
    (tmp_path / "odd_api.py").write_text(text, encoding="utf-8")
    assert check(tmp_path, "odd_api.py") == ""
    module = loaded(text, tmp_path)
    assert EMOJI in module.Shop.display_name
    methods = [each for each in vars(module.Shop).values() if inspect.iscoroutinefunction(each)]
    assert len(methods) == len(NAMES)
    config = {"document": str(tmp_path / "openapi.json"), **service.config}
    with Kernel(discover=False, config={"shop": config}) as kernel:
        kernel.register(module.Shop)
        shop, portal = kernel.connector("shop"), Portal()
        service.answer({})
        for method in methods:
            portal.run(method(shop, **FIELDS))
        for name in specs(connector(odd_document(), tmp_path)):
            kernel.invoke(f"shop.{name}", FIELDS)
        portal.close()
    targets = [each.target for each in service.sent]
    assert sorted(targets[: len(NAMES)]) == sorted(targets[len(NAMES) :])


def object_of(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields}


def answering(name: str, schema: Any, **more: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    return {"get": operation(
        operationId=name, responses={"200": {"description": "fine", "content": content}}, **more
    )}  # fmt: skip


def names_in(text: str) -> dict[str, str]:
    """Return the names of the methods and types of a frozen module, with what each is."""
    methods = re.findall(r"async def (\w+)\(.*?call_action\((\S+?),", text, re.DOTALL)
    types = re.findall(r"^class (\w+)\(TypedDict\):\n((?:    .*\n)+)", text, re.MULTILINE)
    assert len({name for name, _ in [*methods, *types]}) == len(methods) + len(types)
    return dict([*methods, *types])


TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
# The names of the first are those that one of the second would have, or sort before them.
BEFORE = {
    "/1": answering("getUser", object_of(a=TEXT)),
    "/2": answering("get_user", object_of(b=TEXT)),
    "/3": answering("listThings", {"type": "array", "items": object_of(c=TEXT)}),
    "/4": answering("list", object_of(user=object_of(d=TEXT))),
    "/5": answering("z2fa", object_of(e=TEXT)),
}
ADDED = {
    "/0": answering("GetUser", object_of(f=NUMBER)),
    "/9": answering("getUser2", object_of(g=NUMBER)),
    "/8": answering("list2", object_of(h=NUMBER)),
    "/7": answering("2fa", object_of(i=NUMBER)),
}


def test_another_operation_changes_the_name_of_no_method_and_no_type(tmp_path: Path) -> None:
    """Code that was written against the module before would call another operation."""
    before = names_in(freeze("shop", document(BEFORE), tmp_path))
    after = names_in(freeze("shop", document({**ADDED, **BEFORE}), tmp_path))
    assert before.items() <= after.items()
    assert len(after) > len(before)


def test_of_two_methods_that_would_have_one_name_none_has_it(tmp_path: Path) -> None:
    """One that comes would take it from the other, and nobody would notice."""
    both = names_in(freeze("shop", document(BEFORE), tmp_path))
    one = names_in(freeze("shop", document({"/1": BEFORE["/1"]}), tmp_path))
    assert {"get_user", "GetUserOutput"} == one.keys()
    assert not one.keys() & both.keys()
    only = names_in(freeze("shop", document(BEFORE), tmp_path, only=["getUser"]))
    assert only.items() <= {**both, **only}.items() and "get_user" not in only


def test_a_type_of_requests_keeps_its_name_when_an_answer_has_it_too(tmp_path: Path) -> None:
    """Where both are not the same, as with a property that is only read."""
    pet = object_of(id={**NUMBER, "readOnly": True}, name=TEXT)
    reference = {"$ref": "#/components/schemas/Pet"}
    body = {"application/json": {"schema": {"type": "array", "items": reference}}}
    put = {"put": operation(operationId="putPets", requestBody={"content": body})}
    more = {"components": {"schemas": {"Pet": pet}}}
    before = names_in(freeze("shop", document({"/1": put}, **more), tmp_path))
    both = {"/1": put, "/2": answering("getPet", reference)}
    after = names_in(freeze("shop", document(both, **more), tmp_path))
    assert before.items() <= after.items()
    assert "id: " not in before["PetInput"] and "id: " in after["Pet"]


@pytest.mark.parametrize("key", ["none", "true", "any", "cast", "typed-dict", "open-api-connector"])
def test_a_key_that_is_a_word_of_the_module_makes_another_name(tmp_path: Path, key: str) -> None:
    module = loaded(freeze(key, odd_document(), tmp_path), tmp_path)
    own = [each for each in vars(module).values() if getattr(each, "key", None) == key]
    assert len(own) == 1


def test_the_command_prints_the_module(tmp_path: Path) -> None:
    (tmp_path / "automate.toml").write_text(
        'plugins = ["pets=automate_openapi:OpenApiConnector"]\n'
        f'[config.pets]\ndocument = "{PETSTORE}"\n'
    )
    command = [sys.executable, "-m", "automate_cli", "openapi", "freeze"]
    ran = subprocess.run(
        [*command, "pets", "--only", "get*", "--only", "hasPet"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == freeze("pets", PETSTORE, tmp_path, only=["get*", "hasPet"])
    ran = subprocess.run(
        [*command, "http"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert ran.returncode != 0
    assert "doesn't come from an OpenAPI document" in ran.stderr
