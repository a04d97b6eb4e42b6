"""Acme Inc for automate-kernel."""
