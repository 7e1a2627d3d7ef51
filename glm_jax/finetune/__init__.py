"""Finetuning: scores of answers, heads, losses, prompts, and the runs that train with them."""
