"""Step -> texts: the order in which a store is read."""
