//! The short-term credentials of one side of ICE and of the other: what authenticates a check, and what signs a request of
//! ours. Owns USERNAME both ways (RFC 8445 section 7.2.2); must never know an address. Read `proof.rs` next.

use crate::transport::stun::Integrity;

/// Of one ICE generation.
pub(in crate::transport) struct Credentials {
    pub ufrag: String,
    pub pwd: String,
    pub key: Integrity,
    /// `None` after a predecessor that did not save it: then nothing can be asked.
    pub remote: Option<Remote>,
}

/// What the client's description said.
pub(in crate::transport) struct Remote {
    pub ufrag: String,
    pub pwd: String,
    /// The client signs its answers with this.
    pub key: Integrity,
    /// Of the client's checks.
    checks_as: String,
    /// Of our requests.
    pub asked_as: String,
}

impl Credentials {
    pub fn new(ufrag: &str, pwd: &str) -> Credentials {
        Credentials { ufrag: ufrag.to_owned(), pwd: pwd.to_owned(), key: Integrity::new(pwd.as_bytes()), remote: None }
    }

    pub fn with_remote(mut self, ufrag: &str, pwd: &str) -> Credentials {
        self.set_remote(ufrag, pwd);
        self
    }

    /// What the client said; nothing is known of it when it is empty.
    pub fn set_remote(&mut self, ufrag: &str, pwd: &str) {
        self.remote = (!ufrag.is_empty() && !pwd.is_empty()).then(|| Remote {
            ufrag: ufrag.to_owned(),
            pwd: pwd.to_owned(),
            key: Integrity::new(pwd.as_bytes()),
            checks_as: format!("{}:{ufrag}", self.ufrag),
            asked_as: format!("{ufrag}:{}", self.ufrag),
        });
    }

    /// Whether a check with this USERNAME is one of our client's: both halves, as far as both are known.
    pub fn are_named(&self, username: &str) -> bool {
        match &self.remote {
            Some(remote) => username == remote.checks_as,
            None => username.split_once(':').is_some_and(|(ours, _)| ours == self.ufrag),
        }
    }
}
