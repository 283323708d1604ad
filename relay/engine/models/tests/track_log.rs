//! The track log. Promised: a reader gets a packet whole and of its own life of the log, or is told why not, truly; an arrival
//! that the head shows names a packet that is there or was overtaken; wherever the writer is killed, what was appended before
//! stays, and its successor goes on; a log that is opened again shows nothing of its former life.
//!
//! Seen to be noticed, each by two scenes or more: in the entry's lock either fence left out, or its stores and loads Relaxed; the
//! highest index stored after the entry. By one: the head stored before the arrival, an entry's epoch not looked at, the fence on either
//! side of the interest word, the one before `why_missing` looks.

use millrace_arena::explore::{mortal, spawn};
use millrace_arena::{
    AppendError, Arena, EntryMeta, KEY_FRAME_START, LogReader, LogWriter, MAX_PACKET, Missing, SenderReport,
};

use super::{PARAMETERS, every_way};

const PUBLICATION: u64 = 7;

fn packet(index: u64) -> [u8; 9] {
    [index as u8; 9]
}

fn append(writer: &mut LogWriter, index: u64, flags: u16) -> Result<(), AppendError> {
    writer.append(index, &EntryMeta { arrived_us: index, flags, ..EntryMeta::default() }, &packet(index))
}

/// A packet that is whole, or why it is missing.
fn read(reader: &LogReader, index: u64) -> Result<(), Missing> {
    let mut out = [0; MAX_PACKET];
    reader.read(index, &mut out).map(|meta| {
        assert_eq!((meta.index, meta.arrived_us, meta.len), (index, index, 9));
        assert_eq!(out[..9], packet(index));
    })
}

/// A log of two packets, full.
fn full() -> (Arena, LogWriter, LogReader) {
    let arena = Arena::in_memory(PARAMETERS);
    let mut writer = LogWriter::open(&arena, 0, PUBLICATION, 0, 2).expect("within the arena");
    let reader = LogReader::open(&arena, 0, PUBLICATION).expect("open");
    assert!(append(&mut writer, 1, KEY_FRAME_START).is_ok() && append(&mut writer, 2, 0).is_ok());
    (arena, writer, reader)
}

/// The writer overwrites the first packet, and is perhaps killed meanwhile.
#[test]
fn a_packet_is_whole_or_overtaken_while_the_writer_comes_round() {
    every_way(|| {
        let (_, mut writer, reader) = full();
        let writing = spawn(move || mortal(|| append(&mut writer, 3, 0).expect("ahead")));
        let seen = read(&reader, 1);
        assert!(matches!(seen, Ok(()) | Err(Missing::Overtaken)), "{seen:?}");
        assert_eq!(read(&reader, 2), Ok(()));
        writing.join();
    });
}

#[test]
fn what_the_head_shows_is_there() {
    every_way(|| {
        let (_, mut writer, reader) = full();
        let writing = spawn(move || mortal(|| append(&mut writer, 3, KEY_FRAME_START).expect("ahead")));
        let head = reader.head();
        for position in reader.oldest(head)..head {
            // The writer may have gone on meanwhile.
            if let Some(index) = reader.arrival(position) {
                assert_eq!(index, position + 1);
                let seen = read(&reader, index);
                assert!(matches!((index, seen), (_, Ok(())) | (1, Err(Missing::Overtaken))), "{index}: {seen:?}");
            }
        }
        if let Some(key_frame) = reader.key_frame() {
            assert_eq!((key_frame.position + 1, key_frame.at_us), (key_frame.index, key_frame.index));
            assert!(matches!(key_frame.index, 1 | 3));
            assert!(key_frame.position < reader.head());
        }
        writing.join();
    });
}

/// The writer is killed anywhere in one packet, and its successor writes it again, or the next, while a reader reads.
fn succeed(index: u64) {
    every_way(move || {
        let (arena, mut writer, reader) = full();
        let following = reader.clone();
        let appended = mortal(|| append(&mut writer, 3, 0).expect("ahead")).is_some();
        drop(writer);
        let succeeding = spawn(move || {
            let mut successor = LogWriter::resume(&arena, 0, PUBLICATION, 1).expect("still open");
            let again = append(&mut successor, 3, 0);
            assert!(
                matches!(again, Ok(()) | Err(AppendError::Duplicate)) && (again.is_err() || !appended),
                "{again:?}"
            );
            append(&mut successor, 4, 0).expect("ahead");
        });
        let seen = read(&following, index);
        // The fourth packet has the second one's cell.
        let may_be_missing = if index == 2 { Missing::Overtaken } else { Missing::Never };
        assert!(seen == Ok(()) || seen == Err(may_be_missing), "{seen:?}");
        succeeding.join();
        assert_eq!((read(&reader, 3), read(&reader, 4)), (Ok(()), Ok(())));
        let head = reader.head();
        // What was whole and not announced yet is there by its number alone: viewers ask for it, as for any packet they miss.
        assert!((3..=4).contains(&head) && reader.arrival(head - 1) == Some(4));
    });
}

#[test]
fn a_successor_goes_on_and_who_reads_the_packet_at_which_the_writer_was_killed_has_it_whole() {
    succeed(3);
}

#[test]
fn a_successor_goes_on_and_who_reads_what_it_overtakes_is_told() {
    succeed(2);
}

/// Another publication opens the log, and is perhaps killed meanwhile, while a reader of the first still reads.
#[test]
fn a_reader_sees_nothing_of_another_life() {
    every_way(|| {
        let (arena, writer, reader) = full();
        drop(writer);
        let opening = spawn(move || {
            mortal(|| {
                let mut writer = LogWriter::open(&arena, 0, PUBLICATION + 1, 0, 1).expect("within the arena");
                writer.append(1, &EntryMeta::default(), &[9; 9]).expect("the first");
            });
            arena
        });
        let seen = read(&reader, 1);
        assert!(matches!(seen, Ok(()) | Err(Missing::Overtaken)), "{seen:?}");
        let (head, arrival) = (reader.head(), reader.arrival(1));
        assert!(matches!((head, arrival), (0 | 2, None | Some(2))), "{head}, {arrival:?}");
        assert!(head == 2 || !reader.is_open(), "a head goes back only when its life is over");
        assert!(reader.key_frame().is_none_or(|key_frame| key_frame.index == 1));
        reader.set_interest(1, true);
        // The log can be opened again, whatever its last opener left.
        let arena = opening.join();
        let mut writer = LogWriter::open(&arena, 0, PUBLICATION + 2, 0, 2).expect("within the arena");
        append(&mut writer, 1, 0).expect("nothing of the former lives is left");
        let reader = LogReader::open(&arena, 0, PUBLICATION + 2).expect("open");
        assert_eq!((reader.head(), read(&reader, 1), read(&reader, 2)), (1, Ok(()), Err(Missing::Never)));
    });
}

/// A reader of the new life comes while it begins: it waits, or has the new life's numbers.
#[test]
fn who_opens_a_log_has_its_capacity_and_head_or_waits() {
    every_way(|| {
        let (arena, writer, _) = full();
        writer.close();
        let opened = arena.clone();
        let opening = spawn(move || {
            let mut writer = LogWriter::open(&opened, 0, PUBLICATION + 1, 1, 4).expect("within the arena");
            append(&mut writer, 1, KEY_FRAME_START).expect("the first");
        });
        assert!(LogReader::open(&arena, 0, PUBLICATION).is_none(), "closed");
        if let Some(reader) = LogReader::open(&arena, 0, PUBLICATION + 1) {
            assert_eq!((reader.capacity(), reader.owner()), (4, 1));
            let head = reader.head();
            assert!(head < 2);
            assert!(reader.arrival(0).is_none_or(|index| index == 1));
            assert!(reader.key_frame().is_none_or(|key_frame| key_frame.index == 1 && key_frame.at_us == 1));
        }
        opening.join();
    });
}

#[test]
fn a_sender_report_is_whole_or_absent_whoever_dies() {
    every_way(|| {
        let report = |n: u64| SenderReport { ntp: n, rtp: n as u32, at_us: n };
        let (arena, mut writer, reader) = full();
        writer.set_sender_report(report(1));
        let reporting = spawn(move || mortal(|| writer.set_sender_report(report(2))).is_some());
        let seen = reader.sender_report();
        assert!(seen.is_none_or(|seen| seen == report(1) || seen == report(2)), "{seen:?}");
        if reporting.join() {
            assert_eq!(reader.sender_report(), Some(report(2)));
        }
        let mut successor = LogWriter::resume(&arena, 0, PUBLICATION, 0).expect("still open");
        successor.set_sender_report(report(3));
        assert_eq!(reader.sender_report(), Some(report(3)));
    });
}

/// A reader sets its interest and then looks; a writer appends and then looks for interest. The writer sees the interest, or the reader
/// has seen the packet.
#[test]
fn no_packet_is_missed_by_who_has_just_said_that_it_reads() {
    every_way(|| {
        let (_, mut writer, reader) = full();
        let writing = spawn(move || {
            append(&mut writer, 3, 0).expect("ahead");
            writer.interested() != 0
        });
        reader.set_interest(1, true);
        let seen = reader.head() == 3;
        assert!(writing.join() || seen);
    });
}
