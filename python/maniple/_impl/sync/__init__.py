"""Locks and what is built of them."""
