"""Training: loss, optimizer, state, step and the loop around them."""
