"""The administration interface: rooms, sessions and moves, and what it shows of them as JSON."""
