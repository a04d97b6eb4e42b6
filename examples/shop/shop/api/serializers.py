"""How the shop's rows are written in JSON."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from shop import orders
from shop.models import Customer, Invoice, Order, OrderLine, Product
from shop.payments import CARDS


class ProductSerializer(serializers.ModelSerializer[Product]):
    """A product."""

    class Meta:
        """`store` is not here: who asks is of one store, and it is that one."""

        model = Product
        fields = ("sku", "name", "price", "stock")


class CustomerSerializer(serializers.ModelSerializer[Customer]):
    """A customer."""

    class Meta:
        """As above."""

        model = Customer
        fields = ("id", "name", "email")


class LineSerializer(serializers.ModelSerializer[OrderLine]):
    """A line. The view limits `product` to the store's, so another store's SKU is unknown."""

    product = serializers.SlugRelatedField("sku", queryset=Product.objects.filter(is_deleted=False))
    quantity = serializers.IntegerField(min_value=1, max_value=1000)

    class Meta:
        """The price is the product's, and not the client's to say."""

        model = OrderLine
        fields = ("product", "quantity", "price")
        read_only_fields = ("price",)


class InvoiceSerializer(serializers.ModelSerializer[Invoice]):
    """An invoice."""

    class Meta:
        """What a customer gets."""

        model = Invoice
        fields = ("id", "text", "created_at")


class OrderSerializer(serializers.ModelSerializer[Order]):
    """An order with its lines, and the invoice once there is one."""

    lines = LineSerializer(many=True, allow_empty=False, max_length=100)  # type: ignore[call-arg]
    card = serializers.ChoiceField(
        CARDS,
        source="card_reference",
        required=False,
        allow_blank=True,
        help_text="Left out: a bank transfer.",
    )
    invoice = InvoiceSerializer(read_only=True, allow_null=True)

    class Meta:
        """Workflows set the status."""

        model = Order
        fields = (
            "id", "number", "customer", "card", "lines", "status", "total", "created_at", "invoice",
        )  # fmt: skip
        read_only_fields = ("number", "status", "total", "created_at")

    def create(self, validated_data: dict[str, Any]) -> Order:
        """Take the order, as any other code of the shop does."""
        return orders.place(
            validated_data["customer"],
            validated_data["lines"],
            validated_data.get("card_reference", ""),
        )
