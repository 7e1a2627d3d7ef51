"""What a sweep has found: tables, statistics over seeds, the best configuration, pictures."""
