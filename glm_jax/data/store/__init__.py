"""The token store: one long array of token ids on disk, and its documents."""
