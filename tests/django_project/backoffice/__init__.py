"""What the tests of the admin bases manage."""
