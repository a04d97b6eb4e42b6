"""The engine of workflows: executions, their next moves, the runner, schedules."""
