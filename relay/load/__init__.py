"""What a worker counts, when it has too much to do, and who is better off."""
