//! Reads the vector files under `tests/vectors` for the unit tests of this half: a name at the start of a line, its
//! hex after it and on indented lines below. Must never be part of a build that is not a test.

/// The bytes under this name.
pub(super) fn vector(text: &str, name: &str) -> Vec<u8> {
    let mut found = false;
    let mut hex = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace().peekable();
        if !line.starts_with(' ') {
            found = words.next() == Some(name);
        }
        if found {
            hex.extend(words);
        }
    }
    assert!(!hex.is_empty(), "no vector {name}");
    let digit = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).expect("vectors are hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}
