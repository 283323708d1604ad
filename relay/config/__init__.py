"""The configuration: its shape with every default, reading it, and the rules between its keys."""
