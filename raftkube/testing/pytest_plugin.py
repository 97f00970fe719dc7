"""Fixtures for the tests of operators and controllers."""
