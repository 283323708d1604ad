"""The relay: decides, is told the time, never waits. Imports nothing of workers or master."""
