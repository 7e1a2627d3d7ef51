"""Saving and restoring a run: orbax checkpoints with checksums and a record."""
