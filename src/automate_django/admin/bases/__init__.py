"""The admin classes for a project's own models, one concern in each module."""
