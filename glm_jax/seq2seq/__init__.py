"""Sequence-to-sequence tasks: texts that are written for other texts."""
