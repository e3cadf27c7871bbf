"""Managers: the server, its clients, and the protocol between them."""
