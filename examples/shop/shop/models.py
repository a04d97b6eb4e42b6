"""
What the shop stores.

A store is a tenant. Its key is a word, so that the same "north" stands in the rows, in the events,
on the API's tokens and in the audit trail.
"""

from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models

# What stands in addresses, /api/products/TEA: without a slash or a dot.
SKU = RegexValidator(r"^[A-Za-z0-9_-]+$", "Letters, digits, - and _ only.")
NOT_NEGATIVE = MinValueValidator(Decimal(0))


class Store(models.Model):
    """A tenant."""

    slug = models.SlugField(primary_key=True)
    name = models.CharField(max_length=100)
    currency = models.CharField(max_length=3, default="EUR")

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """Whom a user works for. What the user may do there is said by groups, as ever in Django."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE)
    store = models.ForeignKey(Store, models.CASCADE)

    def __str__(self) -> str:
        return f"{self.user} of {self.store}"


class Product(models.Model):
    """Something that is sold, and how much of it there is."""

    store = models.ForeignKey(Store, models.CASCADE)
    sku = models.CharField("SKU", max_length=20, validators=[SKU])
    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=8, decimal_places=2, validators=[NOT_NEGATIVE])
    stock = models.PositiveIntegerField(default=0)
    # Orders refer to products, so these are marked, not deleted.
    is_deleted = models.BooleanField(default=False, editable=False)

    class Meta:
        """Unique per store: across stores, "already exists" would tell what another one has."""

        constraints = [
            models.UniqueConstraint(
                fields=["store", "sku"],
                condition=models.Q(is_deleted=False),
                name="shop_product_sku",
            )
        ]

    def __str__(self) -> str:
        return self.name


class Customer(models.Model):
    """Who buys."""

    store = models.ForeignKey(Store, models.CASCADE)
    name = models.CharField(max_length=100)
    email = models.EmailField()

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    """What a customer ordered. After `shop.orders.place`, workflows change its status."""

    class Status(models.TextChoices):
        """How far it is."""

        PLACED = "placed"
        BACKORDER = "backorder"
        RESERVED = "reserved"
        PAID = "paid"
        SENT = "sent"
        FAILED = "failed"

    store = models.ForeignKey(Store, models.CASCADE)
    customer = models.ForeignKey(Customer, models.PROTECT)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PLACED)
    # What a card's number became at the payment provider. Without one the customer sends money.
    card_reference = models.CharField(max_length=50, blank=True)
    # As much as fits: the most expensive product, as often as a line and an order may have it.
    total = models.DecimalField(max_digits=14, decimal_places=2, default=Decimal(0))
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.number

    @property
    def number(self) -> str:
        """What the customer sees."""
        return f"{self.store_id}-{self.pk}"


class OrderLine(models.Model):
    """One product of an order, at the price of that day."""

    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, models.PROTECT)
    quantity = models.PositiveIntegerField()
    price = models.DecimalField(max_digits=8, decimal_places=2)

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product}"


class Invoice(models.Model):
    """The invoice of an order. There is one, however often a workflow writes it."""

    order = models.OneToOneField(Order, models.CASCADE)
    text = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"Invoice of {self.order}"
