"""Tokens and grants: who may come in, and who may touch a session."""
