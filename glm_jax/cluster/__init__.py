"""The processes of one run: joining, watching, agreeing, stopping."""
