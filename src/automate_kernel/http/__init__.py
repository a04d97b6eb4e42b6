"""What answers over HTTP: webhooks, events, probes and metrics."""
