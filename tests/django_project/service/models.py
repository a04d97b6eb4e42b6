"""What the tests of the API bases serve: projects of organizations."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.db import models
from django.db.models.functions import Lower


def _check(condition: models.Q) -> dict[str, models.Q]:
    """What a check is called changed with Django 5.1."""
    return {"condition" if django.VERSION >= (5, 1) else "check": condition}


class Organization(models.Model):
    """A tenant."""

    name = models.CharField(max_length=50, unique=True)

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """Whom a user works for."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE)
    organization = models.ForeignKey(Organization, models.CASCADE, null=True)


class Country(models.Model):
    """Everybody's."""

    name = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.name


class Tag(models.Model):
    """A word of one organization."""

    organization = models.ForeignKey(Organization, models.CASCADE)
    name = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.name


class Project(models.Model):
    """A project of one organization."""

    organization = models.ForeignKey(Organization, models.CASCADE)
    name = models.CharField(max_length=50)
    parent = models.ForeignKey("self", models.CASCADE, null=True, blank=True)
    country = models.ForeignKey(Country, models.CASCADE, null=True, blank=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, null=True, blank=True)
    tags = models.ManyToManyField(Tag, blank=True)
    rank = models.IntegerField(default=0)

    class Meta:
        unique_together = [("organization", "name")]

    def __str__(self) -> str:
        return self.name


class Task(models.Model):
    """It belongs to whom its project belongs to."""

    project = models.ForeignKey(Project, models.CASCADE, null=True, blank=True)
    title = models.CharField(max_length=50)


class Note(models.Model):
    """A row with a plain tenant id."""

    tenant_id = models.CharField(max_length=50)
    text = models.CharField(max_length=200)


class Article(models.Model):
    """Something with values that are unique per organization, which the API never shows."""

    organization = models.ForeignKey(Organization, models.CASCADE)
    code = models.CharField(max_length=20)
    title = models.CharField(max_length=50)
    shelf = models.CharField(max_length=10, default="A")
    place = models.IntegerField(null=True, blank=True)
    price = models.IntegerField(default=1)
    tag = models.ForeignKey(Tag, models.PROTECT, null=True, blank=True)
    extra = models.JSONField(default=dict, blank=True)
    is_deleted = models.BooleanField(default=False, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "code"],
                condition=models.Q(is_deleted=False),
                name="service_article_code",
            ),
            models.UniqueConstraint("organization", Lower("title"), name="service_article_title"),
            models.UniqueConstraint(
                fields=["organization", "shelf", "place"], name="service_article_place"
            ),
            models.CheckConstraint(name="service_article_price", **_check(models.Q(price__gte=0))),
        ]

    def __str__(self) -> str:
        return self.code


class Profile(models.Model):
    """One for each organization."""

    organization = models.OneToOneField(Organization, models.CASCADE)
    motto = models.CharField(max_length=50)


class Code(models.Model):
    """A row whose key is text."""

    id = models.CharField(max_length=20, primary_key=True)

    def __str__(self) -> str:
        return self.id


def organization_of(request: Any) -> Any:
    """The tenant of a request: the organization of its user's membership."""
    membership = Membership.objects.filter(user_id=request.user.pk).first()
    return membership.organization_id if membership else None
