"""Runs components on arrays."""
