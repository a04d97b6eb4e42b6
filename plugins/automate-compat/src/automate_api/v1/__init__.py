"""Views of the API's first version, under the specification's module paths."""
