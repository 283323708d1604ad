"""Tokens and grants: who may open a session, and who may change or end one."""
