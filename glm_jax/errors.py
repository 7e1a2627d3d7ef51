"""The two ways a command ends badly, each carrying one sentence for the user."""


class UsageError(Exception):
    """Bad usage, configuration or input: the command prints the sentence and exits with 2."""


class RunError(Exception):
    """A run that was asked for correctly but failed: the command prints the sentence, exits with 1."""
