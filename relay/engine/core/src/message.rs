//! Messages between workers' engines over the arena's rings, one 64-bit word each. Owns the encoding; must never carry media. Read
//! `engine/inbox.rs` next, which handles them.
//!
//! ```text
//! bit 63..56: kind      bit 55..32: zero      bit 31..0: track log, or session record
//! ```

/// A message between two workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A track log that the receiver reads has new packets.
    LogAdvanced(u32),
    /// A subscriber of the sender waits for a key frame of this log, which the receiver writes.
    KeyFrameWanted(u32),
    /// The sender offers the session of this record to the receiver; the arena's word for the record says so.
    MoveOffered(u32),
    /// The sender answered the receiver's offer of this record; the arena's word for the record says how.
    MoveAnswered(u32),
}

const LOG_ADVANCED: u64 = 1;
const KEY_FRAME_WANTED: u64 = 2;
const MOVE_OFFERED: u64 = 3;
const MOVE_ANSWERED: u64 = 4;

impl Message {
    pub fn encode(self) -> u64 {
        match self {
            Message::LogAdvanced(log) => LOG_ADVANCED << 56 | u64::from(log),
            Message::KeyFrameWanted(log) => KEY_FRAME_WANTED << 56 | u64::from(log),
            Message::MoveOffered(record) => MOVE_OFFERED << 56 | u64::from(record),
            Message::MoveAnswered(record) => MOVE_ANSWERED << 56 | u64::from(record),
        }
    }

    /// `None` for a kind of message that only a newer binary knows.
    pub fn decode(word: u64) -> Option<Message> {
        let number = word as u32;
        match word >> 56 {
            LOG_ADVANCED => Some(Message::LogAdvanced(number)),
            KEY_FRAME_WANTED => Some(Message::KeyFrameWanted(number)),
            MOVE_OFFERED => Some(Message::MoveOffered(number)),
            MOVE_ANSWERED => Some(Message::MoveAnswered(number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_ring() {
        let moves = [Message::MoveOffered(1), Message::MoveAnswered(u32::MAX)];
        for message in [Message::LogAdvanced(0), Message::LogAdvanced(u32::MAX), Message::KeyFrameWanted(7)]
            .into_iter()
            .chain(moves)
        {
            assert_eq!(Message::decode(message.encode()), Some(message));
        }
    }

    #[test]
    fn an_unknown_kind_is_no_message() {
        assert_eq!(Message::decode(0), None);
        assert_eq!(Message::decode(9 << 56), None);
    }
}
