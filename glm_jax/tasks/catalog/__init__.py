"""The tasks, a file each or a few alike."""
