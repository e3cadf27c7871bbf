"""The start and the end of processes."""
