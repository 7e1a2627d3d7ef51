"""Texts and blanks -> batches, on tf.data."""
