"""Providers, under the specification's module paths."""
