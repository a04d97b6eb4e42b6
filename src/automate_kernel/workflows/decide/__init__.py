"""What an execution does next: pure decisions, without rows, threads or a clock."""
