//! Messages between workers' engines over the arena's rings, one 64-bit word each. Owns the encoding; must never carry media. Read
//! `engine/inbox.rs` next, which handles them.
//!
//! ```text
//! bit 63..56: kind      bit 55..33: zero      bit 32: of a wish, whether its viewer sees nothing      bit 31..0: track log, or session record
//! ```

/// A message between two workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A track log that the receiver reads has new packets.
    LogAdvanced(u32),
    /// A subscriber of the sender waits for a key frame of this log, which the receiver writes.
    KeyFrameWanted { log: u32, sees_nothing: bool },
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
            Message::KeyFrameWanted { log, sees_nothing } => {
                KEY_FRAME_WANTED << 56 | u64::from(sees_nothing) << 32 | u64::from(log)
            }
            Message::MoveOffered(record) => MOVE_OFFERED << 56 | u64::from(record),
            Message::MoveAnswered(record) => MOVE_ANSWERED << 56 | u64::from(record),
        }
    }

    /// `None` for a kind of message that only a newer binary knows.
    pub fn decode(word: u64) -> Option<Message> {
        let number = word as u32;
        match word >> 56 {
            LOG_ADVANCED => Some(Message::LogAdvanced(number)),
            // Engines of before the bit was there never set it, and do not look at it.
            KEY_FRAME_WANTED => Some(Message::KeyFrameWanted { log: number, sees_nothing: word >> 32 & 1 == 1 }),
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
        let wishes = [false, true].map(|sees_nothing| Message::KeyFrameWanted { log: 7, sees_nothing });
        let logs = [Message::LogAdvanced(0), Message::LogAdvanced(u32::MAX)];
        for message in logs.into_iter().chain(wishes).chain(moves) {
            assert_eq!(Message::decode(message.encode()), Some(message));
        }
    }

    #[test]
    fn an_unknown_kind_is_no_message() {
        assert_eq!(Message::decode(0), None);
        assert_eq!(Message::decode(9 << 56), None);
    }
}
