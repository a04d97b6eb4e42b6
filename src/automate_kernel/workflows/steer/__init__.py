"""What people and clocks do with executions: commands, approvals, schedules."""
