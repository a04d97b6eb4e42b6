"""Secrets, under the specification's module paths."""
