//! RTP as bytes (RFC 3550, RFC 8285): the header, its extensions, sequence numbers, reception statistics. Must never know
//! a publication, a transport or a codec. Read `header.rs` next; RTCP is in `../rtcp`.

pub mod extensions;
pub mod header;
pub mod reception;
pub mod sequence;

pub use header::{ExtensionBlock, Fields, Header, RtpError};
pub use reception::Reception;
