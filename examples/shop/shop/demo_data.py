"""Two stores, their people, and something to sell. Loading it again changes nothing."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, Permission, User
from django.db import transaction
from django.utils import timezone

from automate_django.models import ApiToken
from shop import orders
from shop.models import Customer, Membership, Product, Store
from shop.payments import DECLINED, FLAKY, GOOD

# For everybody, and for everybody to read: the demo listens on 127.0.0.1 alone.
PASSWORD = "demo"  # noqa: S105

# user: (group, store, what for)
PEOPLE: dict[str, tuple[str | None, str | None, str]] = {
    "admin": (None, None, "superuser, all stores"),
    "olga": ("operator", None, "operates the automation of all stores, sees no orders"),
    "nora": ("manager", "north", "manager of north"),
    "nils": ("clerk", "north", "clerk of north: sees everything, changes customers"),
    "sofia": ("manager", "south", "manager of south"),
}
LOOK = [
    "shop.view_store", "shop.view_product", "shop.view_customer", "shop.view_order",
    "shop.view_orderline", "shop.view_invoice",
    "automate_django.view_workflowexecution",
]  # fmt: skip
ROLES = {
    "clerk": [*LOOK, "shop.add_customer", "shop.change_customer", "shop.add_order"],
    "manager": [
        *LOOK, "shop.add_customer", "shop.change_customer", "shop.delete_customer",
        "shop.add_order", "shop.add_product", "shop.change_product", "shop.delete_product",
        "automate_django.change_workflowexecution", "automate_django.add_workflowexecution",
        "automate_django.view_workflowdocument",
        "automate_django.add_workflowdocument", "automate_django.change_workflowdocument",
        "automate_django.view_outboxitem", "automate_django.change_outboxitem",
        "automate_django.view_auditentry",
    ],
    "operator": [
        "automate_django.operate_outbox", "automate_django.view_outboxitem",
        "automate_django.change_outboxitem", "automate_django.delete_outboxitem",
        "automate_django.view_workflowexecution", "automate_django.change_workflowexecution",
        "automate_django.view_auditentry",
    ],
}  # fmt: skip

STORES = {
    "north": ("Nordic Tea", "EUR", ["Ada Aalto", "Bo Berg"]),
    "south": ("Southern Spice", "USD", ["Cora Cruz", "Dan Diaz"]),
}
PRODUCTS = {
    "north": [("TEA", "Black tea", "4.50", 500), ("POT", "Tea pot", "24.00", 40)],
    "south": [("CUMIN", "Cumin", "3.20", 500), ("SAFFRON", "Saffron", "89.00", 2)],
}
TOKEN_SCOPES = ["api:*", "events:write", "executions:read", "workflows:read"]
TOKEN_DAYS = 1


@transaction.atomic
def load() -> None:
    """Make what is not there."""
    if Store.objects.exists():
        return
    for slug, (title, currency, customers) in STORES.items():
        store = Store.objects.create(slug=slug, name=title, currency=currency)
        for sku, name, price, stock in PRODUCTS[slug]:
            Product.objects.create(
                store=store, sku=sku, name=name, price=Decimal(price), stock=stock
            )
        for name in customers:
            email = f"{name.split()[0].lower()}@example.com"
            Customer.objects.create(store=store, name=name, email=email)
    _load_people()
    _load_orders()


def _load_people() -> None:
    for title, permissions in ROLES.items():
        group = Group.objects.create(name=title)
        for permission in permissions:
            app, _, codename = permission.partition(".")
            group.permissions.add(
                Permission.objects.get(content_type__app_label=app, codename=codename)
            )
    password = make_password(PASSWORD)  # slow on purpose, so once for all
    for name, (role, works_for, _) in PEOPLE.items():
        user = User.objects.create(
            username=name, password=password, is_staff=True, is_superuser=name == "admin"
        )
        if role:
            user.groups.add(Group.objects.get(name=role))
        if works_for:
            Membership.objects.create(user=user, store_id=works_for)


def _load_orders() -> None:
    """One of each kind. The worker goes through them as soon as it starts."""
    north, south = (Customer.objects.filter(store=slug).order_by("pk") for slug in STORES)
    tea, saffron = (Product.objects.get(sku=sku) for sku in ("TEA", "SAFFRON"))
    orders.place(north[0], [{"product": tea, "quantity": 2}], GOOD)
    orders.place(north[1], [{"product": tea, "quantity": 1}], FLAKY)
    orders.place(north[0], [{"product": tea, "quantity": 9}], DECLINED)
    orders.place(north[1], [{"product": tea, "quantity": 5}])  # by bank transfer
    orders.place(south[0], [{"product": saffron, "quantity": 3}], GOOD)  # more than there is


def issue_token(store: str) -> str:
    """A new token for a program of *store*: the text of an old one is stored nowhere."""
    ApiToken.objects.filter(name="demo", expires_at__lt=timezone.now()).delete()
    text: str
    _, text = ApiToken.objects.issue(
        "demo",
        tenant_id=store,
        scopes=TOKEN_SCOPES,
        expires_at=timezone.now() + timedelta(days=TOKEN_DAYS),
    )
    return text
