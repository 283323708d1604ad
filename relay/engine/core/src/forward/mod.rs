//! From a publisher's packets to each subscriber's: publications write track logs, feeds read them, subscriptions rewrite.
//! Must never know an address, a key or a socket: `engine/mod.rs` joins this half to `transport/`. Read `publication.rs` first,
//! then `feed.rs` and `subscription.rs`.

pub mod attachment;
pub mod continuity;
pub mod feed;
pub mod frame_ids;
pub mod incoming;
pub mod key_frames;
pub mod layers;
pub mod nack;
pub mod numbering;
pub mod playout;
pub mod publication;
pub mod repairs;
pub mod reports;
pub mod rewrite;
pub mod streams;
pub mod subscription;
pub mod timeline;
