//! The machine's speed this minute: OpenSSL's AES-128-GCM over packets of a given size, on the server's core. It is shown beside every
//! figure, as figures of different minutes can be compared with it only. Must never run while a server is measured. Read `report.rs` next.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtx;

use crate::clock;
use crate::machine;

const LENGTH: Duration = Duration::from_millis(200);

/// Nanoseconds for one packet of `size` bytes: a new IV and a tag each, as in SRTP.
pub fn aes_128_gcm_ns(size: usize, cpu: usize) -> Result<f64> {
    let measured = thread::spawn(move || -> Result<f64> {
        machine::pin(cpu)?;
        let mut context = CipherCtx::new()?;
        context.encrypt_init(Some(Cipher::aes_128_gcm()), Some(&[7; 16]), Some(&[0; 12]))?;
        let (plain, mut sealed, mut tag) = (vec![1; size], vec![0; size + 16], [0; 16]);
        let (mut packets, began) = (0u64, clock::thread_cpu());
        loop {
            for _ in 0..256 {
                let mut iv = [0; 12];
                iv[4..].copy_from_slice(&packets.to_be_bytes());
                context.encrypt_init(None, None, Some(&iv))?;
                context.cipher_update(&plain, Some(&mut sealed))?;
                context.cipher_final(&mut sealed)?;
                context.tag(&mut tag)?;
                packets += 1;
            }
            let spent = clock::thread_cpu() - began;
            if u128::from(spent) > LENGTH.as_nanos() {
                return Ok(spent as f64 / packets as f64);
            }
        }
    });
    measured.join().map_err(|_| anyhow!("the measuring thread panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_packet_takes_longer() {
        let cpu = machine::cores()[0];
        let (short, long) = (aes_128_gcm_ns(100, cpu).unwrap(), aes_128_gcm_ns(10_000, cpu).unwrap());
        assert!(0.0 < short && short < long);
    }
}
