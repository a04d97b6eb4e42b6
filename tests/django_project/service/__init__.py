"""What the tests of the API bases serve."""
