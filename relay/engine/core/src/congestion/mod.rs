//! Congestion control: the feedback from which publishers estimate their bandwidth. Must never know a publication, a codec or an
//! address.
//! Read `arrivals.rs` next.

pub mod arrivals;

pub use arrivals::Arrivals;
