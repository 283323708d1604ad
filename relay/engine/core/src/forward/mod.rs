//! From a publisher's packets to each subscriber's: publications write track logs, feeds read them, subscriptions rewrite what
//! feeds read. Must never know an address, a key or a socket: `engine/mod.rs` joins this half to `transport/`. Read
//! `publication/mod.rs` first, then `feed.rs` and `subscription/mod.rs`.

pub mod feed;
pub mod key_frames;
pub mod publication;
pub mod subscription;
