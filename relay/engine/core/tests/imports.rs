//! Holds the modules of the core to the imports that they may have: a module that is not on its list fails this test. Reads
//! the text of every file in `src`, tests included. Read `src/lib.rs` for the modules.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// A module, the modules that it may import besides itself, and why no others.
type Rule = (&'static str, &'static [&'static str], &'static str);

const RULES: &[Rule] = &[
    (
        "engine",
        &[
            "command",
            "config",
            "congestion",
            "deadlines",
            "drop",
            "event",
            "forgiving",
            "forward",
            "id_map",
            "message",
            "outbox",
            "rtcp",
            "rtp",
            "stats",
            "time",
            "transport",
        ],
        "the engine is where both halves meet; it may use everything",
    ),
    (
        "transport",
        &["command", "drop", "event", "outbox", "time"],
        "a transport knows addresses and keys and no publication: else neither half could be tested, moved or replaced alone",
    ),
    (
        "forward",
        &["codec", "command", "drop", "event", "rtcp", "rtp", "time"],
        "forwarding knows no address and no key: whoever rewrites packets must not be able to send or to seal one",
    ),
    (
        "congestion",
        &["rtcp", "rtp", "time"],
        "congestion control sees arrivals of a transport, whatever is published over it",
    ),
    ("codec", &["command"], "a payload is read by its bytes alone, without a header or a stream"),
    ("rtp", &["rtcp", "time"], "the form of packets is the same whoever sends or forwards them"),
    ("rtcp", &["time"], "the form of reports is the same whoever sends or forwards them"),
    ("stats", &["drop", "event", "outbox", "time"], "counting must not depend on what is counted"),
    ("deadlines", &["time"], "a heap of times serves whatever has one"),
    ("command", &[], "the contract with Python stands alone"),
    ("config", &[], "the contract with Python stands alone"),
    ("event", &[], "the contract with Python stands alone"),
    ("message", &[], "the contract with other workers stands alone"),
    ("drop", &[], "a reason is a name"),
    ("forgiving", &[], "reading what another release wrote knows no record's meaning"),
    ("id_map", &[], "a hash knows no key's meaning"),
    ("outbox", &[], "an outbox knows bytes and addresses, not what they are"),
    ("time", &[], "a time is a number"),
];

/// The modules that this text names by `crate::`, or by more `super::` than lead up to the top module's own.
fn imports(text: &str, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut room = depth;
    for line in text.lines().map(str::trim_start).filter(|line| !line.starts_with("//")) {
        if line.starts_with("mod tests {") {
            room += 1;
        }
        for path in line.split("crate::").skip(1) {
            let name: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            // A list (`crate::{...}`) has no name, which is on no list of modules either.
            found.push(name);
        }
        let climbed = line.split("super::").skip(1).scan((), |(), rest| rest.is_empty().then_some(())).count();
        if line.contains("super::") && climbed + 1 > room {
            found.push("super::".repeat(climbed + 1));
        }
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let below = folders.iter().flat_map(|folder| self::files(folder));
    files.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "rs")).chain(below).collect()
}

#[test]
fn each_module_imports_only_what_it_may() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in files(&source) {
        let inside = file.strip_prefix(&source).unwrap();
        if inside == Path::new("lib.rs") {
            continue;
        }
        let top = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let Some((_, allowed, reason)) = RULES.iter().find(|(name, ..)| *name == top) else {
            wrong.push(format!("{}: `{top}` has no rule here: say what it may import, and why", inside.display()));
            continue;
        };
        let depth = inside.components().count() - 1 - usize::from(inside.ends_with("mod.rs"));
        for name in imports(&fs::read_to_string(&file).unwrap(), depth) {
            if name != top && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{}: `{top}` must not import `{name}`: {reason}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_module_may_import_one_that_may_import_it() {
    for (name, allowed, _) in RULES {
        for (other, theirs, _) in RULES.iter().filter(|(other, ..)| allowed.contains(other)) {
            assert!(!theirs.contains(name), "{name} and {other}");
        }
    }
}

#[test]
fn an_import_is_seen_however_it_is_written() {
    let text = "// crate::comment\nuse crate::forward::feed::Feed;\nfn f(path: crate::outbox::Path) {}\n";
    assert_eq!(imports(text, 1), ["forward", "outbox"]);
    assert_eq!(imports("use crate::{forward, time};", 1), [""]);
    assert_eq!(imports("use super::forward;", 0), ["super::"]);
    assert_eq!(imports("use super::feed;\nuse super::super::transport::ice;", 1), ["super::super::"]);
    assert_eq!(imports("mod tests {\n    use super::super::feed;\n    use super::*;", 1), [""; 0]);
}
