"""The two ways a command ends badly, each carrying one sentence for the user."""


class UsageError(Exception):
    """Bad usage, configuration or input: the command prints the sentence and exits with 2."""


class RunError(Exception):
    """Rightly asked for, but failed: the command prints the sentence and exits with 1."""
