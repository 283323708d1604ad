//! Checks DTLS datagrams before OpenSSL sees them, and refuses what would make it hold memory: too many bytes, messages that claim
//! to be huge, records of an epoch that it has to store for later. Owns these bounds; must never store a byte or know a key.
//! Read `handshake.rs` next, which asks.

use crate::drop::Drop;

/// Bytes that one handshake may pass to OpenSSL: ten times a full client flight with an RSA chain.
const MAX_BYTES: usize = 64 * 1024;
/// Datagrams that one handshake may pass to OpenSSL: the same flights in fragments of a hundred bytes, retransmitted.
const MAX_DATAGRAMS: usize = 256;
/// Bytes that a handshake message may claim. OpenSSL allocates a message whole as soon as its first fragment claims a length, and
/// up to ten messages ahead. A chain of three RSA certificates stays under 8 KiB.
const MAX_MESSAGE: usize = 16 * 1024;
/// Records of the coming epoch, which OpenSSL stores, 16 KiB each, until there are keys. A flight has one such record; the rest is
/// room for its retransmissions.
const MAX_EARLY_RECORDS: usize = 16;

/// RFC 6347 section 4.1.
pub(super) const RECORD_HEADER: usize = 13;
/// RFC 6347 section 4.2.2.
const MESSAGE_HEADER: usize = 12;
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// What one handshake has used up of its bounds.
#[derive(Debug, Default)]
pub(super) struct RecordLimits {
    bytes: usize,
    datagrams: usize,
    early_records: usize,
}

impl RecordLimits {
    /// An error when OpenSSL must not see this datagram.
    pub fn admit(&mut self, datagram: &[u8]) -> Result<(), Drop> {
        let mut early = 0;
        for record in records(datagram) {
            let record = record?;
            if record.epoch > 0 {
                early += 1;
            } else if record.kind == HANDSHAKE && !messages_are_small(record.body) {
                return Err(Drop::DtlsUnexpected);
            }
        }
        let fits = self.bytes + datagram.len() <= MAX_BYTES
            && self.datagrams < MAX_DATAGRAMS
            && self.early_records + early <= MAX_EARLY_RECORDS;
        if !fits {
            return Err(Drop::DtlsUnexpected);
        }
        self.bytes += datagram.len();
        self.datagrams += 1;
        self.early_records += early;
        Ok(())
    }
}

pub(super) struct Record<'a> {
    pub kind: u8,
    pub version: [u8; 2],
    pub epoch: u16,
    /// Epoch and sequence number.
    pub number: u64,
    pub body: &'a [u8],
}

/// The records of a datagram; after the first that does not parse there is an error and nothing more.
pub(super) fn records(mut rest: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Drop>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = split_record(rest);
        rest = record.as_ref().map_or(&[], |(_, after)| *after);
        Some(record.map(|(record, _)| record).ok_or(Drop::DtlsUnexpected))
    })
}

/// Whether there is an alert in it that nothing protects.
pub(super) fn has_plain_alert(datagram: &[u8]) -> bool {
    records(datagram).map_while(Result::ok).any(|record| record.kind == ALERT && record.epoch == 0)
}

fn split_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let header = bytes.get(..RECORD_HEADER)?;
    let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
    let body = bytes.get(RECORD_HEADER..RECORD_HEADER + len)?;
    let known = (CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&header[0]) && header[1] == 0xFE;
    let number = header[3..11].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let record =
        Record { kind: header[0], version: [header[1], header[2]], epoch: (number >> 48) as u16, number, body };
    known.then_some((record, &bytes[RECORD_HEADER + len..]))
}

/// True when every fragment in an unencrypted handshake record claims a message within the bound.
fn messages_are_small(mut body: &[u8]) -> bool {
    let u24 = |bytes: &[u8]| usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
    while !body.is_empty() {
        let Some(header) = body.get(..MESSAGE_HEADER) else { return false };
        let (message, fragment) = (u24(&header[1..4]), u24(&header[9..12]));
        if message > MAX_MESSAGE {
            return false;
        }
        let Some(after) = body.get(MESSAGE_HEADER + fragment..) else { return false };
        body = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u8, epoch: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0xFE, 0xFD];
        bytes.extend(epoch.to_be_bytes());
        bytes.extend([0; 6]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn fragment(message_len: u32, len: u8) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend(&message_len.to_be_bytes()[1..]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, len]);
        bytes.extend(vec![0; usize::from(len)]);
        bytes
    }

    #[test]
    fn a_small_fragment_of_a_huge_message_is_refused() {
        let mut limits = RecordLimits::default();
        assert_eq!(limits.admit(&record(HANDSHAKE, 0, &fragment(500, 100))), Ok(()));
        assert_eq!(limits.admit(&record(HANDSHAKE, 0, &fragment(100_000, 100))), Err(Drop::DtlsUnexpected));
    }

    #[test]
    fn records_that_must_be_kept_for_later_are_counted() {
        let mut limits = RecordLimits::default();
        let two = [record(HANDSHAKE, 1, &[0; 40]), record(HANDSHAKE, 1, &[0; 40])].concat();
        for _ in 0..MAX_EARLY_RECORDS / 2 {
            assert_eq!(limits.admit(&two), Ok(()));
        }
        assert_eq!(limits.admit(&two), Err(Drop::DtlsUnexpected));
        assert_eq!(limits.admit(&record(HANDSHAKE, 0, &fragment(50, 50))), Ok(()));
    }

    #[test]
    fn bytes_and_datagrams_run_out() {
        let mut limits = RecordLimits::default();
        let large = record(CHANGE_CIPHER_SPEC, 0, &[0; 1_187]);
        let admitted = (0..100).filter(|_| limits.admit(&large).is_ok()).count();
        assert_eq!(admitted, MAX_BYTES / large.len());
        let mut limits = RecordLimits::default();
        let small = record(CHANGE_CIPHER_SPEC, 0, &[1]);
        let admitted = (0..1_000).filter(|_| limits.admit(&small).is_ok()).count();
        assert_eq!(admitted, MAX_DATAGRAMS);
    }

    #[test]
    fn a_torn_record_is_refused() {
        let whole = record(CHANGE_CIPHER_SPEC, 0, &[1]);
        for len in 1..whole.len() {
            assert_eq!(RecordLimits::default().admit(&whole[..len]), Err(Drop::DtlsUnexpected));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 20u8..24) {
            let _ = RecordLimits::default().admit(&bytes);
            let _ = RecordLimits::default().admit(&record(kind, 0, &bytes));
            assert!(records(&bytes).map_while(Result::ok).count() <= bytes.len() / RECORD_HEADER);
        }
    }
}
