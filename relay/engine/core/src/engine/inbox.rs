//! What other workers left for this one in the arena: messages, and datagrams that they received for it. Each round takes a
//! bounded number and leaves the rest for the next. Must never wait for another worker. Read `../message.rs` for the messages,
//! the arena's `messages.rs` and `handover.rs` for the rings.

use millrace_arena::MAX_DATAGRAM;

use super::ingress::path_of;
use super::{Counter, Engine};
use crate::forward::key_frames::Wish;
use crate::message::Message;
use crate::time::Time;

/// Messages and datagrams that one round takes from one worker. The rings hold more, and the next round follows at once.
const MESSAGES_A_ROUND: usize = 4_096;
const DATAGRAMS_A_ROUND: usize = 256;

impl Engine {
    /// Handles what the other slots left.
    pub fn handle_inbox(&mut self, now: Time) {
        if !self.has_inbox() {
            return;
        }
        // All messages first: a datagram may be for a session that a message moves here.
        for from in self.others() {
            for _ in 0..MESSAGES_A_ROUND {
                let Some(word) = self.arena.messages(from, self.slot).receive() else { break };
                self.handle_message(now, from, word);
            }
        }
        let mut datagram = [0; MAX_DATAGRAM];
        for from in self.others() {
            for _ in 0..DATAGRAMS_A_ROUND {
                let popped = self.arena.handover(from, self.slot).pop(&mut datagram);
                let Some((socket, remote, len)) = popped else { break };
                self.handle_handed_over(now, from, path_of(socket, remote), &mut datagram[..len]);
            }
        }
    }

    fn others(&self) -> impl Iterator<Item = u8> + use<> {
        let own = self.slot;
        (0..self.slots).filter(move |slot| *slot != own)
    }

    /// True when `handle_inbox` would find something.
    pub fn has_inbox(&self) -> bool {
        !self.arena.inbox_is_empty(self.slot)
    }

    fn handle_message(&mut self, now: Time, from: u8, word: u64) {
        match Message::decode(word) {
            Some(Message::LogAdvanced(log)) => self.mark_dirty(log),
            Some(Message::KeyFrameWanted { log, sees_nothing }) => {
                self.want_key_frame(now, Wish { log, sees_nothing });
            }
            Some(Message::MoveOffered(record)) => self.handle_move_offered(now, from, record),
            Some(Message::MoveAnswered(_)) => self.expire_moves(now),
            None => self.stats.add(Counter::RingMessagesUnknown, 1),
        }
    }

    /// Sends a message to another slot. A full ring loses it; the next message makes up for that.
    pub(super) fn send_message(&mut self, slot: u8, message: Message) {
        if self.arena.messages(self.slot, slot).send(message.encode()) {
            self.doorbells |= 1 << slot;
        }
    }
}
