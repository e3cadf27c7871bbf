"""Named shared memory: the lifetime of mappings, and the layout of lists."""
