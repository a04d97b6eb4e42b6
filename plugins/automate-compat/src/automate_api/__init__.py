"""Views, under the specification's module paths."""
