"""What the tests of the API bases serve: projects of organizations."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models


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


def organization_of(request: Any) -> Any:
    """The tenant of a request: the organization of its user's membership."""
    membership = Membership.objects.filter(user_id=request.user.pk).first()
    return membership.organization_id if membership else None
