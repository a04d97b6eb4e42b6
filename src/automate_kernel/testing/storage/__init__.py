"""The test of a `Storage` and its `Rows`: what an adapter for one more framework must do."""

from automate_kernel.testing.storage.contract import StorageContract

__all__ = ["StorageContract"]
