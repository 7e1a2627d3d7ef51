"""Batches as people can read them: in the terminal and as pictures."""
