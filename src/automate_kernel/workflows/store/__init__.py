"""Rows of executions: everything that is written of them, and how it is read."""
