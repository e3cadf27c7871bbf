"""Compatibility with the standard package, with other libraries and with versions of Python."""
