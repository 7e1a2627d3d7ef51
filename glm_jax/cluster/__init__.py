"""The processes of one run: how they join, watch each other, agree, and stop."""
