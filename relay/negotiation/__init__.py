"""Which codecs, encodings and extensions of an offer are taken, and the answer to it."""
