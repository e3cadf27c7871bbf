"""Locks, semaphores, conditions and events."""
