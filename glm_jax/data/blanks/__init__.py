"""Which spans become blanks, and the examples that are made of them."""
