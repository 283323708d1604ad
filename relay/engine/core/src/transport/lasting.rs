//! A transport as a plain record, with which another process goes on without the client noticing, in the middle of a call or
//! before the handshake. Owns what must last: credentials, addresses, keys and counters; must never hold a library's object.
//! Read `mod.rs` next.

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::dtls::Dtls;
use super::ice::Ice;
use super::ice::credentials::Credentials;
use super::srtp::{Srtp, SrtpState};
use super::{DtlsContexts, EstablishedDtls, Limits, Phase, Transport};
use crate::command::{DtlsRole, OpenTransport};
use crate::outbox::{Path, SocketIndex};
use crate::time::Time;

/// A connected transport. The counters in `srtp` are those of the moment of the export: `SrtpState::update` brings them up to date
/// from the words that `Transport::save_in` wrote, and has to be called before `import`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    pub transport: u64,
    pub local_ufrag: String,
    pub local_pwd: String,
    /// Ufrag and password of an ICE restart that no check has used yet.
    pub restart: Option<(String, String)>,
    /// Socket and remote address, the selected one first.
    pub paths: Vec<(u8, SocketAddr)>,
    pub srtp: SrtpState,
    /// For the last flight and for alerts.
    pub dtls: Option<EstablishedDtls>,
}

/// A transport whose handshake has not begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// With the ICE credentials that are in use.
    pub open: OpenTransport,
    pub restart: Option<(String, String)>,
    pub paths: Vec<(u8, SocketAddr)>,
    /// Whether the first path is selected.
    pub is_selected: bool,
}

/// What lasts beside that, since a later version of the record: whoever knows nothing of it skips it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemoteState {
    /// Ufrag and password of the client; empty when they are not known.
    pub ufrag: String,
    pub pwd: String,
    /// Those of an ICE restart that is not taken up yet.
    pub restart: Option<(String, String)>,
    pub habit: Habit,
    /// How many of the saved addresses, the last ones, were known by a check only.
    pub unproven: usize,
}

/// Whether a client answers our requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Habit {
    /// It was not asked since DTLS is up, or has time left.
    #[default]
    Unknown,
    Answers,
    /// As ffmpeg from DTLS on.
    Silent,
}

/// A transport that a successor goes on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Carried {
    Connected(Box<TransportState>),
    Waiting(Box<Waiting>),
}

impl Carried {
    pub fn transport(&self) -> u64 {
        match self {
            Carried::Connected(state) => state.transport,
            Carried::Waiting(waiting) => waiting.open.transport,
        }
    }
}

impl Transport {
    /// `None` while a handshake is under way, which does not survive its process.
    pub fn carry(&self) -> Option<Carried> {
        let connected = self.export().map(|state| Carried::Connected(Box::new(state)));
        connected.or_else(|| self.export_waiting().map(|waiting| Carried::Waiting(Box::new(waiting))))
    }

    /// To be kept beside what `carry` returns.
    pub fn remote_state(&self) -> RemoteState {
        let (current, next) = self.ice.credentials();
        let names = |credentials: &Credentials| {
            credentials.remote.as_ref().map(|remote| (remote.ufrag.clone(), remote.pwd.clone()))
        };
        let (ufrag, pwd) = names(current).unwrap_or_default();
        let (habit, unproven) = (self.ice.habit(), self.ice.count_unproven());
        RemoteState { ufrag, pwd, restart: next.and_then(names), habit, unproven }
    }

    /// Goes on with what a predecessor knew of the client.
    pub fn set_remote_state(&mut self, state: &RemoteState) {
        self.ice.set_habit(state.habit);
        self.ice.doubt(state.unproven, &mut self.events);
        let (current, next) = self.ice.credentials_mut();
        current.set_remote(&state.ufrag, &state.pwd);
        if let (Some(next), Some((ufrag, pwd))) = (next, &state.restart) {
            next.set_remote(ufrag, pwd);
        }
    }

    fn export_waiting(&self) -> Option<Waiting> {
        let mut open = OpenTransport::clone(self.opened.as_deref()?);
        let (current, next) = self.ice.credentials();
        (open.local_ufrag, open.local_pwd) = (current.ufrag.clone(), current.pwd.clone());
        Some(Waiting {
            open,
            restart: next.map(|next| (next.ufrag.clone(), next.pwd.clone())),
            paths: self.ice.paths().map(|path| (path.socket.0, path.remote)).collect(),
            is_selected: self.ice.selected().is_some(),
        })
    }

    /// Opens a transport again whose handshake had not begun. Its timeouts start anew.
    pub fn reopen(now: Time, waiting: &Waiting, contexts: &DtlsContexts, limits: &Limits) -> Result<Transport, String> {
        let mut transport = Transport::new(now, &waiting.open, contexts, limits)?;
        let current = Credentials::new(&waiting.open.local_ufrag, &waiting.open.local_pwd);
        let next = waiting.restart.as_ref().map(|(ufrag, pwd)| Credentials::new(ufrag, pwd));
        transport.ice = Ice::new(current, next, limits.max_addresses);
        for (i, &(socket, remote)) in waiting.paths.iter().enumerate() {
            let path = Path { socket: SocketIndex(socket), remote };
            transport.ice.adopt(now, path, i == 0 && waiting.is_selected, &mut transport.events);
        }
        if !waiting.paths.is_empty() {
            transport.enter(Phase::Checked, Some(now + limits.handshake_timeout));
        }
        Ok(transport)
    }

    /// `None` unless connected.
    pub fn export(&self) -> Option<TransportState> {
        let srtp = self.srtp.as_ref()?.export();
        self.ice.selected()?;
        let (current, next) = self.ice.credentials();
        Some(TransportState {
            transport: self.id,
            local_ufrag: current.ufrag.clone(),
            local_pwd: current.pwd.clone(),
            restart: next.map(|next| (next.ufrag.clone(), next.pwd.clone())),
            paths: self.ice.paths().map(|path| (path.socket.0, path.remote)).collect(),
            srtp,
            dtls: self.dtls.as_ref().and_then(Dtls::established).cloned(),
        })
    }

    /// Resumes an exported transport: connected at once, with consent as of now. An error when `export` did not make the record.
    pub fn import(now: Time, state: &TransportState, limits: &Limits) -> Result<Transport, String> {
        let srtp = Srtp::import(&state.srtp, limits.max_streams).ok_or("expected keys of the profile's length")?;
        let mut events = VecDeque::new();
        let current = Credentials::new(&state.local_ufrag, &state.local_pwd);
        let next = state.restart.as_ref().map(|(ufrag, pwd)| Credentials::new(ufrag, pwd));
        let mut ice = Ice::new(current, next, limits.max_addresses);
        for (i, &(socket, remote)) in state.paths.iter().enumerate() {
            ice.adopt(now, Path { socket: SocketIndex(socket), remote }, i == 0, &mut events);
        }
        if ice.selected().is_none() {
            return Err("expected an address".to_owned());
        }
        ice.adopt_connected(now);
        Ok(Transport {
            id: state.transport,
            limits: *limits,
            dtls_role: DtlsRole::Server,
            expects_media: false,
            opened: None,
            phase: Phase::Connected,
            ice,
            dtls: state.dtls.clone().map(Dtls::resume),
            srtp: Some(srtp),
            dtls_path: None,
            handshake_began_at: None,
            progressed_at: now,
            flights: 0,
            failed: None,
            restart_at: None,
            phase_due: None,
            events,
            words: None,
        })
    }
}
