"""Whether two checkpoints give the same numbers, and from which layer on they don't."""
