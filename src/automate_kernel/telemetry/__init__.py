"""
What operators see from outside: logs, metrics, probes and traces.

Nothing here is imported unless it is used: `logs`, `prometheus`, `health`, `serving` and `asgi`
need the standard library alone, `opentelemetry` the extra of that name.
"""
