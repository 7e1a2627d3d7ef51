"""Attention over a fully visible prefix: one function per platform, chosen by name."""
