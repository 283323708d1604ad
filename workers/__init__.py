"""One worker process: waits, never decides. Imports relay, and nothing of master."""
