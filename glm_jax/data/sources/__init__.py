"""Text -> documents: files, archives, tables and data sets."""
