//! Traits stay within their fields, shifting VP8's and VP9's picture numbers changes nothing else, and H264's parameter sets are kept as they
//! came.

use millrace_core::codec;
use millrace_core::codec::h264::{self, Part};
use millrace_core::codec::parameter_sets::{MAX_BYTES, ParameterSets};
use millrace_core::codec::picture_ids::{Numbers, Rewriter};
use millrace_core::codec::size;
use millrace_core::command::CodecName;

pub fn run(bytes: &[u8]) {
    let Some((choice, payload)) = bytes.split_first() else { return };
    let codecs = [CodecName::Opus, CodecName::Vp8, CodecName::Vp9, CodecName::H264, CodecName::Av1];
    let codec = codecs[usize::from(choice % 5)];
    let traits = codec::inspect(codec, payload);
    assert!(traits.spatial < 8 && traits.temporal < 8);
    assert!(!(traits.key_frame_start && traits.spatial != 0), "a start is of the lowest layer");
    assert!(size::size(codec, payload).is_none_or(|size| size.pixels() > 0));
    if codec == CodecName::H264 {
        keep_sets(payload);
    }
    let Some(before) = Numbers::parse(codec, payload) else { return };
    let mut shifted = payload.to_vec();
    let mut rewriter = Rewriter::default();
    rewriter.rewrite(codec, &mut shifted);
    assert_eq!(shifted, payload, "nothing is shifted before the first switch");
    rewriter.switch(codec, payload);
    rewriter.rewrite(codec, &mut shifted);
    assert_eq!(codec::inspect(codec, &shifted), traits);
    let after = Numbers::parse(codec, &shifted).expect("a descriptor stays one");
    if let (Some(before), Some(after)) = (before.picture_id, after.picture_id) {
        assert_eq!(after.value, (before.value + 1) & if before.long { 0x7fff } else { 0x7f });
    }
    let (tl0, next) = (before.tl0.map(|(tl0, at)| (tl0.wrapping_add(1), at)), after.tl0);
    assert_eq!(tl0, next);
}

fn keep_sets(payload: &[u8]) {
    let mut sets = ParameterSets::new();
    h264::each_part(payload, |part| {
        if let Part::Sps(unit) | Part::Pps(unit) = part {
            let has_changed = sets.take(unit);
            assert!(!has_changed || sets.as_bytes().ends_with(unit));
        }
    });
    assert!(sets.as_bytes().len() <= MAX_BYTES);
    let mut again = ParameterSets::new();
    for unit in sets.in_order() {
        h264::each_part(unit, |part| assert!(matches!(part, Part::Sps(whole) | Part::Pps(whole) if whole == unit)));
        again.take(unit);
    }
    assert!(again.in_order().eq(sets.in_order()));
}
