//! The core's SHA-1 over many messages, compiled for several CPUs' vectors. Owns the choice by this CPU; must never contain
//! arithmetic. Read the core's `transport/srtp/sha1_lanes.rs` next.

use millrace_core::transport::srtp::sha1_lanes::Kernel;

/// The fastest kernel of this CPU. `None` where one message after the other is faster, as on every CPU without wide vectors.
pub fn kernel() -> Option<Kernel> {
    kernels().next()
}

/// The kernels that this CPU can run, the fastest first.
#[cfg(target_arch = "x86_64")]
fn kernels() -> impl Iterator<Item = Kernel> {
    use millrace_core::transport::srtp::sha1_lanes::{LANES, State, compress};

    #[target_feature(enable = "avx512f,avx512bw")]
    fn avx512(state: &mut State, messages: &[&[u8]; LANES]) {
        compress(state, messages);
    }

    #[target_feature(enable = "avx2")]
    fn avx2(state: &mut State, messages: &[&[u8]; LANES]) {
        compress(state, messages);
    }

    let mut found: [Option<Kernel>; 2] = [None; 2];
    if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bw") {
        // SAFETY: the CPU has just said that it has the features.
        found[0] = Some(|state, messages| unsafe { avx512(state, messages) });
    }
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has just said that it has the feature.
        found[1] = Some(|state, messages| unsafe { avx2(state, messages) });
    }
    found.into_iter().flatten()
}

#[cfg(not(target_arch = "x86_64"))]
fn kernels() -> impl Iterator<Item = Kernel> {
    std::iter::empty()
}

#[cfg(test)]
mod tests {
    use millrace_core::transport::srtp::sha1_lanes::{LANES, portable};

    use super::*;

    #[test]
    fn every_kernel_that_this_cpu_can_run_agrees_with_the_portable_one() {
        // Any numbers will do; these come from a multiplicative generator (Knuth's constants).
        let mut seed = 1u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 32) as u32
        };
        for blocks in [0, 1, 2, 3, 18] {
            let bytes: Vec<Vec<u8>> = (0..LANES).map(|_| (0..blocks * 64).map(|_| next() as u8).collect()).collect();
            let messages = std::array::from_fn(|lane| &bytes[lane][..]);
            let start = std::array::from_fn(|_| std::array::from_fn(|_| next()));
            let mut expected = start;
            portable(&mut expected, &messages);
            for (place, kernel) in kernels().enumerate() {
                let mut state = start;
                kernel(&mut state, &messages);
                assert_eq!(state, expected, "kernel {place} with {blocks} blocks");
            }
        }
    }
}
