//! A track log as its users see it: one writer, readers on other workers, lives that follow each other.

use std::collections::HashMap;
use std::thread;

use millrace_arena::{
    AppendError, Arena, EntryMeta, KEY_FRAME_START, KeyFrame, LogReader, LogWriter, MAX_PACKET, Missing, OpenError,
    Parameters, SenderReport,
};
use proptest::prelude::*;

const PUBLICATION: u64 = 0xfeed;

fn arena() -> Arena {
    arena_of(64)
}

fn arena_of(log_packets: u32) -> Arena {
    Arena::in_memory(Parameters {
        slots: 2,
        logs_per_slot: 2,
        log_packets,
        handover_packets: 2,
        sessions_per_slot: 1,
        ..Parameters::SMALL
    })
}

fn meta(index: u64) -> EntryMeta {
    EntryMeta { index, arrived_us: index * 10, payload_offset: 12, ..EntryMeta::default() }
}

/// A packet whose every byte follows from its index, so that a torn copy shows.
fn packet(index: u64) -> Vec<u8> {
    vec![index as u8; 1 + (index as usize * 37) % MAX_PACKET]
}

fn pair(arena: &Arena, capacity: u32) -> (LogWriter, LogReader) {
    let writer = LogWriter::open(arena, 1, PUBLICATION, 0, capacity).expect("within the arena");
    (writer, LogReader::open(arena, 1, PUBLICATION).expect("just opened"))
}

fn read(reader: &LogReader, index: u64) -> Result<Vec<u8>, Missing> {
    let mut out = [0; MAX_PACKET];
    reader.read(index, &mut out).map(|meta| out[..usize::from(meta.len)].to_vec())
}

#[test]
fn a_packet_is_read_as_it_was_appended() {
    let arena = arena();
    let (mut writer, reader) = pair(&arena, 64);
    let meta = EntryMeta { flags: KEY_FRAME_START, spatial: 2, temporal: 1, ..meta(65_536) };
    assert_eq!(writer.append(65_536, &meta, &[9; 700]), Ok(()));
    let mut out = [0; MAX_PACKET];
    assert_eq!(reader.read(65_536, &mut out), Ok(EntryMeta { len: 700, ..meta }));
    assert_eq!(out[..700], [9; 700]);
    assert_eq!(
        (reader.head(), reader.arrival(0), reader.arrival(1), reader.highest()),
        (1, Some(65_536), None, 65_536)
    );
    assert_eq!(reader.key_frame(), Some(KeyFrame { position: 0, index: 65_536, at_us: 655_360 }));
}

#[test]
fn what_does_not_belong_into_the_log_is_refused() {
    let arena = arena();
    let (mut writer, reader) = pair(&arena, 16);
    assert_eq!(writer.append(100, &meta(100), &[0; MAX_PACKET + 1]), Err(AppendError::TooLarge));
    assert_eq!(writer.append(100, &meta(100), &[1]), Ok(()));
    assert_eq!(writer.append(100, &meta(100), &[2]), Err(AppendError::Duplicate));
    assert_eq!(writer.append(85, &meta(85), &[3]), Ok(()));
    assert_eq!(writer.append(84, &meta(84), &[4]), Err(AppendError::TooOld));
    assert_eq!((reader.head(), read(&reader, 100), read(&reader, 85)), (2, Ok(vec![1]), Ok(vec![3])));
}

#[test]
fn numbers_beyond_the_arena_are_refused() {
    let arena = arena();
    let open = |log, capacity| LogWriter::open(&arena, log, 1, 0, capacity).map(|_| ());
    assert_eq!(open(4, 64), Err(OpenError::NoSuchLog));
    assert_eq!(open(0, 128), Err(OpenError::Capacity));
    assert_eq!(open(0, 0), Err(OpenError::Capacity));
    assert_eq!(open(0, 24), Err(OpenError::Capacity));
    assert!(LogReader::open(&arena, 4, 1).is_none());
}

#[test]
fn an_overwritten_packet_was_overtaken_and_a_lost_one_never_came() {
    let arena = arena();
    let (mut writer, reader) = pair(&arena, 16);
    for index in (200..240).filter(|index| *index != 230) {
        assert_eq!(writer.append(index, &meta(index), &packet(index)), Ok(()));
    }
    assert_eq!(read(&reader, 210), Err(Missing::Overtaken));
    assert_eq!(read(&reader, 223), Err(Missing::Overtaken));
    assert_eq!(read(&reader, 224), Ok(packet(224)));
    assert_eq!(read(&reader, 230), Err(Missing::Never));
    assert_eq!(read(&reader, 240), Err(Missing::Never));
    assert_eq!((reader.arrival(reader.oldest(reader.head()) - 1), reader.head()), (None, 39));
    assert_eq!(reader.arrival(reader.oldest(reader.head())), Some(224));
}

#[test]
fn the_newest_key_frame_is_the_one_with_the_highest_index() {
    let arena = arena();
    let (mut writer, reader) = pair(&arena, 64);
    assert_eq!(reader.key_frame(), None);
    for index in [50, 60, 55] {
        let key = EntryMeta { flags: KEY_FRAME_START, ..meta(index) };
        assert_eq!(writer.append(index, &key, &[1]), Ok(()));
    }
    assert_eq!(reader.key_frame(), Some(KeyFrame { position: 1, index: 60, at_us: 600 }));
}

#[test]
fn a_new_life_of_a_log_shows_nothing_of_the_old() {
    let arena = arena();
    let (mut writer, old) = pair(&arena, 64);
    let report = SenderReport { ntp: u64::MAX, rtp: u32::MAX, at_us: 3 };
    writer.set_sender_report(report);
    let key = EntryMeta { flags: KEY_FRAME_START, ..meta(7) };
    assert_eq!(writer.append(7, &key, &[7]), Ok(()));
    old.set_interest(1, true);
    assert_eq!((writer.interested(), old.sender_report(), old.owner()), (2, Some(report), 0));

    writer.close();
    assert!(!old.is_open());
    assert_eq!((old.head(), read(&old, 7)), (1, Ok(vec![7])), "what is there stays readable until the next life");
    assert!(LogReader::open(&arena, 1, PUBLICATION).is_none());

    let writer = LogWriter::open(&arena, 1, 2, 1, 64).expect("within the arena");
    let new = LogReader::open(&arena, 1, 2).expect("just opened");
    assert_eq!((new.head(), read(&new, 7), new.key_frame(), new.sender_report()), (0, Err(Missing::Never), None, None));
    assert_eq!((writer.interested(), new.owner()), (0, 1));
    assert_eq!((old.head(), old.arrival(0), old.key_frame(), old.is_open()), (0, None, None, false));
    old.set_interest(0, true);
    assert_eq!(writer.interested(), 0);
    assert!(LogReader::open(&arena, 1, PUBLICATION).is_none());
}

#[test]
fn a_successor_goes_on_where_the_writer_stopped() {
    let arena = arena();
    let (mut writer, reader) = pair(&arena, 16);
    for index in 10..40 {
        assert_eq!(writer.append(index, &meta(index), &packet(index)), Ok(()));
    }
    drop(writer);
    assert!(LogWriter::resume(&arena, 1, PUBLICATION + 1, 1).is_none());
    let mut successor = LogWriter::resume(&arena, 1, PUBLICATION, 1).expect("still open");
    assert_eq!((successor.head(), successor.highest(), reader.owner()), (30, 39, 1));
    assert_eq!(successor.append(39, &meta(39), &[0]), Err(AppendError::Duplicate));
    assert_eq!(successor.append(40, &meta(40), &packet(40)), Ok(()));
    assert_eq!((reader.arrival(30), read(&reader, 40), read(&reader, 30)), (Some(40), Ok(packet(40)), Ok(packet(30))));
    successor.close();
    assert!(LogWriter::resume(&arena, 1, PUBLICATION, 1).is_none());
}

/// One writer at full speed on a ring of few entries, readers that keep falling behind: no packet is ever torn.
#[test]
fn readers_that_are_overtaken_never_see_a_torn_packet() {
    let last: u64 = if cfg!(miri) { 60 } else { 150_000 };
    let arena = arena_of(16);
    let (mut writer, reader) = pair(&arena, 8);
    let seen: Vec<u64> = thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let reader = reader.clone();
                scope.spawn(move || follow(&reader, last))
            })
            .collect();
        for index in 1..=last {
            assert_eq!(writer.append(index, &meta(index), &packet(index)), Ok(()));
            if cfg!(miri) || index % 64 == 0 {
                thread::yield_now();
            }
        }
        readers.into_iter().map(|reader| reader.join().expect("no torn packet")).collect()
    });
    assert!(seen.iter().all(|&seen| seen > 0), "each reader read something whole: {seen:?}");
}

fn follow(reader: &LogReader, last: u64) -> u64 {
    let (mut position, mut seen, mut out) = (0, 0, [0; MAX_PACKET]);
    while position < last {
        let head = reader.head();
        position = position.max(reader.oldest(head));
        if position == head {
            thread::yield_now();
        }
        while position < head {
            if let Some(index) = reader.arrival(position) {
                assert_eq!(index, position + 1, "arrivals are in order");
                match reader.read(index, &mut out) {
                    Ok(meta) => {
                        assert_eq!((meta.index, meta.arrived_us), (index, index * 10));
                        assert_eq!(out[..usize::from(meta.len)], packet(index)[..], "packet {index} is whole");
                        seen += 1;
                    }
                    Err(missing) => assert_eq!(missing, Missing::Overtaken),
                }
            }
            position += 1;
        }
    }
    seen
}

/// Readers of one life while the log is opened again and again for others: nothing foreign is ever returned.
#[test]
fn a_reader_never_sees_a_packet_of_another_life() {
    let lives: u64 = if cfg!(miri) { 8 } else { 4_000 };
    let arena = arena_of(16);
    thread::scope(|scope| {
        let reading = arena.clone();
        let reader = scope.spawn(move || {
            let mut read = 0;
            let mut out = [0; MAX_PACKET];
            for life in (1..=lives).cycle() {
                let Some(reader) = LogReader::open(&reading, 0, life) else {
                    if LogReader::open(&reading, 0, lives + 1).is_some() {
                        return read;
                    }
                    thread::yield_now();
                    continue;
                };
                for position in 0..reader.head() {
                    let Some(index) = reader.arrival(position) else { break };
                    assert_eq!(index % lives, life % lives, "an arrival of this life");
                    if let Ok(meta) = reader.read(index, &mut out) {
                        assert_eq!(out[..usize::from(meta.len)], [life as u8; 100][..]);
                        read += 1;
                    }
                }
            }
            read
        });
        for life in 1..=lives {
            let mut writer = LogWriter::open(&arena, 0, life, 0, 16).expect("within the arena");
            for n in 0..10 {
                let index = n * lives + life;
                assert_eq!(writer.append(index, &meta(index), &[life as u8; 100]), Ok(()));
            }
            thread::yield_now();
            if life % 2 == 0 {
                writer.close();
            }
        }
        LogWriter::open(&arena, 0, lives + 1, 0, 16).expect("within the arena");
        reader.join().expect("nothing foreign");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 200 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against the plainest model: cells by index, and the order in which packets were accepted.
    #[test]
    fn a_log_is_the_last_packets_by_index_and_by_arrival(indexes in proptest::collection::vec(100u64..180, 1..150)) {
        let arena = arena();
        let (mut writer, reader) = pair(&arena, 16);
        let (mut cells, mut arrivals, mut highest) = (HashMap::new(), Vec::new(), 0);
        for (n, index) in indexes.into_iter().enumerate() {
            let bytes = vec![n as u8; n % 90];
            let expected = if index + 16 <= highest {
                Err(AppendError::TooOld)
            } else if cells.get(&(index % 16)).is_some_and(|(held, _)| *held == index) {
                Err(AppendError::Duplicate)
            } else {
                Ok(())
            };
            prop_assert_eq!(writer.append(index, &meta(index), &bytes), expected);
            if expected.is_ok() {
                highest = highest.max(index);
                cells.insert(index % 16, (index, bytes));
                arrivals.push(index);
            }
        }
        prop_assert_eq!((reader.head(), reader.highest()), (arrivals.len() as u64, highest));
        for index in 90..190 {
            let expected = match cells.get(&(index % 16)) {
                Some((held, bytes)) if *held == index => Ok(bytes.clone()),
                _ if index + 16 <= highest => Err(Missing::Overtaken),
                _ => Err(Missing::Never),
            };
            prop_assert_eq!(read(&reader, index), expected);
        }
        for (position, index) in arrivals.iter().enumerate() {
            let known = position + 16 > arrivals.len();
            prop_assert_eq!(reader.arrival(position as u64), known.then_some(*index));
        }
    }
}
