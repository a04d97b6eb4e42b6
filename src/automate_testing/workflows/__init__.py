"""Tests of workflows: a kit that skips time, and files with cases for `automate workflow test`."""
