//! The layout of the arena: its parameters, the offsets that follow from them, the header that holds them.
//! Must never touch memory. Read `mapping.rs` next, then `arena.rs`; `relay/contract/layout.py` is this file's other half.
//!
//! ```text
//! bytes                                            what                                     written by
//! 0     header, one page                                                                    whoever makes the arena
//!   +0    u64 magic "MILLRACE"   +8  u32 version   +12 u32 zero
//!   +16   u32 x 8 parameters, in the order of `Parameters`
//!   +48   u64 size of the arena  +56 u64 seed of the address table's hash
//!   +2048: `relay/contract/layout.py`                                                                the master
//! 4096  slot table, 8192 bytes a slot
//!   +0    u64 incarnation   +8 u64 pid   +16 u64 state   +24 to +40: `relay/contract/layout.py`      the master
//!   +48   u64 closed: an operator wants no session there                                   the worker that is asked
//!   +56   u64 down: no worker serves there, and none will in a moment                      the master
//!   +64   u64 engine beat, us  +72 u64 control beat, us  +80, +88: `relay/contract/layout.py`        the slot's worker
//!   +104, +112: `relay/contract/layout.py`                                                             the master
//!   +128  u64 sleeping: 1 while the engine waits and wants its doorbell rung
//!   +192  u64 session records used so far: those from there on were never touched
//!   +4096 u64 x 512 counters                                                                the slot's engine
//! then, each starting on a page: track logs, message rings, hand-over rings, address table, session records (each 2048
//! words and then the record's two copies), the records' owners (a word each)
//! ```
//!
//! All integers are little-endian; all zero but for the header is the valid empty state.

#[cfg(not(target_endian = "little"))]
compile_error!("the arena's layout is little-endian and its words are used in place");

pub const MAGIC: u64 = u64::from_le_bytes(*b"MILLRACE");
/// Raised with every change of a layout; an arena of another version is refused.
pub const VERSION: u32 = 7;

/// A model checker is slow with every word, and gets a smaller arena of the same shape.
const fn sized(real: usize, modelled: usize) -> usize {
    if cfg!(modelled) { modelled } else { real }
}

pub(crate) const PAGE: u64 = sized(4096, 64) as u64;
pub(crate) const SLOT_STRIDE: u64 = sized(8192, 320) as u64;
pub(crate) const SLOT_INCARNATION: u64 = 0;
pub(crate) const SLOT_PID: u64 = 8;
pub(crate) const SLOT_STATE: u64 = 16;
pub(crate) const SLOT_ENGINE_BEAT: u64 = 64;
pub(crate) const SLOT_CONTROL_BEAT: u64 = 72;
pub(crate) const SLOT_SLEEPING: u64 = 128;
pub(crate) const SLOT_SESSIONS: u64 = 192;
pub(crate) const SLOT_COUNTERS: u64 = sized(4096, 256) as u64;
/// Counters in a slot's stats page.
pub const COUNTERS: usize = sized(512, 8);

/// The largest RTP packet that a track log holds: an Ethernet frame's worth of UDP payload.
pub const MAX_PACKET: usize = sized(1472, 16);
pub(crate) const ENTRY_HEADER: u64 = 64;
pub(crate) const ENTRY_STRIDE: u64 = ENTRY_HEADER + MAX_PACKET as u64;
pub(crate) const LOG_HEADER: u64 = 512;

/// The largest datagram that a hand-over ring carries.
pub const MAX_DATAGRAM: usize = sized(1504, 16);
pub(crate) const HANDOVER_CELL_HEADER: u64 = 32;
pub(crate) const HANDOVER_STRIDE: u64 = HANDOVER_CELL_HEADER + MAX_DATAGRAM as u64;
/// Two cache lines in front of every ring: the producer's cursor, the consumer's cursor.
pub(crate) const RING_HEADER: u64 = 128;

pub(crate) const ADDRESS_STRIDE: u64 = 32;
/// Words beside a session's record, for what changes with every packet.
pub const SESSION_WORDS: usize = sized(2048, 2);
/// In front of each of a session record's two copies.
pub(crate) const SESSION_COPY_HEADER: u64 = 64;

/// The sizes that the configuration chooses; everything else follows.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// 1..=64: sets of slots are one 64-bit word.
    pub slots: u32,
    pub logs_per_slot: u32,
    /// Packets in a track log, a power of two.
    pub log_packets: u32,
    /// Cells of the address table, a power of two.
    pub addresses: u32,
    /// Datagrams in the hand-over ring of each ordered pair of slots, a power of two.
    pub handover_packets: u32,
    /// Words in the message ring of each ordered pair of slots, a power of two.
    pub messages: u32,
    pub sessions_per_slot: u32,
    /// Room for one session's record, a multiple of 64.
    pub session_bytes: u32,
}

impl Parameters {
    /// Small enough for tests to make by the dozen.
    pub const SMALL: Parameters = Parameters {
        slots: 4,
        logs_per_slot: 8,
        log_packets: 256,
        addresses: 256,
        handover_packets: 16,
        messages: 64,
        sessions_per_slot: 4,
        session_bytes: 256,
    };

    /// Smaller still, as an interpreter is slow with every byte.
    #[cfg(all(test, not(modelled)))]
    pub(crate) const TINY: Parameters =
        Parameters { logs_per_slot: 1, log_packets: 8, addresses: 256, handover_packets: 4, ..Parameters::SMALL };

    /// An error with the first parameter that is out of bounds. The bounds prevent any offset from overflowing.
    pub fn validate(&self) -> Result<(), String> {
        let within = |name: &str, value: u32, low: u32, high: u32| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(format!("{name} is {value}, not in {low}..={high}"))
            }
        };
        let power = |name: &str, value: u32, low: u32, high: u32| {
            within(name, value, low, high)?;
            if value.is_power_of_two() { Ok(()) } else { Err(format!("{name} is {value}, not a power of two")) }
        };
        within("slots", self.slots, 1, 64)?;
        within("logs_per_slot", self.logs_per_slot, 1, 1 << 16)?;
        power("log_packets", self.log_packets, 4, 1 << 16)?;
        power("addresses", self.addresses, 16, 1 << 24)?;
        power("handover_packets", self.handover_packets, 2, 1 << 16)?;
        power("messages", self.messages, 2, 1 << 16)?;
        within("sessions_per_slot", self.sessions_per_slot, 1, 1 << 16)?;
        within("session_bytes", self.session_bytes, 64, 1 << 20)?;
        if !self.session_bytes.is_multiple_of(64) {
            return Err(format!("session_bytes is {}, not a multiple of 64", self.session_bytes));
        }
        Ok(())
    }

    /// The size of the whole arena in bytes. Most of it is reserved only: memory is used where it is touched.
    pub fn size(&self) -> u64 {
        Layout::new(self).size
    }

    /// The header as it lies at offset 0.
    pub fn header(&self, seed: u64) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        for (field, value) in bytes[16..48].chunks_exact_mut(4).zip(self.fields()) {
            field.copy_from_slice(&value.to_le_bytes());
        }
        bytes[48..56].copy_from_slice(&self.size().to_le_bytes());
        bytes[56..64].copy_from_slice(&seed.to_le_bytes());
        bytes
    }

    pub(crate) fn from_fields(fields: [u32; 8]) -> Parameters {
        let [
            slots,
            logs_per_slot,
            log_packets,
            addresses,
            handover_packets,
            messages,
            sessions_per_slot,
            session_bytes,
        ] = fields;
        Parameters {
            slots,
            logs_per_slot,
            log_packets,
            addresses,
            handover_packets,
            messages,
            sessions_per_slot,
            session_bytes,
        }
    }

    fn fields(&self) -> [u32; 8] {
        [
            self.slots,
            self.logs_per_slot,
            self.log_packets,
            self.addresses,
            self.handover_packets,
            self.messages,
            self.sessions_per_slot,
            self.session_bytes,
        ]
    }
}

/// Byte offsets of the sections, and the strides within them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub slots: u64,
    pub logs: u64,
    pub log_stride: u64,
    pub messages: u64,
    pub message_stride: u64,
    pub handovers: u64,
    pub handover_stride: u64,
    pub addresses: u64,
    pub sessions: u64,
    pub session_stride: u64,
    pub owners: u64,
    pub size: u64,
}

impl Layout {
    pub fn new(parameters: &Parameters) -> Layout {
        let wide = |value: u32| u64::from(value);
        let pairs = wide(parameters.slots) * wide(parameters.slots);
        let log_stride = to_page(LOG_HEADER + wide(parameters.log_packets) * (8 + ENTRY_STRIDE));
        let message_stride = RING_HEADER + (wide(parameters.messages) * 8).next_multiple_of(64);
        let handover_stride = RING_HEADER + wide(parameters.handover_packets) * HANDOVER_STRIDE;
        let session_stride = SESSION_WORDS as u64 * 8 + 2 * (SESSION_COPY_HEADER + wide(parameters.session_bytes));

        let slots = PAGE;
        let logs = slots + wide(parameters.slots) * SLOT_STRIDE;
        let messages = logs + wide(parameters.slots) * wide(parameters.logs_per_slot) * log_stride;
        let handovers = to_page(messages + pairs * message_stride);
        let addresses = to_page(handovers + pairs * handover_stride);
        let sessions = to_page(addresses + wide(parameters.addresses) * ADDRESS_STRIDE);
        let records = wide(parameters.slots) * wide(parameters.sessions_per_slot);
        let owners = to_page(sessions + records * session_stride);
        let size = to_page(owners + records * 8);
        Layout {
            slots,
            logs,
            log_stride,
            messages,
            message_stride,
            handovers,
            handover_stride,
            addresses,
            sessions,
            session_stride,
            owners,
            size,
        }
    }
}

fn to_page(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE)
}

#[cfg(all(test, not(modelled)))]
mod tests {
    use super::*;

    /// `name value` lines, also read by `tests/unit/relay/contract/test_layout.py`.
    const GOLDEN: &str = include_str!("../../../../tests/contract/arena_layout.txt");

    fn golden(name: &str) -> &'static str {
        let prefix = format!("{name} ");
        GOLDEN.lines().find_map(|line| line.strip_prefix(prefix.as_str())).expect("the golden file has this name")
    }

    fn golden_parameters(name: &str) -> Parameters {
        let fields: Vec<u32> = golden(name).split(' ').map(|field| field.parse().expect("a number")).collect();
        Parameters::from_fields(fields.try_into().expect("eight fields"))
    }

    #[test]
    fn both_languages_agree_on_the_size() {
        for which in ["small", "large"] {
            let parameters = golden_parameters(&format!("{which}.parameters"));
            assert_eq!(parameters.validate(), Ok(()));
            assert_eq!(parameters.size().to_string(), golden(&format!("{which}.size")));
        }
    }

    #[test]
    fn both_languages_agree_on_the_header() {
        let header = golden_parameters("small.parameters").header(0x0123_4567_89ab_cdef);
        let hex: String = header.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden("small.header"));
    }

    #[test]
    fn both_languages_agree_on_the_slot_table() {
        let slot = PAGE + 3 * SLOT_STRIDE;
        for (name, offset) in [
            ("incarnation", SLOT_INCARNATION),
            ("pid", SLOT_PID),
            ("state", SLOT_STATE),
            ("engine_beat", SLOT_ENGINE_BEAT),
            ("control_beat", SLOT_CONTROL_BEAT),
            ("counters", SLOT_COUNTERS),
        ] {
            assert_eq!((slot + offset).to_string(), golden(&format!("slot.3.{name}")));
        }
    }

    #[test]
    fn parameters_out_of_bounds_are_refused_with_the_name() {
        for (parameters, name) in [
            (Parameters { slots: 65, ..Parameters::SMALL }, "slots"),
            (Parameters { log_packets: 100, ..Parameters::SMALL }, "log_packets"),
            (Parameters { session_bytes: 100, ..Parameters::SMALL }, "session_bytes"),
            (Parameters { messages: 0, ..Parameters::SMALL }, "messages"),
        ] {
            assert!(parameters.validate().expect_err("out of bounds").starts_with(name));
        }
    }

    #[test]
    fn a_cell_is_whole_cache_lines() {
        assert_eq!(ENTRY_STRIDE, 1536);
        assert_eq!(HANDOVER_STRIDE, 1536);
    }
}
