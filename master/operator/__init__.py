"""The command line: everything that a person types."""
