"""JSON Schemas, also a stranger's: checks against them, and what can be read from them."""
