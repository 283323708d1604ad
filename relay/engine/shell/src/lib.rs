//! Waits for the engine: the Python class, the reactor, the mailbox, UDP.
