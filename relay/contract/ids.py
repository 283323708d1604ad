"""Names of things, so that swapped arguments do not type-check. Owns the types and must never make an id: control
picks them all, and never the engine. Read `relay/session/numbers.py` next, where it does.
"""

from typing import NewType

RoomName = NewType("RoomName", str)
ParticipantId = NewType("ParticipantId", str)
"""The token's identity, or a random name; unique within a room."""
SessionId = NewType("SessionId", str)
"""What a WHIP or WHEP URL names: two hex digits of the slot, a dot, then at least 128 random bits in URL-safe text."""
TransportId = NewType("TransportId", int)
PublicationId = NewType("PublicationId", int)
SubscriptionId = NewType("SubscriptionId", int)
RequestId = NewType("RequestId", int)
"""One HTTP request that awaits its reply, numbered by the worker that took it."""
NO_REQUEST = RequestId(0)
"""For an answer that nobody waits for. Workers number their requests from 1."""
Slot = NewType("Slot", int)
"""A worker's fixed number, 0..63."""
Incarnation = NewType("Incarnation", int)
"""Which life of a slot, counted from 1: each worker that is forked for the slot has the next."""
