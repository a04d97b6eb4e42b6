"""The connector ``stripe``: payments, customers, invoices, subscriptions, and webhooks."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field

from automate_http import Cursor, ServiceClient
from automate_http.failures import forbid_repeat
from automate_http.headers import call_key, key_as_header
from automate_http.pages import Page, Pages, field_of
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.plugins.connectors import Connector, ConnectorContext, TriggerSpec, action
from automate_kernel.triggers.webhooks import Ignored, StripeSignature
from automate_kernel.triggers.webhooks.signatures import read_field
from automate_stripe.config import StripeConfig
from automate_stripe.events import OBJECTS, StripeEvent, ThinEvent
from automate_stripe.fields import (
    Active,
    Amount,
    CatalogueId,
    CollectionMethod,
    Currency,
    DaysUntilDue,
    Description,
    Id,
    ItemChange,
    Limit,
    LineItem,
    Metadata,
    Name,
    OptionalCatalogueId,
    OptionalCurrency,
    OptionalId,
    PaymentBehavior,
    Proration,
    Recurrence,
    Search,
    SubscribedItem,
)
from automate_stripe.form import form_of
from automate_stripe.key import KeyAuth
from automate_stripe.objects import (
    CheckoutSession,
    Customer,
    Invoice,
    InvoiceItem,
    PaymentIntent,
    Price,
    Product,
    Refund,
    StripeObject,
    Subscription,
)

T = TypeVar("T", bound=StripeObject)

_ANY, _THIN = "events", "thin_events"
_BAD_REQUEST, _PAYMENT_REQUIRED, _FORBIDDEN, _NOT_FOUND = 400, 402, 403, 404
_PAGE = 100
_URL = r"^https?://"


class _AfterLast(Pages):
    """The next page begins after the last item's id."""

    def following(self, page: Page) -> dict[str, str] | None:
        if not page.content.get("has_more"):
            return None
        items = self.items_of(page.content)
        last = field_of(items[-1], "id") if items else None
        if not isinstance(last, str):
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                "Stripe's page says that more follows, and its last item has no id",
            )
        return {"starting_after": last}


class StripeConnector(Connector):
    """
    Payments, refunds, customers, products, prices, invoices, checkout pages and subscriptions.

    Each request that changes something has an ``Idempotency-Key`` of its step: tried again, it is
    done once. Stripe keeps a key for a day at least.
    """

    key = "stripe"
    display_name = "Stripe"

    def __init__(
        self, config: dict[str, Any] | None = None, *, ctx: ConnectorContext | None = None
    ) -> None:
        super().__init__(config, ctx=ctx)
        settings: StripeConfig = self.parse_config(config)
        self._settings = settings
        headers = {"stripe-version": settings.api_version, "stripe-account": settings.account}
        self.client = ServiceClient(
            settings.base_url,
            ctx=self.ctx,
            auth=KeyAuth(settings.api_key_secret, livemode=settings.livemode),
            headers={name: value for name, value in headers.items() if value is not None},
            allow_private_networks=settings.allow_private_networks,
            allow_plain_http=settings.allow_plain_http,
            ca_file=settings.ca_file,
            timeout_seconds=settings.timeout_seconds,
            max_response_bytes=settings.max_response_bytes,
        )

    @classmethod
    def config_schema(cls) -> type[StripeConfig]:
        """Return the model of the config: keys, the mode, webhooks, bounds."""
        return StripeConfig

    async def check(self) -> str:
        """Ask for one customer. A restricted key that may not see it is a good one too."""
        mode = "live" if self._settings.livemode else "test"
        try:
            await self.client.aget("/v1/customers", query={"limit": 1})
        except AutomateError as error:
            if error.details.get("status") != _FORBIDDEN:
                raise
            return f"the {mode} key is valid; it may not list customers"
        return f"the {mode} key is valid"

    def close(self) -> None:
        """Close the connections. The next call opens new connections."""
        self.client.close()

    def normalize_error(self, exc: Exception) -> Exception:
        """Say that a card which was declined stays so: the same request has the same answer."""
        if isinstance(exc, AutomateError) and exc.details.get("status") == _PAYMENT_REQUIRED:
            exc.code, exc.retryable = ErrorCodes.FAILED_PRECONDITION, False
            exc.hint = exc.hint or "ask the customer for another way to pay"
        return super().normalize_error(exc)

    # -- webhooks ----------------------------------------------------------------------------

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        """Return a trigger for each usual event, one for all at one address, and thin events."""
        signature = StripeSignature()
        return [
            TriggerSpec(
                name,
                payload_schema=model,
                description=description,
                signature=signature,
                events=name if name in OBJECTS else None,
                replay_guard="required",
            )
            for name, (model, description) in _payloads().items()
        ]

    def signature_for(self, trigger: str) -> StripeSignature:
        """Return Stripe's scheme with the secrets and the tolerance of the config."""
        return StripeSignature(
            self._settings.webhook_secrets, tolerance_seconds=self._settings.tolerance_seconds
        )

    def route_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> str:
        """Return the trigger of the event in a request to ``events``, if it has its own."""
        if trigger != _ANY:
            return trigger
        if read_field(raw_body, "object") == "v2.core.event":
            return _THIN
        name = read_field(raw_body, "type")
        return name if name in OBJECTS else trigger

    def parse_webhook(self, trigger: str, headers: Any, raw_body: bytes) -> Any:
        """
        Return the event, if it is one of the mode that the config says.

        A live event is refused where test events are expected: Stripe sends it again, and shows
        that it failed. A test event starts nothing where money is real; platforms get both.
        """
        payload = super().parse_webhook(trigger, headers, raw_body)
        if payload["livemode"] is self._settings.livemode:
            return payload
        if self._settings.livemode:
            return Ignored("a test event, and livemode is on")
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            "a live event came, and the config of 'stripe' says otherwise",
            hint="set livemode in the connector's config if real money is meant",
        )

    # -- payments ----------------------------------------------------------------------------

    @action(idempotent=True, destructive=True, title="Create a payment intent")
    async def create_payment_intent(
        self,
        amount: Amount,
        currency: Currency,
        customer: OptionalId = None,
        payment_method: OptionalId = None,
        confirm: Annotated[bool, Field(description="True to take the money now.")] = False,
        off_session: Annotated[
            bool, Field(description="True if the customer isn't there to confirm it.")
        ] = False,
        description: Description = None,
        metadata: Metadata = None,
    ) -> PaymentIntent:
        """Create a payment intent; with *confirm* the amount is taken."""
        values: dict[str, Any] = {
            "amount": amount, "currency": currency, "customer": customer,
            "payment_method": payment_method, "description": description, "metadata": metadata,
        }  # fmt: skip
        if confirm:
            values |= {"confirm": True, **({"off_session": True} if off_session else {})}
        return await self._sent("POST", "/v1/payment_intents", values, PaymentIntent)

    @action(read_only=True, title="Get a payment intent")
    async def get_payment_intent(self, payment_intent: Id) -> PaymentIntent:
        """Get a payment intent."""
        return await self._got("/v1/payment_intents/{id}", payment_intent, PaymentIntent)

    @action(idempotent=True, destructive=True, title="Refund a payment")
    async def create_refund(
        self,
        payment_intent: OptionalId = None,
        charge: OptionalId = None,
        amount: Annotated[
            int | None, Field(ge=1, description="The part to give back; all without it.")
        ] = None,
        reason: Annotated[
            Literal["duplicate", "fraudulent", "requested_by_customer"] | None,
            Field(description="The reason."),
        ] = None,
        metadata: Metadata = None,
    ) -> Refund:
        """Give back a payment, by its payment intent or its charge, or a part of it."""
        if (payment_intent is None) == (charge is None):
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT, "give payment_intent or charge, and not both"
            )
        values = {
            "payment_intent": payment_intent, "charge": charge, "amount": amount,
            "reason": reason, "metadata": metadata,
        }  # fmt: skip
        return await self._sent("POST", "/v1/refunds", values, Refund)

    @action(idempotent=True, title="Create a checkout page")
    async def create_checkout_session(
        self,
        line_items: Annotated[
            list[LineItem], Field(min_length=1, max_length=100, description="What is bought.")
        ],
        success_url: Annotated[str, Field(pattern=_URL, description="The page after paying.")],
        cancel_url: Annotated[
            str | None, Field(pattern=_URL, description="The page for who goes back.")
        ] = None,
        mode: Annotated[
            Literal["payment", "subscription"], Field(description="Once, or again and again.")
        ] = "payment",
        customer: OptionalId = None,
        client_reference_id: Annotated[
            str | None, Field(max_length=200, description="Your own id of what is paid.")
        ] = None,
        metadata: Metadata = None,
    ) -> CheckoutSession:
        """Create a page on which a customer pays; its address is *url* in the answer."""
        values = {
            "line_items": [each.model_dump() for each in line_items], "mode": mode,
            "success_url": success_url, "cancel_url": cancel_url, "customer": customer,
            "client_reference_id": client_reference_id, "metadata": metadata,
        }  # fmt: skip
        return await self._sent("POST", "/v1/checkout/sessions", values, CheckoutSession)

    @action(read_only=True, title="Get a checkout page")
    async def get_checkout_session(self, session: Id) -> CheckoutSession:
        """Get a checkout page, and see whether it was paid."""
        return await self._got("/v1/checkout/sessions/{id}", session, CheckoutSession)

    # -- products and prices -----------------------------------------------------------------

    @action(idempotent=True, title="Create a product")
    async def create_product(
        self,
        name: Name,
        description: Description = None,
        active: Annotated[bool, Field(description="True if it is on sale.")] = True,
        metadata: Metadata = None,
    ) -> Product:
        """Create a product. A price says what it costs: see *create_price*."""
        values = {"name": name, "description": description, "active": active, "metadata": metadata}
        return await self._sent("POST", "/v1/products", values, Product)

    @action(read_only=True, title="Get a product")
    async def get_product(self, product: CatalogueId) -> Product:
        """Get a product."""
        return await self._got("/v1/products/{id}", product, Product)

    @action(read_only=True, title="List products")
    async def list_products(self, active: Active = None, limit: Limit = 100) -> list[Product]:
        """List products, the newest first."""
        return await self._listed("/v1/products", {"active": active}, Product, limit)

    @action(idempotent=True, title="Create a price")
    async def create_price(
        self,
        product: CatalogueId,
        unit_amount: Annotated[
            int,
            Field(
                ge=0,
                le=99_999_999,
                description="The amount for each, in the currency's smallest unit; 0 if it's free.",
            ),
        ],
        currency: Currency,
        recurring: Annotated[
            Recurrence | None, Field(description="How often it is paid; once without it.")
        ] = None,
        nickname: Annotated[
            str | None, Field(max_length=1_000, description="Words that customers don't see.")
        ] = None,
        lookup_key: Annotated[
            str | None, Field(max_length=200, description="A name of your own to find it by.")
        ] = None,
        metadata: Metadata = None,
    ) -> Price:
        """Create a price of a product. Its amount can't be changed: for another, create another."""
        values = {
            "product": product, "unit_amount": unit_amount, "currency": currency,
            "recurring": recurring and recurring.model_dump(), "nickname": nickname,
            "lookup_key": lookup_key, "metadata": metadata,
        }  # fmt: skip
        return await self._sent("POST", "/v1/prices", values, Price)

    @action(read_only=True, title="Get a price")
    async def get_price(self, price: CatalogueId) -> Price:
        """Get a price."""
        return await self._got("/v1/prices/{id}", price, Price)

    @action(read_only=True, title="List prices")
    async def list_prices(
        self,
        product: OptionalCatalogueId = None,
        active: Active = None,
        lookup_key: Annotated[
            str | None, Field(min_length=1, max_length=200, description="The name of your own.")
        ] = None,
        currency: OptionalCurrency = None,
        limit: Limit = 100,
    ) -> list[Price]:
        """List prices, the newest first."""
        query = {
            "product": product, "active": active, "lookup_keys[0]": lookup_key,
            "currency": currency,
        }  # fmt: skip
        return await self._listed("/v1/prices", query, Price, limit)

    # -- customers and invoices --------------------------------------------------------------

    @action(idempotent=True, title="Create a customer")
    async def create_customer(
        self,
        email: Annotated[str | None, Field(max_length=512, description="The address.")] = None,
        name: Annotated[str | None, Field(max_length=256, description="The name.")] = None,
        description: Description = None,
        metadata: Metadata = None,
    ) -> Customer:
        """Create a customer."""
        values = {"email": email, "name": name, "description": description, "metadata": metadata}
        return await self._sent("POST", "/v1/customers", values, Customer)

    @action(read_only=True, title="Get a customer")
    async def get_customer(self, customer: Id) -> Customer:
        """Get a customer."""
        return await self._got("/v1/customers/{id}", customer, Customer)

    @action(read_only=True, title="List customers")
    async def list_customers(
        self,
        email: Annotated[str | None, Field(description="The address, as it is written.")] = None,
        limit: Limit = 100,
    ) -> list[Customer]:
        """List customers, the newest first."""
        return await self._listed("/v1/customers", {"email": email}, Customer, limit)

    @action(read_only=True, title="Search customers")
    async def search_customers(self, query: Search, limit: Limit = 100) -> list[Customer]:
        """Search customers."""
        return await self._listed(
            "/v1/customers/search", {"query": query}, Customer, limit, searched=True
        )

    @action(read_only=True, title="Get an invoice")
    async def get_invoice(self, invoice: Id) -> Invoice:
        """Get an invoice."""
        return await self._got("/v1/invoices/{id}", invoice, Invoice)

    @action(read_only=True, title="List invoices")
    async def list_invoices(
        self,
        customer: OptionalId = None,
        status: Annotated[
            Literal["draft", "open", "paid", "uncollectible", "void"] | None,
            Field(description="The status."),
        ] = None,
        limit: Limit = 100,
    ) -> list[Invoice]:
        """List invoices, the newest first."""
        query = {"customer": customer, "status": status}
        return await self._listed("/v1/invoices", query, Invoice, limit)

    @action(read_only=True, title="Search invoices")
    async def search_invoices(self, query: Search, limit: Limit = 100) -> list[Invoice]:
        """Search invoices."""
        return await self._listed(
            "/v1/invoices/search", {"query": query}, Invoice, limit, searched=True
        )

    @action(idempotent=True, title="Create an invoice")
    async def create_invoice(
        self,
        customer: Id,
        collection_method: CollectionMethod = "charge_automatically",
        days_until_due: DaysUntilDue = None,
        include_pending_items: Annotated[
            bool, Field(description="True to bill the customer's open items with it.")
        ] = False,
        currency: OptionalCurrency = None,
        description: Description = None,
        metadata: Metadata = None,
    ) -> Invoice:
        """
        Create a draft of an invoice, which asks for nothing yet.

        Add its items, then finalize it, and pay or send it.
        """
        _check_due(collection_method, days_until_due)
        values = {
            # Each is said: their defaults depend on the account's version of the API.
            "customer": customer, "auto_advance": False, "collection_method": collection_method,
            "pending_invoice_items_behavior": "include" if include_pending_items else "exclude",
            "days_until_due": days_until_due, "currency": currency, "description": description,
            "metadata": metadata,
        }  # fmt: skip
        return await self._sent("POST", "/v1/invoices", values, Invoice)

    @action(idempotent=True, destructive=True, title="Add an item to an invoice")
    async def add_invoice_item(
        self,
        invoice: Id,
        customer: Id,
        amount: Annotated[
            int | None,
            Field(
                ge=-99_999_999,
                le=99_999_999,
                description="The amount in the currency's smallest unit; below zero it is taken "
                "off the invoice.",
            ),
        ] = None,
        currency: OptionalCurrency = None,
        price: OptionalCatalogueId = None,
        quantity: Annotated[
            int | None, Field(ge=1, le=999_999, description="How many, of a price.")
        ] = None,
        description: Description = None,
        metadata: Metadata = None,
    ) -> InvoiceItem:
        """
        Add an item to the draft of an invoice: an amount with its currency, or a price.

        A price needs version 2025-03-31 of the API, or a later.
        """
        if (price is None) == (amount is None) or (amount is None) != (currency is None):
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT, "give amount and currency, or price, and not both"
            )
        if quantity is not None and price is None:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                "quantity is that of a price",
                hint="give the amount of all as amount",
            )
        values = {
            "invoice": invoice, "customer": customer, "amount": amount, "currency": currency,
            "pricing": price and {"price": price}, "quantity": quantity,
            "description": description, "metadata": metadata,
        }  # fmt: skip
        return await self._sent("POST", "/v1/invoiceitems", values, InvoiceItem)

    @action(idempotent=True, destructive=True, title="Finalize an invoice")
    async def finalize_invoice(
        self,
        invoice: Id,
        auto_advance: Annotated[
            bool, Field(description="True to let Stripe take the amount, or send the invoice.")
        ] = False,
    ) -> Invoice:
        """
        Finalize a draft: it has a number then, and can't be changed.

        An invoice that is open or paid already is a success.
        """
        values = {"auto_advance": auto_advance}
        return await self._moved(invoice, "finalize", values, ("open", "paid"))

    @action(idempotent=True, destructive=True, title="Send an invoice")
    async def send_invoice(self, invoice: Id) -> Invoice:
        """Send an invoice to its customer by mail, to be paid. In test mode nothing is mailed."""
        return await self._moved(invoice, "send", {}, ())

    @action(idempotent=True, destructive=True, title="Pay an invoice")
    async def pay_invoice(
        self,
        invoice: Id,
        payment_method: OptionalId = None,
        paid_out_of_band: Annotated[
            bool, Field(description="True if it was paid elsewhere, and nothing is to be taken.")
        ] = False,
    ) -> Invoice:
        """
        Take the amount of an invoice now.

        An invoice that is paid already is a success, and nothing is taken; not so where
        *paid_out_of_band* says that it was paid elsewhere too.
        """
        values = {
            "payment_method": payment_method, "paid_out_of_band": paid_out_of_band or None,
        }  # fmt: skip
        return await self._moved(invoice, "pay", values, () if paid_out_of_band else ("paid",))

    @action(idempotent=True, destructive=True, title="Void an invoice")
    async def void_invoice(self, invoice: Id) -> Invoice:
        """
        Void an invoice that is open: nobody is to pay it.

        An invoice that is void already is a success. To give back what was paid, refund it.
        """
        return await self._moved(invoice, "void", {}, ("void",))

    # -- subscriptions -----------------------------------------------------------------------

    @action(idempotent=True, destructive=True, title="Create a subscription")
    async def create_subscription(
        self,
        customer: Id,
        items: Annotated[
            list[SubscribedItem], Field(min_length=1, max_length=20, description="What is paid.")
        ],
        collection_method: CollectionMethod = "charge_automatically",
        days_until_due: DaysUntilDue = None,
        default_payment_method: OptionalId = None,
        payment_behavior: PaymentBehavior = None,
        trial_period_days: Annotated[
            int | None, Field(ge=1, le=730, description="The days before the first payment.")
        ] = None,
        description: Description = None,
        metadata: Metadata = None,
    ) -> Subscription:
        """Create a subscription; without a trial the first period is taken at once."""
        _check_due(collection_method, days_until_due)
        values = {
            "customer": customer, "items": [each.model_dump() for each in items],
            "collection_method": collection_method, "days_until_due": days_until_due,
            "default_payment_method": default_payment_method,
            "payment_behavior": payment_behavior, "trial_period_days": trial_period_days,
            "description": description, "metadata": metadata,
        }  # fmt: skip
        return await self._sent("POST", "/v1/subscriptions", values, Subscription)

    @action(read_only=True, title="List subscriptions")
    async def list_subscriptions(
        self,
        customer: OptionalId = None,
        price: OptionalCatalogueId = None,
        status: Annotated[
            Literal[
                "active", "all", "canceled", "ended", "incomplete", "incomplete_expired",
                "past_due", "paused", "trialing", "unpaid",
            ]
            | None,
            Field(description="The status; all but those that are cancelled without it."),
        ] = None,
        limit: Limit = 100,
    ) -> list[Subscription]:  # fmt: skip
        """List subscriptions, the newest first."""
        query = {"customer": customer, "price": price, "status": status}
        return await self._listed("/v1/subscriptions", query, Subscription, limit)

    @action(idempotent=True, destructive=True, title="Update a subscription")
    async def update_subscription(
        self,
        subscription: Id,
        items: Annotated[
            list[ItemChange] | None,
            Field(min_length=1, max_length=20, description="The items that change."),
        ] = None,
        proration_behavior: Proration = None,
        cancel_at_period_end: Annotated[
            bool | None,
            Field(description="True to end it with the paid period, false to let it go on."),
        ] = None,
        default_payment_method: OptionalId = None,
        description: Description = None,
        metadata: Metadata = None,
    ) -> Subscription:
        """
        Change a subscription: its prices and quantities, its payment method, or its end.

        An item that changes is given with its id, as *items* of the subscription has it.
        """
        values = {
            "items": [_change(each) for each in items] if items else None,
            "cancel_at_period_end": cancel_at_period_end,
            "default_payment_method": default_payment_method, "description": description,
            "metadata": metadata,
        }  # fmt: skip
        if all(value is None for value in values.values()):
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                "nothing is to change",
                hint="give items, cancel_at_period_end or another field",
            )
        values["proration_behavior"] = proration_behavior
        return await self._sent(
            "POST", "/v1/subscriptions/{id}", values, Subscription, id=subscription
        )

    @action(read_only=True, title="Get a subscription")
    async def get_subscription(self, subscription: Id) -> Subscription:
        """Get a subscription."""
        return await self._got("/v1/subscriptions/{id}", subscription, Subscription)

    @action(idempotent=True, destructive=True, title="Cancel a subscription")
    async def cancel_subscription(
        self,
        subscription: Id,
        at_period_end: Annotated[
            bool, Field(description="True to let the paid period end first.")
        ] = True,
    ) -> Subscription:
        """
        Cancel a subscription, with the period that is paid or at once.

        One that has ended already is a success.
        """
        method, values = (
            ("POST", {"cancel_at_period_end": True}) if at_period_end else ("DELETE", {})
        )
        try:
            return await self._sent(
                method, "/v1/subscriptions/{id}", values, Subscription, id=subscription
            )
        except AutomateError as error:
            # Stripe doesn't change what has ended, doesn't find it to delete it, and takes no
            # idempotency keys with DELETE.
            if error.details.get("status") not in (_BAD_REQUEST, _NOT_FOUND):
                raise
            found = await self.get_subscription(subscription)
            if found.status != "canceled":
                raise
            return found

    # -- requests ----------------------------------------------------------------------------

    async def _moved(
        self, invoice: str, step: str, values: dict[str, Any], reached: tuple[str, ...]
    ) -> Invoice:
        """Move an invoice on. Refused, it is a success if its status is among those *reached*."""
        try:
            return await self._sent(
                "POST", f"/v1/invoices/{{id}}/{step}", values, Invoice, id=invoice
            )
        except AutomateError as error:
            # Stripe refuses what was done already, once it has forgotten the key.
            if error.details.get("status") != _BAD_REQUEST or not reached:
                raise
            found = await self.get_invoice(invoice)
            if found.status not in reached:
                raise
            return found

    async def _got(self, path: str, which: str, returns: type[T]) -> T:
        return await self.client.aget(path, id=which, returns=returns)

    async def _listed(
        self,
        path: str,
        query: Mapping[str, str | bool | None],
        returns: type[T],
        limit: int,
        *,
        searched: bool = False,
    ) -> list[T]:
        pages = Cursor("next_page", "page", items="data") if searched else _AfterLast("data")
        given = {name: value for name, value in query.items() if value is not None}
        found = self.client.aitems(
            path,
            pages=pages,
            query={**given, "limit": min(limit, _PAGE)},
            returns=returns,
            max_items=limit,
        )
        return [each async for each in found]

    async def _sent(
        self, method: str, path: str, values: dict[str, Any], returns: type[T], **parts: Any
    ) -> T:
        """Send a request that changes something, which is tried again only with a key."""
        key, headers = call_key(method), None
        if key is not None:
            # Not of the values: under other ones Stripe refuses a key, and would take money anew
            # under another.
            headers = {"Idempotency-Key": key_as_header(f"{key}\n{method} {path}")}
        try:
            return await self.client.arequest(
                method, path, form=form_of(values) or None, returns=returns, headers=headers,
                **parts,
            )  # fmt: skip
        except AutomateError as error:
            if key is None:
                forbid_repeat(
                    error,
                    "it is unknown whether Stripe has done it: look there, or call it with an "
                    "idempotency key, as a workflow's step does",
                )
            raise


def _check_due(collection_method: str, days_until_due: int | None) -> None:
    if (collection_method == "send_invoice") != (days_until_due is not None):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            "days_until_due and collection_method 'send_invoice' belong together",
            hint="give both, or neither",
        )


def _change(item: ItemChange) -> dict[str, Any]:
    """Return the fields of a change. *deleted* is not sent where nothing is removed."""
    return {**item.model_dump(), "deleted": item.deleted or None}


@functools.cache
def _payloads() -> dict[str, tuple[type[BaseModel], str]]:
    """
    Return the model and the description of each trigger's payload.

    They are kept: pydantic rebuilds a generic model once nobody holds it, in some milliseconds.
    """
    payloads: dict[str, tuple[type[BaseModel], str]] = {
        name: (StripeEvent[kind], f"An event {name}.")  # type: ignore[valid-type]
        for name, kind in OBJECTS.items()
    }
    payloads[_ANY] = (
        StripeEvent[dict[str, Any]],
        "All events at one address. Those with a trigger of their own start that one.",
    )
    payloads[_THIN] = (ThinEvent, "Events of the API's second version, without their object.")
    return payloads
