"""The fields of the actions: ids, amounts, and what is bought, listed and changed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,255}$", description="The id, of its kind.")]
OptionalId = Annotated[
    str | None, Field(pattern=r"^[A-Za-z0-9_]{1,255}$", description="The id, of its kind.")
]
Amount = Annotated[
    int,
    Field(
        ge=1,
        le=99_999_999,
        description="The amount in the currency's smallest unit: 1050 is 10.50 euros, or 1050 yen.",
    ),
]
Currency = Annotated[
    str,
    Field(pattern=r"^[a-z]{3}$", description="The currency in three letters.", examples=["eur"]),
]
Metadata = Annotated[
    dict[str, str] | None, Field(max_length=50, description="Your own texts, by name.")
]
Description = Annotated[str | None, Field(max_length=1_000, description="Words for people.")]
Limit = Annotated[int, Field(ge=1, le=10_000, description="The most items to return.")]
Search = Annotated[
    str,
    Field(
        min_length=1,
        description="A query in Stripe's language. What is new is found after a minute.",
        examples=["email:'ada@example.com'"],
    ),
]


CatalogueId = Annotated[
    str,
    Field(
        # Products and older prices may have ids of the account's own choice.
        pattern=r"^[A-Za-z0-9_-]{1,255}$",
        description="The id, of its kind.",
    ),
]
OptionalCatalogueId = Annotated[
    str | None, Field(pattern=r"^[A-Za-z0-9_-]{1,255}$", description="The id, of its kind.")
]
OptionalCurrency = Annotated[
    str | None,
    Field(pattern=r"^[a-z]{3}$", description="The currency in three letters.", examples=["eur"]),
]
Active = Annotated[
    bool | None, Field(description="True for what is on sale, false for what is not; both without.")
]
Name = Annotated[str, Field(min_length=1, max_length=250, description="The name for customers.")]
CollectionMethod = Annotated[
    Literal["charge_automatically", "send_invoice"],
    Field(description="Take the amount from the customer's card, or send an invoice to be paid."),
]
DaysUntilDue = Annotated[
    int | None,
    Field(ge=0, le=730, description="The days until it is due. It belongs to send_invoice."),
]
Quantity = Annotated[int, Field(ge=1, le=999_999, description="How many.")]
PaymentBehavior = Annotated[
    Literal["allow_incomplete", "default_incomplete", "error_if_incomplete"] | None,
    Field(
        description="For a payment that fails or needs the customer: keep the subscription until "
        "it is paid (the first two), or fail. The second doesn't try to take it."
    ),
]
Proration = Annotated[
    Literal["create_prorations", "always_invoice", "none"] | None,
    Field(description="For a part of a period: bill it with the next invoice, at once, or never."),
]


class LineItem(BaseModel):
    """Something that is bought."""

    price: str = Field(pattern=r"^price_[A-Za-z0-9_]+$", description="The price's id.")
    quantity: int = Field(default=1, ge=1, le=999_999, description="How many.")


class SubscribedItem(BaseModel):
    """Something that is paid again and again."""

    price: CatalogueId
    quantity: Quantity = 1


class ItemChange(BaseModel):
    """A change of what a subscription is for."""

    id: str | None = Field(
        default=None,
        pattern=r"^si_[A-Za-z0-9_]{1,250}$",
        description="The id of the subscription's item. Without it an item is added, and paid too.",
    )
    price: OptionalCatalogueId = None
    quantity: int | None = Field(default=None, ge=0, le=999_999, description="How many.")
    deleted: bool = Field(default=False, description="True to remove the item.")

    @model_validator(mode="after")
    def _is_a_change(self) -> ItemChange:
        if self.id is None and (self.price is None or self.deleted):
            raise ValueError("an item without id is added, and needs a price")
        if self.id is not None and not self.deleted and (self.price, self.quantity) == (None, None):
            raise ValueError("give the item a price or a quantity, or deleted")
        return self


class Recurrence(BaseModel):
    """The time after which a price is paid again."""

    interval: Literal["day", "week", "month", "year"] = Field(description="The unit.")
    interval_count: int = Field(default=1, ge=1, le=1_095, description="How many of them.")
