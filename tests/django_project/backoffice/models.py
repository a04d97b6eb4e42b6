"""What the tests of the admin bases manage: the rows of several tenants."""

from __future__ import annotations

from uuid import uuid4

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q


class Tenant(models.Model):
    """A customer of the project."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Employment(models.Model):
    """For which tenant a user works."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, related_name="employment")
    tenant = models.ForeignKey(Tenant, models.CASCADE)


class Category(models.Model):
    """Something that rows of the same tenant point to."""

    tenant = models.ForeignKey(Tenant, models.CASCADE)
    name = models.CharField(max_length=100)
    slug = models.SlugField(unique=True, null=True, blank=True)

    def __str__(self) -> str:
        return self.name


class Label(models.Model):
    """Something that rows of the same tenant have several of."""

    tenant = models.ForeignKey(Tenant, models.CASCADE)
    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Project(models.Model):
    """The main thing, with a secret in it."""

    STATUS = [("open", "Open"), ("closed", "Closed")]

    tenant = models.ForeignKey(Tenant, models.CASCADE)
    name = models.CharField(max_length=100)
    status = models.CharField(max_length=10, choices=STATUS, default="open")
    category = models.ForeignKey(Category, models.SET_NULL, null=True, blank=True)
    parent = models.ForeignKey("self", models.CASCADE, null=True, blank=True)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="owned_projects",
    )
    labels = models.ManyToManyField(Label, blank=True)
    api_key = models.CharField(max_length=100, blank=True)
    margin = models.IntegerField(default=0)
    is_active = models.BooleanField(default=True)
    is_locked = models.BooleanField(default=False)
    config = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        unique_together = [("tenant", "name")]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return f"/projects/{self.name}/"


class Task(models.Model):
    """A row inside a project, which has its tenant by way of it."""

    project = models.ForeignKey(Project, models.CASCADE)
    title = models.CharField(max_length=100)
    category = models.ForeignKey(Category, models.SET_NULL, null=True, blank=True)

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return f"/tasks/{self.title}/"


class Contract(models.Model):
    """A row for which its project must stay."""

    tenant = models.ForeignKey(Tenant, models.CASCADE)
    project = models.ForeignKey(Project, models.PROTECT)
    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Account(models.Model):
    """A row whose key is typed in."""

    code = models.CharField(max_length=20, primary_key=True)
    tenant = models.ForeignKey(Tenant, models.CASCADE)
    title = models.CharField(max_length=100, blank=True)

    def __str__(self) -> str:
        return self.code


class Product(models.Model):
    """What is imported by the thousand."""

    tenant_id = models.IntegerField()
    sku = models.CharField(max_length=40)
    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    available_from = models.DateTimeField(null=True, blank=True)
    active = models.BooleanField(default=True)
    category = models.ForeignKey(Category, models.SET_NULL, null=True, blank=True)
    webhook_secret = models.CharField(max_length=100, blank=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant_id", "sku"], name="backoffice_sku"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if self.name == "forbidden":
            raise ValidationError({"name": "This name is not sold."})


class Document(models.Model):
    """A row that is marked as deleted."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE)
    title = models.CharField(max_length=100)
    is_deleted = models.BooleanField(default=False)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "title"],
                condition=Q(is_deleted=False),
                name="backoffice_title_alive",
            ),
        ]

    def __str__(self) -> str:
        return self.title


class Page(models.Model):
    """What goes along with a document."""

    document = models.ForeignKey(Document, models.CASCADE, related_name="pages")
    text = models.CharField(max_length=100)
    deleted_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.text
