//! Congestion control: what publishers are told so that theirs works. Must never know a publication, a codec or an address.
//! Read `arrivals.rs` next.

pub mod arrivals;

pub use arrivals::Arrivals;
