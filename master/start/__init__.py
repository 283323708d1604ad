"""From arguments to a forked worker."""
