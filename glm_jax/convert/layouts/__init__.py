"""What checkpoints of each kind look like: the original's, Hugging Face's and ours."""
