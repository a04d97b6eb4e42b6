"""What the shop stores."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """An order of a customer."""

    number = models.CharField(max_length=20, unique=True)
    total = models.DecimalField(max_digits=10, decimal_places=2)


class Message(models.Model):
    """What was said in the chat, which has no service in tests."""

    channel = models.CharField(max_length=50)
    text = models.TextField()
