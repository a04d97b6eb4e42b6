"""Every action of a pet store against Prism, which checks each request by the document."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from automate_kernel import AutomateError, Kernel
from automate_openapi import OpenApiConnector
from openapi_support import PETSTORE, TOKEN

PHOTO = base64.b64encode(bytes(range(256))).decode()
CALLS: dict[str, dict[str, Any]] = {
    "listPets": {
        "limit": 10,
        "tags": ["a,b", "c&d=e", "é+f"],
        "ids": [1, 2, 3],
        "words": ["one", "two"],
        "kinds": ["cat", "dog"],
        "filter": {"owner": "Ada & Co", "city": "Zürich"},
        "where": {"age": 3},
        "alive": True,
        "X-Trace": "t-1",
    },
    "createPet": {"name": "Rex", "weight": 4.5, "nickname": None, "parent": {"name": "Max"}},
    "getPet": {"petId": 7, "X-Fields": ["id", "name"], "session": "s 1;x"},
    "replacePet": {"petId": 7, "name": "Rex", "kind": "dog"},
    "deletePet": {"petId": 7},
    "hasPet": {"petId": 7},
    # One item: Prism 5 ends at two in a path. The round trip of parameters has more.
    "styledPath": {"label": "red", "matrix": "cold", "coordinates": ["a"]},
    "addVaccination": {"petId": 7, "vaccine": "R&D=1", "doses": 2, "tags": ["a", "b"]},
    "uploadPhoto": {"petId": 7, "photo": {"base64": PHOTO, "filename": "r.png"}, "caption": "é"},
    "replacePhoto": {"petId": 7, "body": {"base64": PHOTO}},
    "addNote": {"body": "a note, é"},
    "patch_owners_id": {"id": "a/b", "query_id": "c", "name": "Ada", "nickname": None},
}


@pytest.fixture(scope="module")
def kernel(prism: str) -> Any:
    config = {
        "document": str(PETSTORE),
        "base_url": prism,
        "allow_private_networks": ["127.0.0.1"],
        "auth": {
            "token": {"secret": "T"},
            "key": {"secret": "T"},
            "basic": {"user": "ada", "secret": "T"},
        },
        "validate_output": "error",
    }
    kernel = Kernel(discover=False, config={"pets": config}, secrets={"T": TOKEN})
    kernel.register(OpenApiConnector, key="pets")
    with kernel:
        yield kernel


def test_the_calls_are_all_actions(kernel: Kernel) -> None:
    """None is forgotten below."""
    assert set(CALLS) == {
        name.removeprefix("pets.") for name in kernel.operations.matching("pets.*")
    }


@pytest.mark.parametrize("name", CALLS)
def test_prism_takes_every_request(kernel: Kernel, name: str) -> None:
    """And its answer fits the document."""
    kernel.invoke(f"pets.{name}", CALLS[name])


def test_answers_are_values(kernel: Kernel) -> None:
    """JSON as JSON, text as text, nothing as None."""
    assert kernel.invoke("pets.createPet", CALLS["createPet"])["name"] == "Rex"
    assert kernel.invoke("pets.addNote", CALLS["addNote"]) == "noted"
    assert kernel.invoke("pets.deletePet", CALLS["deletePet"]) is None


def test_prism_refuses_what_does_not_fit(prism: str) -> None:
    """Else the tests above would show nothing: here the connector asks for less than the document."""
    import httpx

    for query in ("limit=0", "ids=a", "kinds=cat%7Ccow", "alive=maybe"):
        answer = httpx.get(f"{prism}/pets?{query}", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 422, query
    assert httpx.get(f"{prism}/pets").status_code == 401


def test_an_input_that_does_not_fit_is_not_sent(kernel: Kernel) -> None:
    with pytest.raises(AutomateError, match="limit: does not satisfy exclusiveMinimum 0"):
        kernel.invoke("pets.listPets", {"limit": 0})
    with pytest.raises(AutomateError, match="'nmae' is unknown"):
        kernel.invoke("pets.createPet", {"nmae": "Rex", "name": "x"})
