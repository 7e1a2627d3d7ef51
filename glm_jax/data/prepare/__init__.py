"""Documents -> token store."""
