"""Base classes, under the specification's module paths."""
