"""Filling and scoring over HTTP, with requests side by side in the rows of one engine."""
