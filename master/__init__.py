"""The parent process: one thread, no event loop, no ZeroMQ, no engine."""
