"""An app that is found by its `automation` module alone."""
