"""HTTP: webhooks, events, probes and metrics, for any server."""
