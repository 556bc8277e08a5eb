"""Exact NumPy model of M2XFP."""
