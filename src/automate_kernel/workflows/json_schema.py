"""The published JSON Schema of a workflow's definition."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from automate_kernel.workflows.retry_policy import RetryPolicy
from automate_kernel.workflows.triggers import trigger_types
from automate_kernel.workflows.values import Part

__all__ = ["published"]


def published(workflow: type[BaseModel]) -> dict[str, Any]:
    """The schema of *workflow*, with the fields' docstrings as descriptions."""
    schema = workflow.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    for model in _models(workflow):
        own = schema if model is workflow else definitions[model.__name__]
        for name, text in _field_docs(model).items():
            field = model.model_fields.get(name)
            if field is not None:
                own["properties"][field.validation_alias or name]["description"] = text
    for name, trigger in trigger_types().items():
        own = definitions[trigger.__name__]
        # In Python the class says it; in a definition nothing else does.
        own["required"] = ["type", *own.get("required", ())]
        own["properties"]["type"] = {"const": name, "type": "string"}
    many = schema["properties"]["trigger"]
    about = {key: many.pop(key) for key in ("title", "description") if key in many}
    schema["properties"]["trigger"] = {**about, "anyOf": [many["items"], many]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _models(workflow: type[BaseModel]) -> Iterator[type[BaseModel]]:
    from automate_kernel.workflows.model import Step

    yield from (workflow, Step, RetryPolicy)
    yield from trigger_types().values()


def _field_docs(model: type[BaseModel]) -> dict[str, str]:
    """
    The docstring under each field.

    pydantic would collect them as well, but when the class is made: that costs every import of
    the model half again as much, for what only this schema shows.
    """
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, Part) or base is Part:
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except OSError:  # no source is installed
            continue
        body = getattr(tree.body[0], "body", [])
        for statement, following in pairwise(body):
            name = getattr(getattr(statement, "target", None), "id", None)
            text = getattr(getattr(following, "value", None), "value", None)
            if isinstance(following, ast.Expr) and isinstance(text, str) and name:
                docs[name] = inspect.cleandoc(text).replace("``", "`")
    return docs
