//! What workers' engines tell each other over the arena's rings: one 64-bit word each. Owns the encoding; must never
//! carry media. `engine/inbox.rs` acts on them.
//!
//! ```text
//! bit 63..56: kind      bit 55..32: zero      bit 31..0: track log
//! ```

/// A message between two workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// New packets are in a track log that the receiver reads.
    LogMoved(u32),
    /// A subscriber of the sender waits for a key frame of this log, which the receiver writes.
    KeyFrameWanted(u32),
}

const LOG_MOVED: u64 = 1;
const KEY_FRAME_WANTED: u64 = 2;

impl Message {
    pub fn encode(self) -> u64 {
        match self {
            Message::LogMoved(log) => LOG_MOVED << 56 | u64::from(log),
            Message::KeyFrameWanted(log) => KEY_FRAME_WANTED << 56 | u64::from(log),
        }
    }

    /// `None` for what a newer binary may say and this one does not know.
    pub fn decode(word: u64) -> Option<Message> {
        let log = word as u32;
        match word >> 56 {
            LOG_MOVED => Some(Message::LogMoved(log)),
            KEY_FRAME_WANTED => Some(Message::KeyFrameWanted(log)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_ring() {
        for message in [Message::LogMoved(0), Message::LogMoved(u32::MAX), Message::KeyFrameWanted(7)] {
            assert_eq!(Message::decode(message.encode()), Some(message));
        }
    }

    #[test]
    fn an_unknown_kind_is_no_message() {
        assert_eq!(Message::decode(0), None);
        assert_eq!(Message::decode(9 << 56), None);
    }
}
