"""Managers: server, client, and what goes between them."""
