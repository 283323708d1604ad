"""WHIP and WHEP: what POST, PATCH and DELETE of a client mean (RFC 9725)."""
