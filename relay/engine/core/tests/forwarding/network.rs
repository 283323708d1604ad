//! Random networks: whatever is lost, delayed, doubled or probed between publisher and relay and between relay and viewers,
//! what goes out is what came in, in the same order, under numbers that tell the truth. Read `world.rs` for the cast.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use millrace_core::command::MediaKind;
use millrace_core::forward::publication::Publication;
use millrace_core::rtp::Header;
use proptest::prelude::*;

use crate::world::{Source, VIDEO, Viewer, arena, feedback, ms, number, publish, rtx};

/// What happens to one packet on its way to the relay.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Late(u8),
    Twice,
    Lost,
}

#[derive(Clone, Copy, Debug)]
enum Sent {
    Frame { packets: u8, key: bool },
    Padding,
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        20 => Just(Fate::Arrives),
        3 => (1u8..30).prop_map(Fate::Late),
        1 => Just(Fate::Twice),
        2 => Just(Fate::Lost),
    ]
}

fn sents() -> impl Strategy<Value = Sent> {
    prop_oneof![
        8 => (1u8..6, prop::bool::weighted(0.1)).prop_map(|(packets, key)| Sent::Frame { packets, key }),
        2 => Just(Sent::Padding),
    ]
}

/// Carries a stream through a random network; answers the relay's NACKs when `answers`.
struct Uplink {
    publication: Publication,
    source: Source,
    /// Due times in milliseconds and packets under way.
    under_way: VecDeque<(u64, bool, Vec<u8>)>,
    packets: BTreeMap<u16, Vec<u8>>,
    paddings: BTreeSet<u64>,
    rtx_sequence: u16,
    answers: bool,
    fates: VecDeque<Fate>,
}

impl Uplink {
    fn send(&mut self, now: u64, packet: Vec<u8>, is_rtx: bool) {
        let fate = self.fates.pop_front().unwrap_or(Fate::Arrives);
        if let Some(fate) = self.fates.front().copied() {
            self.fates.push_back(fate);
        }
        match fate {
            Fate::Arrives => self.under_way.push_back((now, is_rtx, packet)),
            Fate::Late(by) => self.under_way.push_back((now + u64::from(by), is_rtx, packet)),
            Fate::Twice => {
                self.under_way.push_back((now, is_rtx, packet.clone()));
                self.under_way.push_back((now + 3, is_rtx, packet));
            }
            Fate::Lost => {}
        }
    }

    fn make(&mut self, now: u64, sent: Sent) {
        let packets = match sent {
            Sent::Frame { packets, key } => self.source.frame(key, packets.into()),
            Sent::Padding => {
                self.paddings.insert(self.source.made);
                vec![self.source.padding()]
            }
        };
        for packet in packets {
            let sequence = Header::parse(&packet).unwrap().sequence;
            self.packets.insert(sequence, packet.clone());
            self.send(now, packet, false);
        }
    }

    fn tick(&mut self, now: u64) {
        for (due, is_rtx, packet) in std::mem::take(&mut self.under_way) {
            if due <= now {
                // Duplicates and what is too old are refused, and that is right.
                let _ = self.publication.handle_rtp(ms(now), 0, is_rtx, &packet);
            } else {
                self.under_way.push_back((due, is_rtx, packet));
            }
        }
        for sequence in feedback(&mut self.publication, ms(now)).nacks {
            let packet = self.packets[&sequence].clone();
            if self.answers && number(&packet).is_some() {
                self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
                self.send(now + 10, rtx(&packet, 99, self.rtx_sequence), true);
            } else if self.answers {
                self.send(now + 10, packet, false);
            }
        }
    }
}

fn check(viewer: &Viewer, uplink: &Uplink) -> Result<(), TestCaseError> {
    prop_assert_eq!(viewer.sent.len() + viewer.drops.len(), viewer.offered);
    prop_assert_eq!(viewer.overtaken, 0);
    let numbers = viewer.numbers();
    prop_assert_eq!(numbers.len(), viewer.sent.len(), "an index went out twice");
    let shift = viewer.sent.first().map(|(_, packet)| shift_of(packet, uplink));
    for (_, packet) in viewer.sent.iter().filter(|(_, packet)| number(packet).is_some()) {
        let original = original(packet, uplink);
        let (header, was) = (Header::parse(packet).unwrap(), Header::parse(original).unwrap());
        prop_assert_eq!(header.payload(packet), was.payload(original));
        prop_assert_eq!(header.marker, was.marker);
        prop_assert_eq!(Some(shift_of(packet, uplink)), shift);
    }
    let order: Vec<(u64, u64)> = numbers.into_iter().filter_map(|(index, number)| Some((index, number?))).collect();
    for pair in order.windows(2) {
        let ((index, number), (next_index, next_number)) = (pair[0], pair[1]);
        prop_assert!(number < next_number, "out of order");
        let probes = uplink.paddings.range(number..next_number).count() as u64;
        let (outgoing, source) = (next_index - index, next_number - number);
        prop_assert!(
            outgoing <= source && outgoing >= source - probes,
            "{} for {}, {} probes",
            outgoing,
            source,
            probes
        );
    }
    Ok(())
}

fn original<'a>(packet: &[u8], uplink: &'a Uplink) -> &'a [u8] {
    let number = number(packet).unwrap();
    let first = uplink.source.sequence.wrapping_sub(uplink.source.made as u16);
    &uplink.packets[&first.wrapping_add(number as u16)]
}

fn shift_of(packet: &[u8], uplink: &Uplink) -> u32 {
    let was = Header::parse(original(packet, uplink)).unwrap();
    Header::parse(packet).unwrap().timestamp.wrapping_sub(was.timestamp)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_out_is_what_came_in_in_the_same_order(
        sents in prop::collection::vec(sents(), 1..150),
        fates in prop::collection::vec(fates(), 1..60),
        (sequence, timestamp, answers, joins_at) in (any::<u16>(), any::<u32>(), any::<bool>(), 0usize..100),
    ) {
        let arena = arena(1024);
        let publish = publish(1, VIDEO, &[0]);
        let publication = Publication::new(&publish, &arena, 0).unwrap();
        let mut uplink = Uplink {
            publication,
            source: Source::new(7, VIDEO, sequence, timestamp),
            under_way: VecDeque::new(),
            packets: BTreeMap::new(),
            paddings: BTreeSet::new(),
            rtx_sequence: 0,
            answers,
            fates: fates.into(),
        };
        let mut viewers = vec![Viewer::new(0, MediaKind::Video, None)];
        viewers[0].attach(ms(0), &arena, &publish);
        let steps = sents.len();
        let mut now = 0;
        for (step, sent) in sents.into_iter().enumerate() {
            if step == joins_at {
                let mut second = Viewer::new(1, MediaKind::Video, Some(5));
                second.attach(ms(now), &arena, &publish);
                viewers.push(second);
            }
            uplink.make(now, sent);
            for _ in 0..10 {
                uplink.tick(now);
                now += 1;
            }
            viewers.iter_mut().for_each(|viewer| viewer.pull(ms(now)));
        }
        for _ in 0..1_500 {
            uplink.tick(now);
            now += 1;
        }
        for viewer in &mut viewers {
            viewer.pull(ms(now));
            check(viewer, &uplink)?;
        }
        let report = uplink.publication.report();
        prop_assert!(report.packets as usize <= uplink.packets.len());
        prop_assert_eq!(uplink.publication.next_deadline().is_none(), report.packets == 0, "{} steps", steps);
    }

    #[test]
    fn a_viewer_that_asks_gets_everything_that_was_sent_to_it(
        lost in prop::collection::vec(prop::bool::weighted(0.2), 1..80),
        sents in prop::collection::vec(sents(), 1..80),
        has_rtx: bool,
        sequence: u16,
    ) {
        let arena = arena(1024);
        let publish = publish(1, VIDEO, &[0]);
        let mut publication = Publication::new(&publish, &arena, 0).unwrap();
        let mut viewer = Viewer::new(1, MediaKind::Video, has_rtx.then_some(5));
        viewer.attach(ms(0), &arena, &publish);
        let mut source = Source::new(7, VIDEO, sequence, 0);
        for (step, sent) in sents.into_iter().enumerate() {
            let packets = match sent {
                Sent::Frame { packets, key } => source.frame(key || step == 0, packets.into()),
                Sent::Padding => vec![source.padding()],
            };
            packets.iter().for_each(|packet| publication.handle_rtp(ms(step as u64 * 30), 0, false, packet).unwrap());
            viewer.pull(ms(step as u64 * 30));
        }
        let sent = viewer.sent.clone();
        let mut have: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        let mut missing: Vec<u16> = vec![];
        for (at, (index, packet)) in sent.iter().enumerate() {
            if lost[at % lost.len()] && at + 1 < sent.len() {
                missing.push(*index as u16);
            } else {
                have.insert(*index as u16, packet.clone());
            }
        }
        for round in 0..20 {
            if missing.is_empty() {
                break;
            }
            for (index, packet) in viewer.nack(ms(10_000 + round * 100), &missing) {
                let header = Header::parse(&packet).unwrap();
                let payload = header.payload(&packet);
                let sequence = if has_rtx { u16::from_be_bytes([payload[0], payload[1]]) } else { index as u16 };
                have.insert(sequence, packet);
            }
            missing.retain(|sequence| !have.contains_key(sequence));
        }
        prop_assert!(missing.is_empty(), "never came: {:?}", missing);
        for (index, packet) in &sent {
            let (was, header) = (Header::parse(packet).unwrap(), Header::parse(&have[&(*index as u16)]).unwrap());
            let payload = header.payload(&have[&(*index as u16)]);
            let skip = if header.ssrc == was.ssrc { 0 } else { 2 };
            prop_assert_eq!(was.payload(packet), &payload[skip..]);
            prop_assert_eq!(was.timestamp, header.timestamp);
        }
    }

    #[test]
    fn whatever_feeds_a_stream_it_goes_on_without_a_gap_or_a_step_back(
        steps in prop::collection::vec((0u8..12, 0usize..2, 1u64..3_000), 1..80),
        start: u16,
    ) {
        let arena = arena(256);
        let publishes = [publish(1, VIDEO, &[0, 1]), publish(2, VIDEO, &[2, 3])];
        let mut publications = publishes.each_ref().map(|publish| Publication::new(publish, &arena, 0).unwrap());
        let mut sources: Vec<Source> =
            (0..4).map(|at| Source::new(10 + at, VIDEO, start.wrapping_mul(at as u16 + 1), at * 1_000_000_007)).collect();
        let mut viewer = Viewer::new(1, MediaKind::Video, None);
        let mut now = 0;
        for (what, which, pause) in steps {
            match what {
                0 => viewer.subscription.detach(),
                1 | 2 => viewer.attach(ms(now), &arena, &publishes[which]),
                3 => {
                    let old = &sources[which];
                    sources[which] = Source::new(old.ssrc + 10, VIDEO, old.sequence / 2, old.timestamp.rotate_left(7));
                    now += pause;
                }
                _ => {
                    for (publication, encoding) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        // What 3 and 4 bits of the dice say: who sends, and who sends a key frame.
                        if (pause >> (publication * 2 + encoding)) & 1 == 0 {
                            continue;
                        }
                        let key = (pause >> (4 + publication * 2 + encoding)) & 1 == 0;
                        for packet in sources[publication * 2 + encoding].frame(key, 2) {
                            publications[publication].handle_rtp(ms(now), encoding, false, &packet).unwrap();
                        }
                    }
                    now += 30;
                }
            }
            viewer.pull(ms(now));
        }
        prop_assert_eq!(viewer.sent.len() + viewer.drops.len(), viewer.offered);
        for pair in viewer.sent.windows(2) {
            prop_assert_eq!(pair[1].0, pair[0].0 + 1);
            let timestamps = [&pair[0].1, &pair[1].1].map(|packet| Header::parse(packet).unwrap().timestamp);
            prop_assert!(timestamps[1].wrapping_sub(timestamps[0]) as i32 >= 0, "{:?}", timestamps);
        }
    }
}
