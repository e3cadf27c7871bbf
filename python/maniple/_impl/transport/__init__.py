"""Connections and queues."""
