"""What operators see: logs, metrics, health, traces, and a diagnosis."""
