"""What lasts: sessions with their records, their numbers, how they are opened, adopted, moved and fed."""
