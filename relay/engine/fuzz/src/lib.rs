//! The functions that fuzzing and `core/tests/corpus.rs` share, one module a target. Each takes any bytes, must not
//! panic and asserts what must hold. To add one: a module, a line in `ALL`, a file in `fuzz_targets/`, a `[[bin]]` and
//! at least one seed in `corpus/`.

pub mod codec_inspect;
pub mod dtls_established;
pub mod dtls_in;
pub mod engine;
pub mod framing;
pub mod rtcp_compound;
pub mod rtp_extensions;
pub mod rtp_header;
pub mod srtp_open;
pub mod srtp_tags;
pub mod stun;

/// A target's name, which is its corpus directory, and its function.
pub type Target = (&'static str, fn(&[u8]));

pub const ALL: &[Target] = &[
    ("stun", stun::run),
    ("srtp_open", srtp_open::run),
    ("srtp_tags", srtp_tags::run),
    ("dtls_in", dtls_in::run),
    ("dtls_established", dtls_established::run),
    ("rtp_header", rtp_header::run),
    ("rtp_extensions", rtp_extensions::run),
    ("rtcp_compound", rtcp_compound::run),
    ("codec_inspect", codec_inspect::run),
    ("framing", framing::run),
    ("engine", engine::run),
];
