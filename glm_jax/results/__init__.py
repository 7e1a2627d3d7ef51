"""The published results, and how each of them is run here."""
