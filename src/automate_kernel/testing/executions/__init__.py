"""What every place that keeps executions must do, as tests."""

from .contract import ExecutionStoreContract

__all__ = ["ExecutionStoreContract"]
