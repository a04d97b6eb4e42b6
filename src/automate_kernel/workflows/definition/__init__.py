"""The definition of a workflow: its model, its text, its problems and its graph."""
