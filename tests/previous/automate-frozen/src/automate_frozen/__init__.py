"""One plugin of each kind, as they were written against automate-kernel 0.1."""
