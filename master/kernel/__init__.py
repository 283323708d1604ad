"""Sockets, addresses, and which worker the kernel gives what to."""
