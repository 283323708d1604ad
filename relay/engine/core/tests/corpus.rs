//! Replays every fuzz input of the corpora through the function that found it, or was seeded with it, on a stable compiler. Must
//! never need libFuzzer. Read `fuzz/src/lib.rs` next: it lists the targets.

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

#[test]
fn every_kept_input_passes_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, run) in targets::ALL {
        let directory = corpus.join(name);
        let mut inputs: Vec<_> = std::fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "no seed for {name}");
        for input in inputs {
            let bytes = std::fs::read(&input).unwrap();
            assert!(std::panic::catch_unwind(|| run(&bytes)).is_ok(), "{}", input.display());
        }
    }
}
