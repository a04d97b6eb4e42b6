"""The project that the demonstration runs, as a user would write it."""
