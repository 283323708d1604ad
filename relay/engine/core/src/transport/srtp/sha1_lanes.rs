//! SHA-1's compression of many messages side by side, one to a SIMD lane: plain code that the compiler turns into vectors where a
//! caller allows it more than the baseline (the shell does, after asking the CPU). Owns the rounds of FIPS 180-4 section 6.1.2;
//! must never know what is hashed. Read `tags.rs` next, which fills the lanes.
//!
//! No branch and no address depends on what the messages say, so the time tells nothing about them.

/// Messages side by side: a 512-bit register of 32-bit words, or two of 256 bits.
pub const LANES: usize = 16;

/// One word of every lane.
pub type Lanes = [u32; LANES];

/// The chaining values a..e of every lane.
pub type State = [Lanes; 5];

/// Hashes all blocks of the messages. Each message is whole blocks of 64 bytes, and all have equally many.
pub type Kernel = fn(&mut State, &[&[u8]; LANES]);

const BLOCK: usize = 64;

/// The kernel on the baseline of the target; slower than one message after the other where the CPU has SHA instructions.
pub fn portable(state: &mut State, messages: &[&[u8]; LANES]) {
    compress(state, messages);
}

/// To be inlined into a function with the wanted target features.
#[inline(always)]
pub fn compress(state: &mut State, messages: &[&[u8]; LANES]) {
    let blocks = messages.iter().map(|message| message.len()).min().unwrap_or(0) / BLOCK;
    // Each block is laid out across the lanes while the one before it is worked on: a vector read of words that were only just
    // written one by one would wait for all of them.
    let mut ahead = [[0; LANES]; 16];
    for block in 0..=blocks {
        let words = ahead;
        if block < blocks {
            spread(messages, block, &mut ahead);
        }
        if block > 0 {
            take_block(state, words);
        }
    }
}

/// Word `i` of every message's block to `words[i]`.
#[inline(always)]
fn spread(messages: &[&[u8]; LANES], block: usize, words: &mut [Lanes; 16]) {
    for (lane, message) in messages.iter().enumerate() {
        let (quads, _) = message[block * BLOCK..][..BLOCK].as_chunks::<4>();
        for (word, bytes) in words.iter_mut().zip(quads) {
            word[lane] = u32::from_be_bytes(*bytes);
        }
    }
}

#[inline(always)]
fn take_block(state: &mut State, mut words: [Lanes; 16]) {
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    // The five values change their names instead of their places.
    macro_rules! round {
        ($a:ident $b:ident $c:ident $d:ident $e:ident, $t:expr, $k:expr, $f:expr) => {
            if $t >= 16 {
                let (x, y, z) = (words[($t + 13) % 16], words[($t + 8) % 16], words[($t + 2) % 16]);
                let word = &mut words[$t % 16];
                for i in 0..LANES {
                    word[i] = (word[i] ^ x[i] ^ y[i] ^ z[i]).rotate_left(1);
                }
            }
            let word = &words[$t % 16];
            for i in 0..LANES {
                let mixed = $a[i].rotate_left(5).wrapping_add($f($b[i], $c[i], $d[i]));
                $e[i] = $e[i].wrapping_add(mixed).wrapping_add(word[i].wrapping_add($k));
                $b[i] = $b[i].rotate_left(30);
            }
        };
    }
    macro_rules! five_rounds {
        ($t:expr, $k:expr, $f:expr) => {
            round!(a b c d e, $t, $k, $f);
            round!(e a b c d, $t + 1, $k, $f);
            round!(d e a b c, $t + 2, $k, $f);
            round!(c d e a b, $t + 3, $k, $f);
            round!(b c d e a, $t + 4, $k, $f);
        };
    }
    macro_rules! twenty_rounds {
        ($t:expr, $k:expr, $f:expr) => {
            five_rounds!($t, $k, $f);
            five_rounds!($t + 5, $k, $f);
            five_rounds!($t + 10, $k, $f);
            five_rounds!($t + 15, $k, $f);
        };
    }
    let choose = |b: u32, c: u32, d: u32| d ^ (b & (c ^ d));
    let parity = |b: u32, c: u32, d: u32| b ^ c ^ d;
    let majority = |b: u32, c: u32, d: u32| (b & c) | (d & (b | c));
    twenty_rounds!(0, 0x5a82_7999, choose);
    twenty_rounds!(20, 0x6ed9_eba1, parity);
    twenty_rounds!(40, 0x8f1b_bcdc, majority);
    twenty_rounds!(60, 0xca62_c1d6, parity);
    for (kept, new) in state.iter_mut().zip([a, b, c, d, e]) {
        for (kept, new) in kept.iter_mut().zip(new) {
            *kept = kept.wrapping_add(new);
        }
    }
}
