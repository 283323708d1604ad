//! One client: its link, and the publisher or viewer on it. Owns how a datagram goes between the two; must never know another
//! client. Read `world.rs` next.

use std::time::Duration;

use millrace_core::time::Time;

use crate::clock;
use crate::desk::Session;
use crate::link::{Link, Taken, Tools};
use crate::net::Batch;
use crate::publisher::Publisher;
use crate::viewer::{Findings, Viewer};

pub enum Side {
    Publisher(Publisher),
    Viewer(Viewer),
}

pub struct Client {
    pub link: Link,
    pub side: Side,
    /// Tells apart clients that have the same index in the table, one after the other.
    pub ticket: u64,
    pub session: Option<Session>,
    pub upkeep_at: Time,
    /// Counted among `World::failed`.
    pub has_failed: bool,
    pub asked_at: Time,
    pub answer_took: Option<Duration>,
}

impl Client {
    pub fn new(link: Link, side: Side, ticket: u64, now: Time) -> Client {
        Client {
            link,
            side,
            ticket,
            session: None,
            upkeep_at: now,
            has_failed: false,
            asked_at: now,
            answer_took: None,
        }
    }

    pub fn viewer(&self) -> Option<&Viewer> {
        if let Side::Viewer(viewer) = &self.side { Some(viewer) } else { None }
    }

    /// Records from now on when it sends or receives.
    pub fn record_times(&mut self) {
        match &mut self.side {
            Side::Publisher(publisher) => publisher.bursts = Some(Vec::new()),
            Side::Viewer(viewer) => viewer.arrivals = Some(Vec::new()),
        }
    }

    pub fn publisher(&self) -> Option<&Publisher> {
        if let Side::Publisher(publisher) = &self.side { Some(publisher) } else { None }
    }

    /// Handles what the socket holds, and sends what is due.
    pub fn attend(&mut self, batch: &mut Batch, tools: &mut Tools, findings: &mut Findings) {
        let Client { link, side, .. } = self;
        while batch.receive(link.socket()) > 0 {
            let now = clock::now();
            batch.each(|datagram| {
                let bytes = datagram.bytes;
                match (link.handle(now, bytes, tools), &mut *side) {
                    (Taken::Mine, _) => {}
                    (Taken::Rtp, Side::Viewer(viewer)) => {
                        viewer.handle_rtp(now, bytes, datagram.stamp, link, findings, tools);
                    }
                    (Taken::Rtcp, side) => {
                        let Some(len) = link.open_rtcp(now, bytes) else { return };
                        match side {
                            Side::Publisher(publisher) => publisher.handle_rtcp(&bytes[..len], link),
                            Side::Viewer(viewer) => viewer.handle_rtcp(now, &bytes[..len]),
                        }
                    }
                    (Taken::Raw, Side::Viewer(viewer)) => viewer.counts.raw += 1,
                    _ => {}
                }
            });
            if !batch.is_full() {
                break;
            }
        }
        let now = clock::now();
        if self.upkeep_at <= now {
            let link_at = self.link.upkeep(now, tools);
            let side_at = match &mut self.side {
                Side::Publisher(publisher) => publisher.upkeep(now, &mut self.link, tools),
                Side::Viewer(viewer) => viewer.upkeep(now, &mut self.link, tools),
            };
            self.upkeep_at = link_at.min(side_at);
        }
    }
}
