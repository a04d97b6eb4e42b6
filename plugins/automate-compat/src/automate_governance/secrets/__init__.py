"""Secrets backends, under the specification's module paths."""
