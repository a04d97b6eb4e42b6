"""Providers, admin classes and the outbox, under the specification's module paths."""
