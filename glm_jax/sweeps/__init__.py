"""Sweeps: many configurations of one run, tried on one machine or a cluster, and compared."""
