"""What runs a workflow: executions, the steps that are next, schedules."""
