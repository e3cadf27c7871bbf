"""Pickling of functions and classes by value."""
