"""Train steps compiled for TPUs that are not there, and what their programs cost."""
