"""Weights between the original's checkpoints, Hugging Face folders and ours."""
