"""The fields of a workflow that say when a start of it may begin: concurrency, rate, debounce."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from automate_kernel.base.durations import (
    DurationField,
    OptionalDuration,
    format_duration,
)
from automate_kernel.outbox.item import MAX_CONCURRENCY
from automate_kernel.workflows.definition.fields import DefinitionModel, refused


def _check_key(value: str) -> str:
    if "{{" not in value:
        hint = 'for example key: "{{ event.payload.customer }}"'
        raise refused("key", "the key is no template, so it would be the same for all", hint)
    return value


Key = Annotated[str, Field(min_length=1), AfterValidator(_check_key)]
"""A template on the event; starts for which it gives the same value share what it is the key of."""


class Concurrency(DefinitionModel):
    """
    The number of executions of a workflow that may go on at once, in all or per *key*.

    An execution counts from its beginning to its end, and also while it waits. ``queue`` lets a
    start wait for its place. ``skip`` begins no execution while so many have not ended.
    ``cancel_older`` cancels the oldest executions that have not ended.
    """

    limit: int = Field(default=1, ge=1, le=MAX_CONCURRENCY)
    """The number of executions that may go on at once."""
    key: Key | None = None
    """A template on the event; each of its values has the limit for itself."""
    when_full: Literal["queue", "skip", "cancel_older"] = "queue"
    """The fate of a start that finds as many going on."""


class StartRate(DefinitionModel):
    """
    The number of executions that may begin in a time, in all or per *key*; others begin later.

    After a lull up to *burst* begin at once.
    """

    limit: int = Field(ge=1, le=1_000_000)
    """The number of executions that begin *per* time."""
    per: Annotated[DurationField, Field(ge=0.001, le=366 * 86_400)] = 1.0  # type: ignore[assignment]
    burst: int | None = Field(default=None, ge=1, le=1_000_000)
    """The number that may begin at once after a lull; by default *limit*."""
    key: Key | None = None
    """A template on the event; each of its values has the rate for itself."""


class Debounce(DefinitionModel):
    """
    A wait for the last of many events: they start one execution, once it has been quiet.

    Each event of a *key* takes the place of the last. The execution begins when no event has
    come *for* so long, or *at_most* so long after the first.
    """

    for_: Annotated[DurationField, Field(gt=0)] = Field(
        validation_alias="for", serialization_alias="for"
    )
    """The time without another event after which the execution begins."""
    at_most: OptionalDuration = None  # type: ignore[assignment]
    """The longest time after the first event; None is no bound."""
    key: Key | None = None
    """A template on the event; without it all events of the workflow belong together."""

    @model_validator(mode="after")
    def _bound_fits(self) -> Debounce:
        if self.at_most is not None and self.at_most < self.for_:
            shortest, most = format_duration(self.for_), format_duration(self.at_most)
            message = f"at_most ({most}) is shorter than for ({shortest})"
            raise refused("debounce", message, f"set at_most: {shortest}, or more")
        return self


def _limited(value: Any) -> Any:
    """Return the whole form of ``concurrency: 3``."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole and not isinstance(value, (Mapping, Concurrency)) and value is not None:
        hint = "for example concurrency: 3, or concurrency: {limit: 1, when_full: skip}"
        raise refused("concurrency", "concurrency is a number or a mapping", hint)
    return {"limit": value} if whole else value


if TYPE_CHECKING:

    class ConcurrencyField:
        """A `Concurrency`, which a definition may write as a number alone."""

        def __get__(self, model: object, owner: Any = None) -> Concurrency | None: ...
        def __set__(self, model: object, value: Concurrency | int | None) -> None: ...

else:
    ConcurrencyField = Annotated[Concurrency | None, BeforeValidator(_limited)]

START_FIELDS: Mapping[str, type[DefinitionModel]] = {
    "concurrency": Concurrency,
    "rate_limit": StartRate,
    "debounce": Debounce,
}
"""The fields of a workflow that have a key, which is rendered before an execution begins."""
