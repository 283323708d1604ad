"""The extension's few methods; stubtest holds this file to it. Packed arguments are those of
`relay/contract/codec.py`.
"""

from typing import final

__all__ = ["Engine"]

@final
class Engine:
    """One worker's packet path, on a thread of its own."""

    def __new__(
        cls,
        sockets: list[int],
        slot: int,
        config: bytes,
        arena: int,
        doorbells: list[int],
        flow_map: int | None,
        tcp: tuple[list[int], int, list[int], int] | None = None,
    ) -> Engine:
        """All descriptors stay the caller's. `tcp`: listeners that all workers share, the end of a Unix socket at which
        this slot is passed connections, the other end of each slot's, the most connections.

        Raises ValueError when the parts do not fit each other, OSError."""

    def start(self) -> None:
        """Once; RuntimeError the second time."""

    def submit(self, commands: bytes) -> None:
        """ValueError: does not parse. BufferError: the engine is behind. RuntimeError: it has stopped. Never waits."""

    def fileno(self) -> int:
        """Readable when `events` has something to give."""

    def events(self) -> bytes: ...
    def stats(self) -> bytes:
        """An array with one map of counters by name for each slot, in slot order."""

    def stop(self, goodbye: bool) -> None:
        """Ends the thread within two seconds, or raises RuntimeError. `goodbye`: every client is told, else none."""
