//! Publications, logs, feeds and subscriptions together: continuity over every change of source, repairs both ways, and
//! that nothing is lost or sent twice on the way. Must never wait for a real clock. Read `world.rs` for the cast.
#![allow(clippy::unwrap_used, reason = "clippy knows test functions, and not the helpers of a test")]

mod codecs;
mod network;
mod world;

use millrace_core::command::{CodecName, MediaKind};
use millrace_core::drop::Drop;
use millrace_core::forward::key_frames::Wish;
use millrace_core::forward::publication::Publication;
use millrace_core::forward::subscription::Clock;
use millrace_core::rtcp::{self, Packet, ReportBlock, SenderInfo, Writer};
use millrace_core::rtp::{Header, extensions};
use millrace_core::time::Span;
use world::{AUDIO, PLAYOUT_DELAY, Source, VIDEO, Viewer, arena, feedback, ms, number, publish, rtx};

/// Sends whole frames, 30 ms each, the first of them a key frame when `key`.
fn play(publication: &mut Publication, encoding: usize, source: &mut Source, start: u64, frames: u64, key: bool) {
    for frame in 0..frames {
        for packet in source.frame(key && frame == 0, 2) {
            publication.handle_rtp(ms(start + frame * 30), encoding, false, &packet).unwrap();
        }
    }
}

fn waits_for(log: u32) -> Wish {
    Wish { log, sees_nothing: true }
}

fn is_continuous(viewer: &Viewer) -> bool {
    viewer.sent.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1)
}

#[test]
fn late_joiner_starts_at_the_last_key_frame() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut source = Source::new(7, VIDEO, 65_530, 0);
    play(&mut publication, 0, &mut source, 0, 3, true);
    play(&mut publication, 0, &mut source, 90, 5, true);
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(250), &arena, &publish);
    assert_eq!(viewer.numbers().into_values().flatten().collect::<Vec<_>>(), (6..16).collect::<Vec<_>>());
    assert_eq!(viewer.wanted(), None);
    play(&mut publication, 0, &mut source, 240, 2, false);
    viewer.pull(ms(300));
    assert_eq!(viewer.sent.len(), 14);
    assert!(is_continuous(&viewer));
}

#[test]
fn late_joiner_starts_where_timestamps_never_move() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut source = Source::new(7, VIDEO, 10, 900);
    let mut frame = |publication: &mut Publication, at: u64, key: bool| {
        source.timestamp = 900;
        for packet in source.frame(key, 2) {
            publication.handle_rtp(ms(at), 0, false, &packet).unwrap();
        }
    };
    for at in 0..60 {
        frame(&mut publication, at * 30, at % 40 == 0);
    }
    assert_eq!(publication.report().key_frames, 2);
    let mut late = Viewer::new(1, MediaKind::Video, None);
    late.attach(ms(1_800), &arena, &publish);
    assert_eq!((late.sent.len(), late.wanted()), (0, Some(0)), "the last one is too old");
    frame(&mut publication, 1_810, true);
    late.pull(ms(1_820));
    let mut joining = Viewer::new(1, MediaKind::Video, None);
    joining.attach(ms(1_830), &arena, &publish);
    assert_eq!((late.sent.len(), joining.sent.len()), (2, 2));
}

#[test]
fn late_joiner_waits_when_the_last_key_frame_is_old_or_has_a_hole() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut source = Source::new(7, VIDEO, 10, 0);
    play(&mut publication, 0, &mut source, 0, 30, true);
    let mut late = Viewer::new(1, MediaKind::Video, None);
    late.attach(ms(900), &arena, &publish);
    assert_eq!((late.sent.len(), late.wanted()), (0, Some(0)));
    for (at, packet) in source.frame(true, 3).into_iter().enumerate().filter(|(at, _)| *at != 1) {
        publication.handle_rtp(ms(900 + at as u64), 0, false, &packet).unwrap();
    }
    let mut holed = Viewer::new(0, MediaKind::Video, None);
    holed.attach(ms(910), &arena, &publish);
    assert_eq!((holed.sent.len(), holed.wanted()), (0, Some(0)));
    late.pull(ms(910));
    assert_eq!(late.sent.len(), 2, "who was there already gets it with its hole, and asks for the rest");
    assert_eq!(late.sent[1].0 - late.sent[0].0, 2);
}

#[test]
fn a_decoder_that_lacks_packets_of_the_log_gets_these_before_a_key_frame() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, Some(0xcafe));
    viewer.attach(ms(0), &arena, &publish);
    play(&mut publication, 0, &mut Source::new(7, VIDEO, 10, 0), 0, 5, true);
    viewer.pull(ms(150));
    let lost = viewer.sent[3].0 as u16;
    viewer.subscription.handle_nack(ms(200), [lost].into_iter());
    viewer.subscription.handle_key_frame_request(ms(200));
    assert_eq!(viewer.wanted(), None);
    assert_eq!(viewer.nack(ms(240), &[]).len(), 1);
    viewer.subscription.handle_key_frame_request(ms(450));
    assert_eq!(viewer.wanted(), None);
    viewer.subscription.handle_key_frame_request(ms(520));
    assert_eq!(viewer.wanted(), Some(0), "they did not help");
}

#[test]
fn audio_starts_at_once() {
    let arena = arena(256);
    let publish = publish(1, AUDIO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut source = Source::new(7, AUDIO, 10, 0);
    publication.handle_rtp(ms(0), 0, false, &source.sound()).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Audio, None);
    viewer.attach(ms(10), &arena, &publish);
    publication.handle_rtp(ms(20), 0, false, &source.sound()).unwrap();
    viewer.pull(ms(20));
    assert_eq!(viewer.numbers().into_values().collect::<Vec<_>>(), [Some(1)]);
    assert_eq!(viewer.wanted(), None);
}

#[test]
fn a_publisher_that_returns_goes_on_where_the_stream_stopped() {
    let arena = arena(256);
    let first = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&first, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &first);
    play(&mut publication, 0, &mut Source::new(7, VIDEO, 60_000, u32::MAX - 5_000), 0, 10, true);
    viewer.pull(ms(300));
    publication.close();
    viewer.subscription.detach();

    // Other SSRC, other sequence and timestamp, other payload type and codec, the same log a minute later.
    let codec = millrace_core::command::Codec { name: CodecName::Vp9, payload_type: 98, ..VIDEO };
    let second = publish(2, codec, &[0]);
    let mut publication = Publication::new(&second, &arena, 0).unwrap();
    viewer.attach(ms(60_000), &arena, &second);
    let mut source = Source::new(8, codec, 3, 77);
    for packet in source.frame(true, 2) {
        // A VP9 key frame: B set, P clear.
        let packet = [&packet[..12], &[0x08, 0x80], &packet[14..]].concat();
        publication.handle_rtp(ms(60_270), 0, false, &packet).unwrap();
    }
    viewer.pull(ms(60_270));
    assert_eq!(viewer.sent.len(), 22);
    assert!(is_continuous(&viewer));
    let timestamps = viewer.timestamps();
    assert_eq!(timestamps[20].wrapping_sub(timestamps[19]), 60 * 90_000, "the minute has passed for the viewer too");
    let header = Header::parse(&viewer.sent[21].1).unwrap();
    assert_eq!((header.ssrc, header.payload_type), (0xbeef, 120));
    let mid = extensions::find(&viewer.sent[21].1, &header, 4);
    assert_eq!(mid, Some(b"v".as_slice()));
}

#[test]
fn an_encoder_that_starts_over_with_another_ssrc_goes_on_at_its_key_frame() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    let mut old = Source::new(7, VIDEO, 60_000, 5);
    play(&mut publication, 0, &mut old, 0, 4, true);
    let straggler = old.frame(false, 1).remove(0);
    let mut new = Source::new(8, VIDEO, 40, 1_000_000);
    play(&mut publication, 0, &mut new, 120, 1, false);
    assert_eq!(publication.handle_rtp(ms(121), 0, false, &straggler), Err(Drop::RtpTooOld));
    viewer.pull(ms(130));
    assert_eq!((viewer.sent.len(), viewer.wanted()), (8, Some(0)));
    play(&mut publication, 0, &mut new, 150, 3, true);
    viewer.pull(ms(250));
    assert_eq!(viewer.sent.len(), 14);
    assert!(is_continuous(&viewer));
    assert_eq!(viewer.timestamps()[8].wrapping_sub(viewer.timestamps()[7]), 60 * 90);
    assert!(feedback(&mut publication, ms(300)).nacks.is_empty(), "nothing is missing between the two");
}

#[test]
fn a_late_retransmission_of_a_replaced_ssrc_does_not_stop_the_new_one() {
    for sequence in [60_000, 20_000, 90] {
        let arena = arena(256);
        let publish = publish(1, VIDEO, &[0]);
        let mut publication = Publication::new(&publish, &arena, 0).unwrap();
        let mut old = Source::new(7, VIDEO, sequence, 5);
        play(&mut publication, 0, &mut old, 0, 4, true);
        let late = old.frame(false, 1).remove(0);
        let mut new = Source::new(8, VIDEO, 40, 1_000_000);
        play(&mut publication, 0, &mut new, 120, 1, true);
        let repair = new.frame(false, 1).remove(0);
        let taken = publication.handle_rtp(ms(121), 0, true, &rtx(&late, 9, 1));
        // 90 and some is too near to the new numbers to tell.
        assert_eq!(taken, if sequence == 90 { Ok(()) } else { Err(Drop::RtpTooOld) });
        play(&mut publication, 0, &mut new, 150, 3, false);
        publication.handle_rtp(ms(250), 0, true, &rtx(&repair, 9, 2)).unwrap();
    }
}

#[test]
fn the_best_living_encoding_is_taken_at_its_key_frames() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0, 1]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    let (mut low, mut high) = (Source::new(7, VIDEO, 100, 5), Source::new(8, VIDEO, 50_000, 9_000_000));
    play(&mut publication, 0, &mut low, 0, 3, true);
    viewer.pull(ms(100));
    play(&mut publication, 1, &mut high, 60, 2, false);
    viewer.pull(ms(120));
    assert_eq!((viewer.sent.len(), viewer.wanted()), (6, Some(1)));

    play(&mut publication, 1, &mut high, 120, 2, true);
    viewer.pull(ms(180));
    assert_eq!((viewer.sent.len(), viewer.wanted()), (10, None));
    play(&mut publication, 0, &mut low, 180, 2, true);
    viewer.pull(ms(240));
    assert_eq!(viewer.sent.len(), 10, "the lower one's key frame is no reason to go back");

    // The upper one stops.
    play(&mut publication, 0, &mut low, 900, 1, false);
    viewer.pull(ms(900));
    assert_eq!(viewer.wanted(), Some(0));
    play(&mut publication, 0, &mut low, 960, 2, true);
    viewer.pull(ms(1_000));
    assert_eq!((viewer.sent.len(), viewer.wanted()), (14, None));
    assert!(is_continuous(&viewer));
    let timestamps = viewer.timestamps();
    assert!(timestamps.windows(2).all(|pair| (pair[1].wrapping_sub(pair[0]) as i32) >= 0));
    assert_eq!(timestamps[10].wrapping_sub(timestamps[9]), (960 - 150) * 90);
}

#[test]
fn a_nack_is_answered_from_the_log_as_rtx() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, Some(0xcafe));
    viewer.attach(ms(0), &arena, &publish);
    play(&mut publication, 0, &mut Source::new(7, VIDEO, 65_530, 0), 0, 10, true);
    viewer.pull(ms(300));
    let (index, original) = viewer.sent[9].clone();
    let answers = viewer.nack(ms(310), &[index as u16, index as u16]);
    assert_eq!(answers.len(), 1, "the same packet once");
    let (header, was) = (Header::parse(&answers[0].1).unwrap(), Header::parse(&original).unwrap());
    assert_eq!((header.ssrc, header.payload_type, header.sequence), (0xcafe, 121, answers[0].0 as u16));
    assert_eq!((header.timestamp, header.marker), (was.timestamp, was.marker));
    let payload = header.payload(&answers[0].1);
    assert_eq!(payload[..2], (index as u16).to_be_bytes());
    assert_eq!(&payload[2..], was.payload(&original));
    let later = viewer.nack(ms(340), &[index as u16]);
    assert_eq!(later[0].0, answers[0].0 + 1, "its own sequence space");
    assert!(viewer.nack(ms(400), &[index.wrapping_sub(5_000) as u16]).is_empty(), "never sent");
    let newest = viewer.sent.last().unwrap().0;
    assert!(viewer.nack(ms(400), &[newest.wrapping_add(1) as u16]).is_empty(), "not sent yet");
}

#[test]
fn without_rtx_the_very_same_packet_is_sent_again() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    play(&mut publication, 0, &mut Source::new(7, VIDEO, 65_530, 0), 0, 10, true);
    viewer.pull(ms(300));
    let sequences: Vec<u16> = viewer.sent.iter().map(|(index, _)| *index as u16).collect();
    assert_eq!(viewer.nack(ms(310), &sequences), viewer.sent);
}

#[test]
fn a_viewer_on_a_lossy_path_is_asked_to_wait_and_gets_its_repairs_twice() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, Some(0xcafe));
    viewer.attach(ms(0), &arena, &publish);
    let mut source = Source::new(7, VIDEO, 10, 0);
    let delays = |viewer: &Viewer| -> Vec<Option<Vec<u8>>> {
        let delay = |packet: &[u8]| {
            extensions::find(packet, &Header::parse(packet).unwrap(), PLAYOUT_DELAY.id).map(<[u8]>::to_vec)
        };
        viewer.sent.iter().map(|(_, packet)| delay(packet)).collect()
    };
    play(&mut publication, 0, &mut source, 0, 3, true);
    viewer.pull(ms(100));
    assert!(delays(&viewer).iter().all(Option::is_none));
    for second in 1..5 {
        let block = ReportBlock { ssrc: 0xbeef, fraction_lost: 13, ..ReportBlock::default() };
        viewer.subscription.handle_receiver_report(ms(1_000 * second), &block);
    }
    viewer.sent.clear();
    play(&mut publication, 0, &mut source, 5_000, 3, false);
    viewer.pull(ms(5_100));
    // 200 ms at least, 10 s at most.
    assert!(!viewer.sent.is_empty() && delays(&viewer).iter().all(|delay| delay.as_deref() == Some(&[1, 0x43, 0xe8])));
    let answers = viewer.nack(ms(5_110), &[viewer.sent[1].0 as u16]);
    assert_eq!(answers.len(), 2);
    assert_ne!(answers[0].0, answers[1].0, "no index twice under one key");
}

#[test]
fn what_came_before_a_switch_can_still_be_repaired() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0, 1]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    play(&mut publication, 0, &mut Source::new(7, VIDEO, 100, 5), 0, 3, true);
    viewer.pull(ms(100));
    play(&mut publication, 1, &mut Source::new(8, VIDEO, 50_000, 9_000_000), 120, 2, true);
    viewer.pull(ms(180));
    let sequences: Vec<u16> = viewer.sent.iter().map(|(index, _)| *index as u16).collect();
    assert_eq!(viewer.nack(ms(310), &sequences), viewer.sent);
}

#[test]
fn what_is_missing_upstream_is_asked_for_and_takes_its_own_number() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    let mut source = Source::new(7, VIDEO, 65_534, 0);
    let packets: Vec<_> = (0..4).flat_map(|frame| source.frame(frame == 0, 2)).collect();
    for (at, packet) in packets.iter().enumerate().filter(|(at, _)| ![2, 3].contains(at)) {
        publication.handle_rtp(ms(at as u64), 0, false, packet).unwrap();
    }
    viewer.pull(ms(10));
    assert!(feedback(&mut publication, ms(10)).nacks.is_empty(), "they may only be late");
    assert_eq!(feedback(&mut publication, ms(19)).nacks, [0, 1]);
    publication.handle_rtp(ms(40), 0, true, &rtx(&packets[2], 9, 1)).unwrap();
    assert_eq!(publication.handle_rtp(ms(41), 0, true, &rtx(&packets[2], 9, 2)), Err(Drop::RtpDuplicate));
    publication.handle_rtp(ms(42), 0, false, &packets[3]).unwrap();
    viewer.pull(ms(50));
    let numbers: Vec<_> = viewer.numbers().into_iter().collect();
    assert!(numbers.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1));
    assert!(numbers.iter().map(|(_, number)| *number).eq((0..8).map(Some)));
    let report = publication.report();
    assert_eq!((report.packets_recovered, report.nacks_sent, report.packets), (2, 2, 8));
}

#[test]
fn probes_leave_no_gap_and_damage_nothing() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    let mut source = Source::new(7, VIDEO, 10, 0);
    for round in 0..20 {
        play(&mut publication, 0, &mut source, round * 30, 1, round == 0);
        for _ in 0..round {
            publication.handle_rtp(ms(round * 30), 0, false, &source.padding()).unwrap();
        }
        let mut probe = rtx(&source.padding(), 9, round as u16);
        source.sequence = source.sequence.wrapping_sub(1);
        probe.truncate(12);
        assert_eq!(publication.handle_rtp(ms(round * 30), 0, true, &probe), Err(Drop::RtpPadding));
    }
    viewer.pull(ms(600));
    assert_eq!(viewer.sent.len(), 40);
    assert!(is_continuous(&viewer));
    assert!(viewer.drops.iter().all(|drop| *drop == Drop::RtpPadding));
}

#[test]
fn all_viewers_wishes_make_one_bounded_stream_of_requests() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut source = Source::new(7, VIDEO, 10, 0);
    play(&mut publication, 0, &mut source, 0, 1, false);
    let mut asked = 0;
    for now in 0..1_000 {
        (0..50).for_each(|_| publication.want_key_frame(ms(now), waits_for(0)));
        publication.want_key_frame(ms(now), waits_for(5));
        let feedback = feedback(&mut publication, ms(now));
        asked += feedback.plis;
        assert_eq!(feedback.firs, 0);
    }
    assert_eq!(asked, 4);
    play(&mut publication, 0, &mut source, 1_000, 1, true);
    assert_eq!((1_000..3_000).map(|now| feedback(&mut publication, ms(now)).plis).sum::<usize>(), 0);
    assert_eq!(publication.report().key_frames, 1);
}

#[test]
fn a_publisher_that_knows_no_pli_gets_fir() {
    let arena = arena(256);
    let publish = millrace_core::command::Publish { pli: false, ..publish(1, VIDEO, &[0]) };
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    play(&mut publication, 0, &mut Source::new(7, VIDEO, 10, 0), 0, 1, false);
    publication.want_key_frame(ms(0), waits_for(0));
    let feedback = feedback(&mut publication, ms(0));
    assert_eq!((feedback.plis, feedback.firs), (0, 1));
}

#[test]
fn sender_reports_keep_audio_and_video_together() {
    let arena = arena(256);
    let mut mappings = vec![];
    for (codec, log, kind) in [(VIDEO, 0, MediaKind::Video), (AUDIO, 1, MediaKind::Audio)] {
        let publish = publish(1 + u64::from(log), codec, &[log]);
        let mut publication = Publication::new(&publish, &arena, 0).unwrap();
        let mut viewer = Viewer::new(1, kind, None);
        viewer.attach(ms(0), &arena, &publish);
        let mut source = Source::new(7, codec, 10, 123_456);
        let packet = if log == 0 { source.frame(true, 1).remove(0) } else { source.sound() };
        publication.handle_rtp(ms(0), 0, false, &packet).unwrap();
        viewer.pull(ms(0));
        // Captured at 5 s of the publisher's clock; the reports of the two come 40 ms apart.
        let late = u64::from(log) * 40;
        let info = SenderInfo {
            ssrc: 7,
            ntp: (5 << 32) + ((late << 32) / 1_000),
            rtp_timestamp: 123_456 + (late * u64::from(codec.clock_rate) / 1_000) as u32,
            ..SenderInfo::default()
        };
        publication.handle_sender_report(ms(10 + late), 0, &info);
        let mut out = [0; 500];
        let mut writer = Writer::new(&mut out);
        let feed = &viewer.feeds[&viewer.subscription.source_log().unwrap()];
        assert!(viewer.subscription.write_sender_report(
            ms(1_000),
            (feed.sender_report(), Clock::Undecided),
            &mut writer
        ));
        let mut packets = rtcp::iterate(writer.written()).map(Result::unwrap);
        let Some(Packet::SenderReport(report)) = packets.next() else { panic!("a report comes first") };
        let Some(Packet::Sdes(names)) = packets.next() else { panic!("and a name after it") };
        assert_eq!(names.chunks().next(), Some((0xbeef, Some(b"viewer".as_slice()))));
        assert_eq!((report.info.packet_count, report.info.octet_count), (1, 10));
        // When the viewer plays the first packet, on the publisher's clock.
        let since = report.info.rtp_timestamp.wrapping_sub(viewer.timestamps()[0]);
        let since = (u64::from(since) << 32) / u64::from(codec.clock_rate);
        mappings.push(report.info.ntp - since);
        assert_eq!(viewer.subscription.next_deadline(), Some(ms(2_000)));
    }
    assert!(mappings[0].abs_diff(mappings[1]) < (1 << 32) / 1_000, "within a millisecond: {mappings:?}");
    assert!(mappings[0].abs_diff(5 << 32) < (1 << 32) / 1_000);
}

#[test]
fn a_reader_that_is_overtaken_goes_on_at_what_is_left() {
    let arena = arena(64);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    let mut source = Source::new(7, VIDEO, 10, 0);
    play(&mut publication, 0, &mut source, 0, 2, true);
    viewer.pull(ms(60));
    play(&mut publication, 0, &mut source, 60, 100, false);
    viewer.pull(ms(3_100));
    assert_eq!(viewer.overtaken as usize + viewer.sent.len(), 204);
    assert!(viewer.sent.len() > 60);
    let last = viewer.sent.last().unwrap();
    assert_eq!(last.0 - viewer.sent[0].0, number(&last.1).unwrap(), "what was missed shows as a gap");
}

#[test]
fn a_break_in_the_numbering_waits_for_a_key_frame() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    let mut source = Source::new(7, VIDEO, 10, 0);
    play(&mut publication, 0, &mut source, 0, 2, true);
    source.sequence = source.sequence.wrapping_add(20_000);
    play(&mut publication, 0, &mut source, 60, 2, false);
    viewer.pull(ms(100));
    assert_eq!((viewer.sent.len(), viewer.wanted()), (4, Some(0)));
    assert_eq!(feedback(&mut publication, ms(100)).plis, 1, "the publication asks by itself");
    play(&mut publication, 0, &mut source, 120, 2, true);
    viewer.pull(ms(200));
    assert_eq!(viewer.sent.len(), 8);
    assert!(is_continuous(&viewer));
}

#[test]
fn a_replay_and_a_batch_that_overlap_send_nothing_twice() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    play(&mut publication, 0, &mut Source::new(7, VIDEO, 10, 0), 0, 5, true);
    viewer.pull(ms(150));
    viewer.replay(ms(150), 0, 0);
    assert_eq!(viewer.sent.len(), 10);
    assert_eq!(viewer.drops, [Drop::RtpDuplicate; 10]);
}

#[test]
fn a_publication_ends_when_all_its_streams_said_bye_and_are_silent() {
    let arena = arena(256);
    let mut publication = Publication::new(&publish(1, VIDEO, &[0, 1]), &arena, 0).unwrap();
    assert!(!publication.take_started() && !publication.take_ended(ms(9_000)));
    let (mut low, mut high) = (Source::new(7, VIDEO, 1, 5), Source::new(8, VIDEO, 1, 9));
    play(&mut publication, 0, &mut low, 0, 1, true);
    play(&mut publication, 1, &mut high, 0, 1, true);
    assert!(publication.take_started() && !publication.take_started());
    publication.handle_bye(ms(100), 0, 7);
    publication.handle_bye(ms(100), 1, 99);
    assert!(!publication.take_ended(ms(9_000)));
    publication.handle_bye(ms(100), 1, 8);
    assert_eq!(publication.next_deadline(), Some(ms(600)));
    assert!(!publication.feedback_due(ms(600)), "nothing has to be written");
    assert!(!publication.take_ended(ms(599)));
    assert!(publication.take_ended(ms(600)) && !publication.take_ended(ms(601)));
    play(&mut publication, 0, &mut low, 700, 1, false);
    assert!(publication.take_started() && !publication.take_started(), "a packet starts it again");
    publication.handle_bye(ms(800), 0, 7);
    play(&mut publication, 0, &mut low, 900, 1, false);
    assert!(!publication.take_ended(ms(1_300)), "a packet takes the BYE back");
    assert!(!publication.take_started(), "and nobody has heard of it");
    publication.handle_bye(ms(1_400), 0, 7);
    assert!(publication.take_ended(ms(1_900)));
}

#[test]
fn byes_and_packets_in_turn_end_nothing() {
    let arena = arena(256);
    let mut publication = Publication::new(&publish(1, VIDEO, &[0]), &arena, 0).unwrap();
    let mut source = Source::new(7, VIDEO, 1, 5);
    let mut events = (0, 0);
    for now in (0..5_000).step_by(100) {
        play(&mut publication, 0, &mut source, now, 1, now == 0);
        events.0 += u32::from(publication.take_started());
        publication.handle_bye(ms(now), 0, 7);
        events.1 += u32::from(publication.take_ended(ms(now + 99)));
    }
    assert_eq!(events, (1, 0));
}

#[test]
fn interested_slots_are_told_of_each_move_once() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    play(&mut publication, 0, &mut Source::new(7, VIDEO, 10, 0), 0, 5, true);
    let advanced = |publication: &mut Publication| {
        let mut list = vec![];
        publication.take_advanced(|log, slots| list.push((log, slots)));
        list
    };
    assert_eq!(advanced(&mut publication), [(0, 0b10)]);
    assert_eq!(advanced(&mut publication), []);
    std::mem::take(&mut viewer.feeds).into_values().for_each(|feed| feed.close());
    play(&mut publication, 0, &mut Source::new(7, VIDEO, 20, 0), 0, 1, false);
    assert_eq!(advanced(&mut publication), [(0, 0)]);
}

#[test]
fn a_feed_finds_a_log_that_opens_later() {
    let arena = arena(256);
    let publish = publish(1, VIDEO, &[0]);
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    play(&mut publication, 0, &mut Source::new(7, VIDEO, 10, 0), 0, 5, true);
    assert!(viewer.feeds.get_mut(&0).unwrap().connect(&arena));
    viewer.pull(ms(150));
    assert_eq!(viewer.sent.len(), 10);
}

#[test]
fn reports_go_back_each_second_and_count_what_is_lost() {
    let arena = arena(256);
    let mut publication = Publication::new(&publish(1, VIDEO, &[0]), &arena, 0).unwrap();
    assert_eq!(publication.next_deadline(), None, "nothing to say before the first packet");
    let mut source = Source::new(7, VIDEO, 10, 0);
    for (at, packet) in source.frame(true, 20).into_iter().enumerate().filter(|(at, _)| at % 5 != 2) {
        publication.handle_rtp(ms(at as u64), 0, false, &packet).unwrap();
    }
    let reports: usize = (0..3_500).map(|now| feedback(&mut publication, ms(now)).reports).sum();
    assert_eq!(reports, 3);
    assert_eq!(publication.report().packets_lost, 4);
    assert!(publication.next_deadline().unwrap() > ms(3_500) - Span(1));
}
