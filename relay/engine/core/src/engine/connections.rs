//! TCP connections (RFC 6544), as far as the engine knows them: a path whose socket is a listener. Says which are a client's, and which
//! another worker needs, as its session is there. Must never read or write one: the shell's `tcp.rs` does, and is to be read next.
//!
//! ```text
//! accepted by any worker ─► first check ─► ufrag: ours ─► as with a datagram
//!                                      └─► another's ─► the connection is passed to that worker, with the check
//! a session moves ─► its connections are passed along
//! ```

use super::{ClientKey, Engine};
use crate::outbox::Path;
use crate::time::Time;

/// A connection that another worker is to have. What was read of it and not handled goes with it, as does the frame at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    pub path: Path,
    pub slot: u8,
}

impl Engine {
    /// The next connection to pass on. To be asked after each frame, command and inbox.
    pub fn take_pass(&mut self) -> Option<Pass> {
        self.passes.pop_front()
    }

    /// True when an authentic check has made this path a client's of this worker.
    pub fn is_clients(&self, path: Path) -> bool {
        self.client_by_path.contains_key(&path)
    }

    /// A connection has ended, or never came where its session is.
    pub fn handle_connection_closed(&mut self, now: Time, path: Path) {
        let Some(&key) = self.client_by_path.get(&path) else { return };
        self.clients[key].transport.handle_connection_closed(path);
        self.handle_transport_events(now, key);
        self.schedule(now, key);
    }

    pub(super) fn pass_connection(&mut self, path: Path, slot: u8) {
        self.passes.push_back(Pass { path, slot });
    }

    /// Passes on those connections that are this client's.
    pub(super) fn pass_connections(&mut self, paths: &[Path], key: ClientKey, slot: u8) {
        for &path in paths.iter().filter(|path| path.socket.is_tcp()) {
            if self.client_by_path.get(&path) == Some(&key) {
                self.pass_connection(path, slot);
            }
        }
    }
}
