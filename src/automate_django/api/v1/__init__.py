"""The first version: the base classes, and the REST API of the automation."""
