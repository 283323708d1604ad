//! The packet path. Owns what decides about packets; is told the time and handed bytes, and must never know a
//! socket, a clock, a thread or Python. Read `engine/mod.rs` next: it is where the transport and forwarding halves meet.
#![forbid(unsafe_code)]

pub mod codec;
pub mod command;
pub mod config;
pub mod congestion;
pub mod deadlines;
pub mod drop;
pub mod engine;
pub mod event;
pub mod forward;
mod id_map;
pub mod message;
pub mod outbox;
pub mod rtcp;
pub mod rtp;
pub mod stats;
pub mod time;
pub mod transport;
