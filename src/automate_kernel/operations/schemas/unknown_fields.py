"""The fields that a pydantic model does not know, named with the nearest that it knows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from automate_kernel.base.errors import nearest
from automate_kernel.operations.schemas.finite import finite_schema

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

# The modes of validators that are given the data as it came, and may read any key of it.
_FIRST = ("before", "wrap", "plain")


def unknown(known: Collection[str], name: object) -> str:
    """Return the words for a field *name* that is not among *known*."""
    near = nearest(name, known, cutoff=0.5)
    listed = f"known: {', '.join(known) or 'none'}"
    return f"is unknown ({f'did you mean {near!r}?' if near else listed})"


def ignored_fields(parsed: Any, data: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """
    Yield the fields of *data* that the model *parsed* was made without, each with its problem.

    That is pydantic's default. A model that says what it does with extra fields has decided. A
    model that reads *data* in code of its own may have used them.
    """
    from pydantic import BaseModel, RootModel

    if isinstance(parsed, RootModel):
        yield from ignored_fields(parsed.root, data, place)
    elif isinstance(parsed, BaseModel) and isinstance(data, Mapping):
        model = type(parsed)
        names = {given: name for name in model.model_fields for given in _accepted(model, name)}
        for key, value in data.items():
            if key not in names and not _reads_more(model):
                yield f"{place}{key}", unknown(names, key)
            elif key in names and not _reshapes(model, names[key]):
                yield from ignored_fields(getattr(parsed, names[key]), value, f"{place}{key}.")
    elif isinstance(parsed, (list, tuple)) and isinstance(data, (list, tuple)):
        for index, (made, value) in enumerate(zip(parsed, data, strict=False)):
            yield from ignored_fields(made, value, f"{place}{index}.")
    elif isinstance(parsed, Mapping) and isinstance(data, Mapping):
        for key in data.keys() & parsed.keys():
            yield from ignored_fields(parsed[key], data[key], f"{place}{key}.")


def config_schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """
    Return the JSON Schema of a config that *model* describes, closed where `ignored_fields` are.

    Pydantic's own says ``additionalProperties: false`` of models with ``extra="forbid"`` alone.
    """
    from pydantic.json_schema import GenerateJsonSchema

    reshaped = set(_reshaped_models(model, set()))

    class ClosingSchema(GenerateJsonSchema):
        def model_schema(self, schema: Any) -> dict[str, Any]:
            found, each = super().model_schema(schema), schema["cls"]
            names = [name for field in each.model_fields for name in _accepted(each, field)]
            # A second name of a field is not among the properties.
            named = set(names) <= found.get("properties", {}).keys()
            if named and each not in reshaped and not _reads_more(each):
                found.setdefault("additionalProperties", False)
            return found

    return finite_schema(model.model_json_schema(schema_generator=ClosingSchema))


def _reshaped_models(
    model: type[BaseModel], seen: set[tuple[type[BaseModel], bool]], inside: bool = False
) -> Iterator[type[BaseModel]]:
    """Yield the models of fields whose value code of the author's may make out of another value."""
    if (model, inside) in seen:
        return
    seen.add((model, inside))
    if inside:
        yield model
    for name, field in model.model_fields.items():
        for each in _models_in(field.annotation):
            yield from _reshaped_models(each, seen, inside or _reshapes(model, name))


def fields_at(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Return the names of the fields of the models that stand at *path* in *model*."""
    models = [model]
    for part in path:
        inner = [
            each
            for owner in models
            for name, field in owner.model_fields.items()
            if part in _accepted(owner, name)
            for each in _models_in(field.annotation)
        ]
        models = inner or models  # else it is an index, a key or the tag of a union
    return [
        given for each in models for name in each.model_fields for given in _accepted(each, name)
    ]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if hasattr(annotation, "model_fields"):
        yield annotation
    for each in get_args(annotation):
        yield from _models_in(each)


def _accepted(model: type[BaseModel], name: str) -> list[str]:
    """Return the keys in which *model* takes its field *name*."""
    from pydantic import AliasChoices, AliasPath

    field: FieldInfo = model.model_fields[name]
    alias = field.validation_alias
    if alias is None:
        return [name]
    config = model.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    aliases = [str(each.path[0]) if isinstance(each, AliasPath) else each for each in choices]
    return [*aliases, name] if by_name else aliases


def _reads_more(model: type[BaseModel]) -> bool:
    validators = model.__pydantic_decorators__.model_validators.values()
    return (
        "extra" in model.model_config
        or model.__pydantic_custom_init__
        or any(each.info.mode in _FIRST for each in validators)
    )


def _reshapes(model: type[BaseModel], name: str) -> bool:
    from pydantic import BeforeValidator, PlainValidator, WrapValidator

    validators = model.__pydantic_decorators__.field_validators.values()
    return any(each.info.mode in _FIRST and name in each.info.fields for each in validators) or any(
        isinstance(each, (BeforeValidator, PlainValidator, WrapValidator))
        for each in model.model_fields[name].metadata
    )
