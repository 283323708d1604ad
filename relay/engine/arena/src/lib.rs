//! The arena: the memory that all workers share. Owns its layout, and the protocols by which processes that may die at any
//! instruction use it together; must never know a socket, a clock or RTP. Read `layout.rs` first, then `arena.rs`.

mod addresses;
mod arena;
mod endpoint;
mod handover;
mod layout;
mod log_reader;
mod log_writer;
#[cfg_attr(modelled, path = "../../models/src/mapping.rs")]
mod mapping;
mod messages;
mod owners;
mod prefetch;
mod sessions;
mod slots;
#[cfg_attr(modelled, path = "../../models/src/sync.rs")]
mod sync;
mod track_log;
mod words;

pub use addresses::{Addresses, Known};
pub use arena::{Arena, AttachError};
pub use handover::Handover;
pub use layout::{COUNTERS, Layout, MAGIC, MAX_DATAGRAM, MAX_PACKET, Parameters, SESSION_WORDS, VERSION};
pub use log_reader::{LogReader, Missing};
pub use log_writer::{AppendError, LogWriter, OpenError};
pub use messages::Messages;
pub use owners::{Owner, Owners};
pub use prefetch::{prefetch, prefetch_front};
pub use sessions::{SessionRecord, SessionWords};
pub use slots::{Beat, Beats, SlotPage};
#[cfg(modelled)]
pub use sync::explore;
pub use track_log::{
    DISCARDABLE, EntryMeta, Facts, KEY_FRAME_START, KeyFrame, MARKER, MAX_KEPT, RECOVERED, SenderReport,
};
