"""What an older or dead master's workers, or the service manager, still hold, and how it is passed on."""
