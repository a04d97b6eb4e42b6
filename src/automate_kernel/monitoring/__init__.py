"""Monitoring for operators: logs, metrics, health, traces, and a diagnosis."""
