"""
The API for clients, below the frameworks: a table of routes, and functions that answer them.

`automate serve` and Django give the same answers, because both ask these functions.
"""
