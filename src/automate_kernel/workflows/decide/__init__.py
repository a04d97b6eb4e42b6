"""Decisions on what an execution does next: pure, without rows, threads or a clock."""
