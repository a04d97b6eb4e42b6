"""Commands of people and clocks for executions: approvals, schedules, cancellations."""
