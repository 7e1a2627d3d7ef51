"""Train steps compiled for TPUs ahead of time, without the hardware, and their costs."""
