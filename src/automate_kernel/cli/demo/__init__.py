"""The demonstration: a small project, and what tells its story."""
