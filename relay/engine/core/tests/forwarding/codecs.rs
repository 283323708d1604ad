//! A publisher with several codecs: which one is in use, a change in mid-stream, and viewers that lack some. Must never look at whole
//! calls; `../engine_calls.rs` does. Read `world.rs` for the cast.

use millrace_core::command::{Codec, CodecName, MediaKind, Publish, TrackCodec};
use millrace_core::drop::Drop;
use millrace_core::forward::publication::Publication;
use millrace_core::rtp::Header;

use super::world::{Source, VIDEO, Viewer, arena, feedback, ms, number, publish, rtx};
use super::{is_continuous, play, waits_for};

const H264: Codec = Codec { name: CodecName::H264, payload_type: 102, rtx_payload_type: Some(103), clock_rate: 90_000 };
const VP9: Codec = Codec { name: CodecName::Vp9, payload_type: 98, rtx_payload_type: None, clock_rate: 90_000 };

/// A publication of all these codecs, of which only VP9 has no feedback.
fn publish_all(codecs: &[Codec]) -> Publish {
    let answers = |codec: &Codec| {
        let has = codec.name != CodecName::Vp9;
        TrackCodec { codec: *codec, nack: has, pli: has, fir: false }
    };
    Publish { codecs: codecs.iter().map(answers).collect(), ..publish(1, codecs[0], &[0]) }
}

/// Frames of one packet in H264: an IDR picture when `key`, and slices.
fn play_h264(publication: &mut Publication, source: &mut Source, start: u64, frames: u64, key: bool) {
    for frame in 0..frames {
        for mut packet in source.frame(false, 1) {
            let unit = if key && frame == 0 { [0x65, 0x88] } else { [0x41, 0x9a] };
            packet[12..14].copy_from_slice(&unit);
            publication.handle_rtp(ms(start + frame * 30), 0, false, &packet).unwrap();
        }
    }
}

const SPS: [u8; 13] = [0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xe9, 0xa8, 0x08, 0x08, 0x0a];
const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];
const IDR: [u8; 4] = [0x65, 0x88, 0x84, 0x21];
const SLICE: [u8; 4] = [0x41, 0x9a, 0x02, 0x03];

/// The packets of one H264 picture, a unit each; the clock moves on by 30 ms.
fn picture(source: &mut Source, units: &[&[u8]]) -> Vec<Vec<u8>> {
    let frame = source.frame(false, units.len());
    frame.iter().zip(units).map(|(packet, unit)| [&packet[..12], unit].concat()).collect()
}

/// Sends pictures of these units, 30 ms each.
fn play_units(publication: &mut Publication, source: &mut Source, start: u64, pictures: &[&[&[u8]]]) {
    for (frame, units) in pictures.iter().enumerate() {
        for packet in picture(source, units) {
            publication.handle_rtp(ms(start + frame as u64 * 30), 0, false, &packet).unwrap();
        }
    }
}

fn payloads(viewer: &Viewer) -> Vec<Vec<u8>> {
    let sent = viewer.sent.iter();
    sent.map(|(_, packet)| Header::parse(packet).unwrap().payload(packet).to_vec()).collect()
}

#[test]
fn a_late_viewer_of_h264_gets_parameter_sets_that_were_sent_once() {
    let arena = arena(256);
    let publish = publish(1, H264, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut source = Source::new(7, H264, 65_533, 0);
    let mut first = Viewer::new(1, MediaKind::Video, Some(0xcafe));
    first.attach(ms(0), &arena, &publish);
    play_units(&mut publication, &mut source, 0, &[&[&SPS, &PPS, &IDR], &[&SLICE], &[&IDR, &IDR], &[&SLICE]]);
    first.pull(ms(100));
    let all = [&SPS[..], &PPS, &IDR, &SLICE, &SPS, &PPS, &IDR, &IDR, &SLICE].map(<[u8]>::to_vec);
    assert_eq!(payloads(&first), all);
    let mut late = Viewer::new(1, MediaKind::Video, Some(0xbabe));
    late.attach(ms(110), &arena, &publish);
    assert_eq!(payloads(&late), all[4..]);
    assert!(is_continuous(&first) && is_continuous(&late));
    let timestamps = late.timestamps();
    assert!(timestamps[..4].iter().all(|timestamp| *timestamp == timestamps[0]) && timestamps[4] != timestamps[0]);
    // They are repaired like any packet.
    let repaired = late.nack(ms(120), &[late.sent[0].0 as u16]);
    assert_eq!(Header::parse(&repaired[0].1).unwrap().payload(&repaired[0].1)[2..], SPS);
    assert_eq!((publication.report().key_frames, publication.report().packets), (2, 7), "ours is none of its packets");
}

#[test]
fn parameter_sets_of_the_offer_are_put_before_the_first_key_frame() {
    let arena = arena(256);
    let mut publish = publish(1, H264, &[0]);
    let sized = |unit: &[u8]| [&(unit.len() as u16).to_be_bytes(), unit].concat();
    publish.parameter_sets = [sized(&PPS), sized(&SPS)].concat().into();
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    play_units(&mut publication, &mut Source::new(7, H264, 0, 0), 0, &[&[&IDR], &[&SLICE]]);
    viewer.pull(ms(100));
    assert_eq!(payloads(&viewer), [&SPS[..], &PPS, &IDR, &SLICE].map(<[u8]>::to_vec));
}

#[test]
fn packets_around_parameter_sets_of_ours_are_asked_for_and_repaired_under_their_own_numbers() {
    let arena = arena(256);
    let publish = publish_all(&[VIDEO, H264]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    let mut source = Source::new(7, H264, 100, 0);
    play_units(&mut publication, &mut source, 0, &[&[&SPS, &PPS, &IDR], &[&SLICE]]);
    let before = picture(&mut source, &[&SLICE]);
    play_units(&mut publication, &mut source, 90, &[&[&SLICE], &[&IDR]]);
    let behind = picture(&mut source, &[&SLICE]);
    play_units(&mut publication, &mut source, 150, &[&[&SLICE]]);
    let told = feedback(&mut publication, ms(300));
    assert_eq!(told.nacks, [104, 107], "as the publisher numbers them");
    // The publisher sends them again, and a successor that knows only the log takes one of them.
    publication.handle_rtp(ms(310), 0, false, &before[0]).unwrap();
    drop(publication);
    let mut publication = Publication::resume(ms(320), &publish, &arena, 0).unwrap();
    assert_eq!(publication.handle_rtp(ms(330), 0, false, &before[0]), Err(Drop::RtpDuplicate));
    publication.handle_rtp(ms(330), 0, false, &behind[0]).unwrap();
    viewer.pull(ms(340));
    let numbers: Vec<u64> = viewer.numbers().into_keys().collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    assert_eq!(viewer.sent.len(), 11);
    // The successor knows the sets, though this key frame has none.
    play_units(&mut publication, &mut source, 360, &[&[&IDR]]);
    let mut late = Viewer::new(1, MediaKind::Video, None);
    late.attach(ms(370), &arena, &publish);
    assert_eq!(payloads(&late), [&SPS[..], &PPS, &IDR].map(<[u8]>::to_vec));
}

#[test]
fn behind_a_gap_nothing_is_put_before_a_key_frame() {
    let arena = arena(256);
    let publish = publish_all(&[VIDEO, H264]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut source = Source::new(7, H264, 100, 0);
    play_units(&mut publication, &mut source, 0, &[&[&SPS, &PPS, &IDR], &[&SLICE]]);
    // This one has its sets, of which the first is late.
    let mut packets = picture(&mut source, &[&SPS, &PPS, &IDR]);
    let late = packets.remove(0);
    for packet in packets.iter().chain([&late]) {
        publication.handle_rtp(ms(60), 0, false, packet).unwrap();
    }
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(70), &arena, &publish);
    let numbers: Vec<u64> = viewer.numbers().into_keys().collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

fn payload_types(viewer: &Viewer) -> Vec<u8> {
    viewer.sent.iter().map(|(_, packet)| Header::parse(packet).unwrap().payload_type).collect()
}

/// VP9 frames of one packet, 30 ms each, whose descriptor has `first` and a picture id, and behind it `data`.
fn play_vp9(publication: &mut Publication, source: &mut Source, start: u64, frames: &[(u8, [u8; 4])]) {
    for (frame, (first, data)) in frames.iter().enumerate() {
        for packet in source.frame(false, 1) {
            let packet = [&packet[..12], &[*first, 0x07], data, &packet[14..]].concat();
            publication.handle_rtp(ms(start + frame as u64 * 30), 0, false, &packet).unwrap();
        }
    }
}

/// I, B, E; and with P.
const NOT_PREDICTED: u8 = 0x8c;
const PREDICTED: u8 = 0xcc;
const KEY_FRAME: [u8; 4] = [0x82, 0x49, 0x83, 0x42];
const INTER_FRAME: [u8; 4] = [0x86, 0x00, 0x40, 0x92];
const CIPHERTEXT: [u8; 4] = [0x1f, 0xc3, 0x5a, 0x07];

#[test]
fn a_vp9_payloader_that_never_says_predicted_makes_no_key_frame_of_every_frame() {
    let arena = arena(256);
    let publish = publish(1, VP9, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut source = Source::new(7, VP9, 10, 0);
    play_vp9(&mut publication, &mut source, 0, &[(NOT_PREDICTED, KEY_FRAME)]);
    play_vp9(&mut publication, &mut source, 30, &[(NOT_PREDICTED, INTER_FRAME); 60]);
    assert_eq!(publication.report().key_frames, 1);
    let mut late = Viewer::new(1, MediaKind::Video, None);
    late.attach(ms(1_850), &arena, &publish);
    assert_eq!((late.sent.len(), late.wanted()), (0, Some(0)), "a key frame is asked for");
    play_vp9(&mut publication, &mut source, 1_860, &[(NOT_PREDICTED, INTER_FRAME), (NOT_PREDICTED, KEY_FRAME)]);
    late.pull(ms(1_900));
    assert_eq!((late.sent.len(), late.wanted()), (1, None));
}

#[test]
fn an_encrypted_vp9_stream_is_known_by_its_descriptors() {
    let arena = arena(256);
    let publish = publish(1, VP9, &[0]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut source = Source::new(7, VP9, 10, 0);
    let (key, inter) = ((NOT_PREDICTED, CIPHERTEXT), (PREDICTED, CIPHERTEXT));
    play_vp9(&mut publication, &mut source, 0, &[key, inter, inter, key, inter]);
    assert_eq!(publication.report().key_frames, 2);
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(150), &arena, &publish);
    assert_eq!(viewer.sent.len(), 2);
}

#[test]
fn whatever_the_publisher_sends_goes_out_as_the_viewers_codec_of_that_name() {
    let arena = arena(256);
    let publish = publish_all(&[VIDEO, H264]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    play_h264(&mut publication, &mut Source::new(7, H264, 10, 0), 0, 4, true);
    viewer.pull(ms(130));
    assert_eq!(payload_types(&viewer), [126; 4]);
    assert_eq!(publication.report().key_frames, 1, "looked for in H264");
}

#[test]
fn a_change_in_mid_stream_is_followed_from_its_key_frame_which_is_asked_for() {
    let arena = arena(256);
    let publish = publish_all(&[VIDEO, H264]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, Some(0xcafe));
    viewer.attach(ms(0), &arena, &publish);
    let mut source = Source::new(7, VIDEO, 65_530, 0);
    play(&mut publication, 0, &mut source, 0, 4, true);
    // The same SSRC and numbers go on, as with libwebrtc's setParameters.
    source.codec = H264;
    play_h264(&mut publication, &mut source, 120, 2, false);
    viewer.pull(ms(200));
    assert_eq!((viewer.sent.len(), viewer.wanted()), (8, Some(0)));
    assert_eq!(viewer.drops, [Drop::AwaitsKeyFrame; 2]);
    play_h264(&mut publication, &mut source, 200, 3, true);
    viewer.pull(ms(300));
    assert_eq!(payload_types(&viewer), [[120; 8].as_slice(), &[126; 3]].concat());
    assert!(is_continuous(&viewer));
    assert_eq!(viewer.wanted(), None);
    // What was sent before the change is repaired as what it was.
    let (index, original) = viewer.sent[5].clone();
    let repairs = viewer.nack(ms(310), &[index as u16, viewer.sent[9].0 as u16]);
    let kinds: Vec<u8> = repairs.iter().map(|(_, packet)| Header::parse(packet).unwrap().payload_type).collect();
    assert_eq!(kinds, [121, 127]);
    let repaired = Header::parse(&repairs[0].1).unwrap();
    assert_eq!(repaired.payload(&repairs[0].1)[2..], *Header::parse(&original).unwrap().payload(&original));
}

#[test]
fn without_rtx_repairs_repeat_their_bytes_over_a_change() {
    let arena = arena(256);
    let publish = publish_all(&[VIDEO, H264]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    let mut source = Source::new(7, VIDEO, 1, 0);
    play(&mut publication, 0, &mut source, 0, 3, true);
    source.codec = H264;
    play_h264(&mut publication, &mut source, 90, 3, true);
    viewer.pull(ms(200));
    let sequences: Vec<u16> = viewer.sent.iter().map(|(index, _)| *index as u16).collect();
    assert_eq!((sequences.len(), viewer.nack(ms(210), &sequences)), (9, viewer.sent));
}

#[test]
fn a_late_packet_of_the_old_codec_changes_nothing_back() {
    let arena = arena(256);
    let publish = publish_all(&[VIDEO, H264]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, Some(0xcafe));
    viewer.attach(ms(0), &arena, &publish);
    let mut source = Source::new(7, VIDEO, 1, 0);
    play(&mut publication, 0, &mut source, 0, 2, true);
    let late = source.frame(false, 1).remove(0);
    source.codec = H264;
    play_h264(&mut publication, &mut source, 90, 2, true);
    assert_eq!(publication.take_codec(ms(120)).map(|known| known.codec), Some(H264));
    publication.handle_rtp(ms(125), 0, true, &rtx(&late, 5, 1)).unwrap();
    assert_eq!(publication.take_codec(ms(5_000)), None);
    play_h264(&mut publication, &mut source, 150, 1, false);
    viewer.pull(ms(200));
    assert_eq!(payload_types(&viewer), [[120; 4].as_slice(), &[126; 3]].concat());
}

#[test]
fn repairs_are_restored_under_the_number_of_their_own_codec() {
    let arena = arena(256);
    let publish = publish_all(&[VIDEO, H264]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    viewer.attach(ms(0), &arena, &publish);
    let mut source = Source::new(7, H264, 1, 0);
    play_h264(&mut publication, &mut source, 0, 1, true);
    let lost = source.frame(false, 1).remove(0);
    let mut repair = rtx(&lost, 5, 1);
    repair[1] = repair[1] & 0x80 | 103;
    publication.handle_rtp(ms(60), 0, true, &repair).unwrap();
    viewer.pull(ms(70));
    assert_eq!(payload_types(&viewer), [126, 126]);
    assert_eq!(number(&viewer.sent[1].1), Some(1));
}

#[test]
fn a_viewer_that_cannot_play_what_is_sent_gets_nothing_and_asks_for_nothing_until_it_can() {
    let arena = arena(256);
    let publish = publish_all(&[VIDEO, H264]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut viewer = Viewer::new(1, MediaKind::Video, None);
    // It took VP8 and VP9.
    viewer.attach(ms(0), &arena, &publish_all(&[VIDEO, VP9]));
    let mut source = Source::new(7, VIDEO, 1, 0);
    play(&mut publication, 0, &mut source, 0, 2, true);
    viewer.pull(ms(60));
    source.codec = H264;
    play_h264(&mut publication, &mut source, 60, 3, true);
    viewer.pull(ms(200));
    assert_eq!((viewer.sent.len(), viewer.wanted()), (4, None));
    assert_eq!(viewer.drops, [Drop::CodecNotPlayable; 3]);
    source.codec = VIDEO;
    play(&mut publication, 0, &mut source, 200, 1, false);
    viewer.pull(ms(230));
    assert_eq!((viewer.sent.len(), viewer.wanted()), (4, Some(0)));
    play(&mut publication, 0, &mut source, 230, 1, true);
    viewer.pull(ms(260));
    assert_eq!(viewer.sent.len(), 6);
    assert!(is_continuous(&viewer));
}

#[test]
fn the_codec_in_use_is_told_with_the_first_packet_and_for_each_change_that_is_not_too_soon() {
    let arena = arena(256);
    let mut publication = Publication::new(&publish_all(&[VIDEO, H264]), &arena, 0).unwrap();
    let told = |publication: &mut Publication, at| publication.take_codec(ms(at)).map(|known| known.codec.name);
    assert_eq!(told(&mut publication, 0), None);
    let mut source = Source::new(7, H264, 1, 0);
    play_h264(&mut publication, &mut source, 0, 1, true);
    assert_eq!(told(&mut publication, 0), Some(CodecName::H264));
    assert_eq!(told(&mut publication, 1), None);
    for packet in 0..20 {
        source.codec = if packet % 2 == 0 { VIDEO } else { H264 };
        play(&mut publication, 0, &mut source, packet, 1, false);
        assert_eq!(told(&mut publication, packet), None, "nothing that a stranger sends is an event a packet");
    }
    source.codec = VIDEO;
    play(&mut publication, 0, &mut source, 500, 1, false);
    assert_eq!(told(&mut publication, 500), Some(CodecName::Vp8));
    let mut alone = Publication::new(&publish(2, VIDEO, &[1]), &arena, 0).unwrap();
    play(&mut alone, 0, &mut Source::new(8, VIDEO, 1, 0), 0, 1, true);
    assert_eq!(told(&mut alone, 0), None, "it was known from the start");
}

#[test]
fn a_payload_type_of_no_codec_is_dropped() {
    let arena = arena(256);
    let mut publication = Publication::new(&publish_all(&[VIDEO, H264]), &arena, 0).unwrap();
    let mut source = Source::new(7, VP9, 1, 0);
    let packet = source.frame(true, 1).remove(0);
    assert_eq!(publication.handle_rtp(ms(0), 0, false, &packet), Err(Drop::RtpPayloadType));
    assert_eq!(publication.handle_rtp(ms(0), 0, true, &rtx(&packet, 5, 1)), Err(Drop::RtpUnknownStream));
    let mut unknown = rtx(&packet, 5, 1);
    unknown[1] = 99;
    assert_eq!(publication.handle_rtp(ms(0), 0, true, &unknown), Err(Drop::RtpPayloadType));
}

#[test]
fn feedback_is_what_was_negotiated_for_the_codec_in_use() {
    let arena = arena(256);
    let mut publication = Publication::new(&publish_all(&[VP9, VIDEO]), &arena, 0).unwrap();
    let mut source = Source::new(7, VP9, 1, 0);
    play(&mut publication, 0, &mut source, 0, 1, true);
    source.frame(false, 2);
    play(&mut publication, 0, &mut source, 60, 1, false);
    publication.want_key_frame(ms(200), waits_for(0));
    let asked = feedback(&mut publication, ms(300));
    assert_eq!((asked.nacks.len(), asked.plis), (0, 0));
    source.codec = VIDEO;
    play(&mut publication, 0, &mut source, 300, 1, false);
    let asked = feedback(&mut publication, ms(400));
    assert_eq!((asked.nacks.len(), asked.plis), (0, 1), "what was lost before is not asked for");
    source.frame(false, 1);
    play(&mut publication, 0, &mut source, 430, 1, false);
    assert_eq!(feedback(&mut publication, ms(500)).nacks.len(), 1);
}

#[test]
fn a_successor_knows_the_codec_in_use_from_the_log_and_tells_it_with_the_next_packet() {
    let arena = arena(256);
    let publish = publish_all(&[VIDEO, H264]);
    let mut publication = Publication::new(&publish, &arena, 0).unwrap();
    let mut source = Source::new(7, H264, 65_530, 0);
    play_h264(&mut publication, &mut source, 0, 3, true);
    drop(publication);
    let mut successor = Publication::resume(ms(100), &publish, &arena, 0).unwrap();
    successor.want_key_frame(ms(100), waits_for(0));
    assert_eq!(feedback(&mut successor, ms(100)).plis, 1);
    play_h264(&mut successor, &mut source, 120, 1, false);
    assert_eq!(successor.take_codec(ms(120)).map(|known| known.codec), Some(H264));
    assert_eq!(successor.report().key_frames, 0);
}
