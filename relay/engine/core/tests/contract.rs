//! The golden bytes of `tests/contract`: what Python packs is read as the same value here, and packed to the same bytes.
#![allow(clippy::unwrap_used)] // A test's unwrap is its assertion.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use millrace_core::command::{
    Attach, Codec, CodecName, Command, DtlsRole, Encoding, ExtensionKind, FingerprintHash, Format, MediaKind, Publish,
    Subscribe, TrackCodec,
};
use millrace_core::config::EngineConfig;
use millrace_core::event::{Cause, Event, Outcome, TransportClosed, TransportReport};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The variants' names. No match has a wildcard, so that a new message asks for its golden bytes here.
const COMMANDS: usize = 13;
const EVENTS: usize = 13;

#[test]
fn every_command_is_read_and_packed_to_its_golden_bytes() {
    let commands: Vec<Command> = all("commands");
    let names: BTreeSet<_> = commands.iter().map(command_name).collect();
    assert_eq!(names.len(), COMMANDS, "{names:?}");
}

#[test]
fn every_event_is_read_and_packed_to_its_golden_bytes() {
    let events: Vec<Event> = all("events");
    let names: BTreeSet<_> = events.iter().map(event_name).collect();
    assert_eq!(names.len(), EVENTS, "{names:?}");
    let causes: BTreeSet<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::TransportClosed(TransportClosed { cause, .. }) => Some(format!("{cause:?}")),
            _ => None,
        })
        .collect();
    assert_eq!(causes.len(), Cause::ConsentLost as usize + 1, "{causes:?}");
}

#[test]
fn the_engines_configuration_is_read_and_packed_to_its_golden_bytes() {
    let config: EngineConfig = round_trip(&golden().join("engine_config.hex"));
    assert_eq!((config.slot, config.slots, config.max_transports), (3, 4, 2_000));
}

#[test]
fn opening_a_transport_has_the_same_meaning_on_both_sides() {
    let Command::OpenTransport(open) = one("commands/open_transport") else { panic!("another command") };
    assert_eq!(open.transport, u64::MAX >> 1);
    assert_eq!((open.dtls_role, open.fingerprint_hash), (DtlsRole::Server, FingerprintHash::Sha256));
    assert_eq!(open.fingerprints[0].as_ref(), (0..32).collect::<Vec<u8>>());
    assert_eq!(open.remote_pwd.len(), 256);
    assert!(open.expects_media);
    let Command::OpenTransport(open) = one("commands/open_transport_to_a_passive_viewer") else { panic!() };
    assert_eq!((open.dtls_role, open.fingerprint_hash), (DtlsRole::Client, FingerprintHash::Sha512));
}

const H264: Codec = Codec { name: CodecName::H264, payload_type: 102, rtx_payload_type: Some(103), clock_rate: 90_000 };

#[test]
fn publishing_has_the_same_meaning_on_both_sides() {
    let Command::Publish(Publish { kind, codec, encodings, extensions, nack, pli, fir, codecs, .. }) =
        one("commands/publish")
    else {
        panic!("another command")
    };
    assert_eq!(kind, MediaKind::Video);
    let vp8 = Codec { name: CodecName::Vp8, payload_type: 96, rtx_payload_type: Some(97), clock_rate: 90_000 };
    assert_eq!(codec, vp8);
    assert_eq!(encodings[2], Encoding { rid: Some("f".to_string()), ssrc: None, rtx_ssrc: None, log: 1026 });
    assert_eq!((extensions[0].kind, extensions[11].kind), (ExtensionKind::Mid, ExtensionKind::ColorSpace));
    assert_eq!((nack, pli, fir), (true, true, false));
    assert_eq!(
        codecs,
        [TrackCodec { codec, nack, pli, fir }, TrackCodec { codec: H264, nack: true, pli: false, fir: true }]
    );
    let Command::Publish(alone) = one("commands/publish_without_rids") else { panic!("another command") };
    assert!(alone.codecs.is_empty());
    let Publish { codec, nack, pli, fir, .. } = alone.clone();
    assert_eq!(alone.track_codecs(), [TrackCodec { codec, nack, pli, fir }]);
}

#[test]
fn watching_has_the_same_meaning_on_both_sides() {
    let Command::Subscribe(Subscribe { ssrc, rtx_ssrc, .. }) = one("commands/subscribe") else { panic!() };
    assert_eq!((ssrc, rtx_ssrc), (0xdead_beef, Some(0xcafe_f00d)));
    let Command::Attach(Attach { formats, codec, .. }) = one("commands/attach") else { panic!("another command") };
    assert_eq!(formats, [Format { payload_type: 96, codec }, Format { payload_type: 102, codec: H264 }]);
    let names: Vec<_> = ["opus", "vp8", "vp9", "h264", "av1"]
        .iter()
        .map(|name| match one(&format!("commands/attach_{name}")) {
            Command::Attach(Attach { codec, .. }) => codec.name,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, [CodecName::Opus, CodecName::Vp8, CodecName::Vp9, CodecName::H264, CodecName::Av1]);
}

#[test]
fn a_report_has_the_same_meaning_on_both_sides() {
    let Event::TransportReport(report) = one("events/transport_report") else { panic!("another event") };
    assert_eq!(report.round_trip_ms, Some(12.5));
    assert_eq!(report.drops[1], ("rtp_duplicate".to_string(), 300));
    assert_eq!((report.publications[0].jitter_ms, report.subscriptions[1].publication), (0.125, None));
    let Event::TransportReport(TransportReport { state, remote_address, .. }) =
        one("events/transport_report_of_a_new_transport")
    else {
        panic!("another event")
    };
    assert_eq!((state.as_str(), remote_address), ("new", None));
}

#[test]
fn every_outcome_of_a_move_has_the_same_name_on_both_sides() {
    for outcome in
        [Outcome::Moved, Outcome::Handshaking, Outcome::NoRecord, Outcome::Busy, Outcome::Refused, Outcome::Unanswered]
    {
        let name = wire_name(outcome);
        let Event::MoveDone(done) = one(&format!("events/move_done_{name}")) else { panic!() };
        assert_eq!((done.outcome, done.slot), (outcome, 2));
    }
}

/// The name on the wire.
fn wire_name(outcome: Outcome) -> String {
    let packed = rmp_serde::to_vec(&outcome).unwrap();
    String::from_utf8(packed[1..].to_vec()).unwrap()
}

#[test]
fn a_command_that_is_not_known_or_has_a_field_too_many_is_refused() {
    // {"Unpublish": {"publication": 1, "more": 1}}
    let bytes = b"\x91\x81\xa9Unpublish\x82\xabpublication\x01\xa4more\x01";
    assert!(rmp_serde::from_slice::<Vec<Command>>(bytes).is_err());
    // {"Invented": {}}
    assert!(rmp_serde::from_slice::<Vec<Command>>(b"\x91\x81\xa8Invented\x80").is_err());
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/contract/golden")
}

fn read(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Reads one value and checks that it is packed to the same bytes again: the bytes name every field and value, so
/// equal bytes are equal values.
fn round_trip<T: DeserializeOwned + Serialize + Debug>(path: &Path) -> T {
    let bytes = read(path);
    let value: T = rmp_serde::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(rmp_serde::to_vec_named(&value).unwrap(), bytes, "{}: {value:?}", path.display());
    value
}

fn all<T: DeserializeOwned + Serialize + Debug>(folder: &str) -> Vec<T> {
    let entries = fs::read_dir(golden().join(folder)).unwrap();
    entries.flat_map(|entry| round_trip::<Vec<T>>(&entry.unwrap().path())).collect()
}

fn one<T: DeserializeOwned + Serialize + Debug>(name: &str) -> T {
    round_trip::<Vec<T>>(&golden().join(format!("{name}.hex"))).remove(0)
}

fn command_name(command: &Command) -> &'static str {
    match command {
        Command::OpenTransport(_) => "OpenTransport",
        Command::RestartIce(_) => "RestartIce",
        Command::CloseTransport(_) => "CloseTransport",
        Command::Publish(_) => "Publish",
        Command::Unpublish(_) => "Unpublish",
        Command::Subscribe(_) => "Subscribe",
        Command::Attach(_) => "Attach",
        Command::Detach(_) => "Detach",
        Command::Unsubscribe(_) => "Unsubscribe",
        Command::ReportTransport(_) => "ReportTransport",
        Command::SaveRecord(_) => "SaveRecord",
        Command::MoveTransport(_) => "MoveTransport",
        Command::SetWish(_) => "SetWish",
    }
}

fn event_name(event: &Event) -> &'static str {
    match event {
        Event::TransportConnected(_) => "TransportConnected",
        Event::TransportClosed(_) => "TransportClosed",
        Event::TransportStalled(_) => "TransportStalled",
        Event::PublicationStarted(_) => "PublicationStarted",
        Event::PublicationEnded(_) => "PublicationEnded",
        Event::CodecInUse(_) => "CodecInUse",
        Event::TransportReport(_) => "TransportReport",
        Event::CommandFailed(_) => "CommandFailed",
        Event::TransportAdopted(_) => "TransportAdopted",
        Event::AdoptionDone(_) => "AdoptionDone",
        Event::MoveDone(_) => "MoveDone",
        Event::PublisherSilent(_) => "PublisherSilent",
        Event::PublisherHeard(_) => "PublisherHeard",
    }
}
