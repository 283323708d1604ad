//! Whether a publisher sends: for each client with publications, when its last packet came, and whether the control plane was told
//! that none comes. Owns that time and the two events; must never know who watches, or what follows from silence. Read
//! `relay/session/sending.py` next, which decides that.
//!
//! ```text
//!               a packet                          nothing for SILENT_AFTER, and nothing in CONFIRM either
//! untold ──────────────────────► heard ◄──────────────────────────────────────────────► silent
//!    │         PublisherHeard            a packet: PublisherHeard       PublisherSilent
//!    └── nothing for as long: PublisherSilent ──────────────────────────────────────────►
//! ```

use super::{ClientKey, Counter, Engine};
use crate::event::{Event, PublisherHeard, PublisherSilent};
use crate::time::{Span, Time};

/// Longer than the pauses of what goes on: browsers repeat a still screen once a second, Opus with DTX sends every 400 ms. With `CONFIRM`
/// it leaves some 400 ms of the two seconds after which viewers are to see somebody else.
const SILENT_AFTER: Span = Span::from_millis(1_400);
/// Between the look that finds nothing and the one that counts. If this process stood still, packets wait in its sockets, and are taken
/// in between.
const CONFIRM: Span = Span::from_millis(150);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    Heard,
    Silent,
}

/// What is known of one client. A viewer's has no deadline.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence {
    told: Told,
    heard_at: Time,
    look_at: Option<Time>,
    /// The last look found nothing.
    doubts: bool,
}

impl Silence {
    /// The client has a publication as of now, which counts like a packet.
    fn begin(&mut self, now: Time) {
        self.heard_at = now;
        self.look_at = self.look_at.or(Some(now + SILENT_AFTER));
    }

    /// Notes a packet; true when that is to be told.
    #[inline]
    fn note(&mut self, now: Time) -> bool {
        self.heard_at = now;
        self.told != Told::Heard
    }

    /// True when the client's silence is to be told.
    fn look(&mut self, now: Time) -> bool {
        if self.look_at.is_none_or(|at| at > now) {
            return false;
        }
        let counts_at = self.heard_at + SILENT_AFTER;
        if counts_at > now {
            self.doubts = false;
            self.look_at = Some(counts_at);
            return false;
        }
        self.look_at = (!self.doubts).then(|| now + CONFIRM);
        std::mem::replace(&mut self.doubts, self.look_at.is_some())
    }

    pub fn next_deadline(&self) -> Option<Time> {
        self.look_at
    }
}

impl Engine {
    /// A client has published, or was adopted with publications.
    pub(super) fn watch_silence(&mut self, now: Time, key: ClientKey) {
        self.clients[key].silence.begin(now);
        self.deadlines.wake_by(key, now + SILENT_AFTER);
    }

    /// A packet of the client is in a track log.
    #[inline]
    pub(super) fn note_heard(&mut self, now: Time, key: ClientKey) {
        if self.clients[key].silence.note(now) {
            self.tell_heard(now, key);
        }
    }

    #[cold]
    fn tell_heard(&mut self, now: Time, key: ClientKey) {
        self.forget_silence(key);
        let client = &mut self.clients[key];
        client.silence = Silence { told: Told::Heard, heard_at: now, look_at: Some(now + SILENT_AFTER), doubts: false };
        self.events.push_back(Event::PublisherHeard(PublisherHeard { transport: client.transport.id() }));
        self.deadlines.wake_by(key, now + SILENT_AFTER);
    }

    /// Tells of the client's silence, if that is due.
    pub(super) fn look_for_silence(&mut self, now: Time, key: ClientKey) {
        let client = &mut self.clients[key];
        if !client.silence.look(now) || client.silence.told == Told::Silent {
            return;
        }
        client.silence.told = Told::Silent;
        self.events.push_back(Event::PublisherSilent(PublisherSilent { transport: client.transport.id() }));
        self.silent += 1;
        self.stats.set(Counter::PublishersSilent, self.silent);
    }

    /// The client no longer counts among the silent ones: it sends, or is not here any more.
    pub(super) fn forget_silence(&mut self, key: ClientKey) {
        let silence = &mut self.clients[key].silence;
        if silence.told == Told::Silent {
            *silence = Silence::default();
            self.silent -= 1;
            self.stats.set(Counter::PublishersSilent, self.silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Time = Time(1_000_000);

    /// When silence is told to somebody who looks as soon as it may be due.
    fn told_at(silence: &mut Silence) -> Time {
        loop {
            let at = silence.next_deadline().unwrap();
            if silence.look(at) {
                return at;
            }
        }
    }

    #[test]
    fn who_never_sends_is_silent_as_soon_as_who_stops() {
        let mut silence = Silence::default();
        silence.begin(BEGAN);
        assert_eq!(told_at(&mut silence), BEGAN + SILENT_AFTER + CONFIRM);
        assert_eq!(silence.next_deadline(), None, "told once");

        let mut silence = Silence::default();
        silence.begin(BEGAN);
        let last = BEGAN + Span::from_millis(700);
        assert!(silence.note(last), "the first packet is told");
        assert_eq!(told_at(&mut silence), last + SILENT_AFTER + CONFIRM);
    }

    #[test]
    fn a_packet_that_waited_while_the_process_stood_still_keeps_its_publisher_heard() {
        let mut silence = Silence { told: Told::Heard, ..Silence::default() };
        silence.begin(BEGAN);
        let thawed = BEGAN + Span::from_secs(30);
        assert!(!silence.look(thawed));
        assert!(!silence.note(thawed));
        assert!(!silence.look(thawed + CONFIRM));
        assert_eq!(silence.next_deadline(), Some(thawed + SILENT_AFTER));
        assert!(!silence.look(thawed + SILENT_AFTER), "one look does not count");
    }

    #[test]
    fn a_viewer_is_never_looked_at() {
        let mut silence = Silence::default();
        assert_eq!((silence.next_deadline(), silence.look(Time(u64::MAX))), (None, false));
    }
}
