"""The test of a `Storage` and its `Rows`: what an adapter for one more framework must do."""

from .contract import StorageContract

__all__ = ["StorageContract"]
