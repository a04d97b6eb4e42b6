"""What starts workflows from outside: webhooks and polls."""
