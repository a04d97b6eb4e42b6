"""Connectors, under the specification's module paths."""
