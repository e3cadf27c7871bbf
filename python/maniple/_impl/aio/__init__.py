"""Waits of the tasks of an event loop: asyncio's, trio's, and anyio's, which runs on one of the two."""
