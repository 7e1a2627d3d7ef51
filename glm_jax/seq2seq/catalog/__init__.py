"""The tasks themselves, one module for each kind."""
