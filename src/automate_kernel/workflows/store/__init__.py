"""What is written of executions, and how it is read."""
