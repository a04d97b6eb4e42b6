"""What every place that keeps executions must do, as tests."""

from automate_kernel.testing.executions.contract import ExecutionStoreContract

__all__ = ["ExecutionStoreContract"]
