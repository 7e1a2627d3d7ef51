"""The names of language modelling tasks."""

LANGUAGE_MODEL_TASKS = ("lambada", "wikitext", "ptb", "language_model")
