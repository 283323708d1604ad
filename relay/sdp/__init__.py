"""Session descriptions as values and back (RFC 8866). Prefers nothing."""
