//! The packet path: everything that decides about packets. It is told the time and handed bytes, and must never know a socket, a
//! clock, a thread or Python. Read `engine/mod.rs` next, where the transport and the forwarding half meet.
#![forbid(unsafe_code)]

pub mod codec;
pub mod command;
pub mod config;
pub mod congestion;
pub mod deadlines;
pub mod drop;
pub mod engine;
pub mod event;
mod forgiving;
pub mod forward;
mod id_map;
pub mod message;
pub mod outbox;
pub mod rtcp;
pub mod rtp;
pub mod stats;
pub mod time;
pub mod transport;
