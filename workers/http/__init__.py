"""The HTTP server of a worker: bounds and answers, the public side, the administration side, the page."""
