"""One call of an action or a capability: its input, its context, its errors."""
