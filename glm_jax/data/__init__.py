"""Text on disk, token stores, and the batches made from them."""
