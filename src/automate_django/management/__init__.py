"""What runs outside of requests."""
