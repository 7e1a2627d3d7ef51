"""Conversations with a model: prompts of several turns, answers as they grow, settings."""
