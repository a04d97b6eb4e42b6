"""Triggers from outside: webhooks, and polls of services."""
