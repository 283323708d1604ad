//! One run's figures, as text for people and as JSON for machines. Owns how they are shown; must never measure. Read
//! `summary.rs` next.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::processes::{Cpu, Memory};
use crate::raw::{Burst, Raw};
use crate::scenarios::Axis;
use crate::viewer::{Counts, Findings};

/// What was run.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    pub scenario: String,
    pub target: String,
    pub profile: &'static str,
    pub round: usize,
    pub viewers: usize,
    pub publishers: usize,
    pub tracks: usize,
    /// Frames of each video, or packets of each sound.
    pub per_second: u32,
    pub axis: Axis,
    pub seconds: f64,
    /// Nanoseconds for a packet of this run's size by OpenSSL's AES-128-GCM, this minute.
    pub aes_gcm_ns: f64,
}

/// The outcome of a run.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub setting: Setting,
    pub counts: Counts,
    /// Packets that publishers sent, times their viewers.
    pub expected: u64,
    /// Packets that publishers sent.
    pub received: u64,
    pub burst: Option<Burst>,
    pub server: Option<(Cpu, Memory)>,
    pub generator: Cpu,
    pub raw: Option<Raw>,
    /// In a sweep: the server's CPU a second while nothing is sent.
    pub rest_ns: Option<f64>,
    pub latency: Option<Quantiles>,
    pub verified: Option<Verified>,
    /// Further figures of one scenario: name, value, unit.
    pub more: Vec<(&'static str, f64, &'static str)>,
    pub troubles: Vec<String>,
    pub failed: usize,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub most: f64,
}

impl Quantiles {
    /// `None` when there are no values.
    pub fn of(nanoseconds: &Histogram<u64>) -> Option<Quantiles> {
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1e6;
        let most = nanoseconds.max() as f64 / 1e6;
        (!nanoseconds.is_empty()).then(|| Quantiles { p50: at(0.5), p99: at(0.99), p999: at(0.999), most })
    }
}

/// What the sample of viewers measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verified {
    pub viewers: usize,
    pub authentic: u64,
    pub forged: u64,
    pub missing: u64,
    pub out_of_order: u64,
    pub strange: u64,
}

impl Verified {
    pub fn of(viewers: usize, findings: &Findings) -> Verified {
        Verified {
            viewers,
            authentic: findings.authentic,
            forged: findings.forged,
            missing: findings.missing,
            out_of_order: findings.out_of_order,
            strange: findings.strange,
        }
    }
}

impl Row {
    pub fn delivered(&self) -> f64 {
        (self.counts.packets + self.counts.repairs) as f64 / self.expected.max(1) as f64
    }

    /// Nanoseconds of the server's CPU for each packet that arrived.
    pub fn ns_per_packet(&self) -> Option<f64> {
        let (cpu, _) = self.server?;
        (self.counts.packets > 0).then(|| cpu.total_ns as f64 / self.counts.packets as f64)
    }

    /// Nanoseconds of the server's CPU for each packet that came in or went out. With few viewers of each publisher, half of the work is
    /// with the former.
    pub fn ns_per_packet_in_out(&self) -> Option<f64> {
        let (cpu, _) = self.server?;
        self.packets_in_out().map(|packets| cpu.total_ns as f64 / packets)
    }

    /// Nanoseconds for each packet in or out, without the server's CPU at rest, which weighs on the few packets of a small size.
    pub fn ns_over_rest(&self) -> Option<f64> {
        let (cpu, _) = self.server?;
        let media = (cpu.total_ns as f64 - self.rest_ns? * self.setting.seconds).max(0.0);
        self.packets_in_out().map(|packets| media / packets)
    }

    fn packets_in_out(&self) -> Option<f64> {
        (self.counts.packets > 0).then(|| (self.counts.packets + self.received) as f64)
    }

    /// The size that the scenario goes through.
    pub fn size(&self) -> usize {
        match self.setting.axis {
            Axis::Viewers => self.setting.viewers,
            Axis::Rooms => self.setting.publishers,
            Axis::Tracks => self.setting.tracks,
        }
    }

    /// The raw limit's cost over the server's: 1 is as good as the kernel alone. Single sends, then GSO.
    pub fn ratios(&self) -> Option<(f64, f64)> {
        let (cost, raw) = (self.ns_per_packet()?, self.raw?);
        Some((raw.single_ns / cost, raw.segmented_ns / cost))
    }

    /// The ratio to the raw limit by GSO sends in the call's own rhythm.
    pub fn paced_ratio(&self) -> Option<f64> {
        Some(self.raw?.paced_ns / self.ns_per_packet()?)
    }

    pub fn generator_share(&self) -> f64 {
        self.generator.total_ns as f64 / 1e9 / self.setting.seconds.max(1e-9)
    }

    pub fn to_json(&self) -> Value {
        let setting = &self.setting;
        let more: serde_json::Map<_, _> =
            self.more.iter().map(|(name, value, unit)| (format!("{name} ({unit})"), json!(value))).collect();
        json!({
            "scenario": setting.scenario, "target": setting.target, "profile": setting.profile,
            "round": setting.round, "viewers": setting.viewers, "publishers": setting.publishers,
            "tracks": setting.tracks, "per_second": setting.per_second,
            "seconds": setting.seconds, "aes_128_gcm_ns": setting.aes_gcm_ns,
            "packets": self.counts.packets, "expected": self.expected, "received": self.received, "delivered": self.delivered(),
            "datagram_bytes": self.burst.map(|burst| burst.size), "repairs": self.counts.repairs,
            "gaps": self.counts.gaps, "reordered": self.counts.reordered,
            "ns_per_packet": self.ns_per_packet(),
            "ns_per_packet_in_out": self.ns_per_packet_in_out(),
            "ns_per_packet_in_out_over_rest": self.ns_over_rest(), "rest_ns_a_second": self.rest_ns,
            "packets_per_cpu_second": self.ns_per_packet().map(|ns| 1e9 / ns),
            "server": self.server.map(|(cpu, memory)| json!({
                "cpu_seconds": cpu.total_ns as f64 / 1e9, "system_share": cpu.system_share(),
                "resident_bytes": memory.resident, "proportional_bytes": memory.proportional,
            })),
            "raw": self.raw.map(|raw| json!({
                "sendmmsg_ns": raw.single_ns, "gso_ns": raw.segmented_ns, "gso_paced_ns": raw.paced_ns,
                "arrived": raw.arrived,
            })),
            "ratio_to_sendmmsg": self.ratios().map(|(single, _)| single),
            "ratio_to_gso": self.ratios().map(|(_, segmented)| segmented),
            "ratio_to_gso_paced": self.paced_ratio(),
            "latency_ms": self.latency.map(|latency| json!({
                "p50": latency.p50, "p99": latency.p99, "p99.9": latency.p999, "max": latency.most,
            })),
            "verified": self.verified.map(|found| json!({
                "viewers": found.viewers, "authentic": found.authentic, "forged": found.forged,
                "missing": found.missing, "out_of_order": found.out_of_order, "strange": found.strange,
            })),
            "generator_cores": self.generator_share(), "more": more,
            "failed_clients": self.failed, "troubles": self.troubles,
        })
    }

    pub fn to_text(&self) -> String {
        let setting = &self.setting;
        let mut lines = vec![format!(
            "{}  {}  {}  {} viewers, {} publishers, {:.1} s; AES-128-GCM takes {:.0} ns a packet this minute",
            setting.scenario,
            setting.target,
            setting.profile,
            setting.viewers,
            setting.publishers,
            setting.seconds,
            setting.aes_gcm_ns,
        )];
        let mut add = |name: &str, text: String| lines.push(format!("  {name:<11}{text}"));
        if let Some(burst) = self.burst {
            let rate = self.counts.packets as f64 / setting.seconds;
            add(
                "forwarded",
                format!(
                    "{} packets of {} bytes, {rate:.0} a second; delivered {:.4} %, {} gaps, {} repaired, {} reordered",
                    self.counts.packets,
                    burst.size,
                    100.0 * self.delivered(),
                    self.counts.gaps,
                    self.counts.repairs,
                    self.counts.reordered,
                ),
            );
        }
        if let (Some((cpu, memory)), Some(ns)) = (self.server, self.ns_per_packet()) {
            let cores = cpu.total_ns as f64 / 1e9 / setting.seconds;
            let (rate, system) = (1e9 / ns, 100.0 * cpu.system_share());
            let (resident, proportional) = (mib(memory.resident), mib(memory.proportional));
            add(
                "cost",
                format!(
                    "{ns:.0} ns a packet, {rate:.0} packets per CPU second; {cores:.3} cores, {system:.0} % in the kernel",
                ),
            );
            add("memory", format!("{resident:.1} MiB resident, {proportional:.1} MiB proportional"));
        }
        if let (Some(rest), Some(both), Some(over)) = (self.rest_ns, self.ns_per_packet_in_out(), self.ns_over_rest()) {
            add(
                "",
                format!(
                    "{both:.0} ns a packet in or out, {over:.0} ns without the {:.2} ms a second of a server at rest; \
                     {} frames a second of each stream",
                    rest / 1e6,
                    setting.per_second,
                ),
            );
        }
        if let Some(raw) = self.raw {
            let (single, segmented) = self.ratios().unwrap_or_default();
            let (of_single, of_segmented) = (raw.single_ns, raw.segmented_ns);
            add(
                "raw limit",
                format!(
                    "sendmmsg {of_single:.0} ns (ratio {single:.2}), GSO {of_segmented:.0} ns (ratio {segmented:.2}), \
                     GSO in the call's rhythm {:.0} ns (ratio {:.2})",
                    raw.paced_ns,
                    self.paced_ratio().unwrap_or_default(),
                ),
            );
            if raw.arrived < 0.999 {
                add(
                    "",
                    format!("only {:.1} % of the raw packets arrived: the limit is flattered", 100.0 * raw.arrived),
                );
            }
        }
        if let Some(latency) = self.latency {
            add(
                "latency",
                format!(
                    "p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, most {:.3} ms",
                    latency.p50, latency.p99, latency.p999, latency.most,
                ),
            );
        }
        if let Some(found) = self.verified {
            add(
                "verified",
                format!(
                    "{} viewers: {} packets authentic, {} forged, {} missing, {} out of order, {} strange",
                    found.viewers, found.authentic, found.forged, found.missing, found.out_of_order, found.strange,
                ),
            );
        }
        for (name, value, unit) in &self.more {
            add("", format!("{name}: {value:.3} {unit}"));
        }
        add("generator", format!("{:.3} cores", self.generator_share()));
        if self.generator_share() > 0.95 {
            add("", "the generator was at its limit: use fewer viewers, or another core".to_owned());
        }
        if self.failed > 0 {
            add("failed", format!("{} clients: {}", self.failed, self.troubles.join("; ")));
        } else if !self.troubles.is_empty() {
            add("troubles", self.troubles.join("; "));
        }
        lines.join("\n")
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_and_ratios_follow_from_what_was_counted() {
        let row = Row {
            counts: Counts { packets: 1_000, repairs: 5, ..Counts::default() },
            expected: 1_010,
            server: Some((Cpu { total_ns: 2_000_000, user_ticks: 1, system_ticks: 3 }, Memory::default())),
            raw: Some(Raw { single_ns: 3_000.0, segmented_ns: 1_000.0, paced_ns: 1_200.0, arrived: 1.0 }),
            burst: Some(Burst { packets: 8, size: 1_128, rooms: 1, per_second: 30 }),
            setting: Setting { seconds: 1.0, ..Setting::default() },
            ..Row::default()
        };
        assert_eq!(row.ns_per_packet(), Some(2_000.0));
        assert_eq!(row.ratios(), Some((1.5, 0.5)));
        assert_eq!(row.paced_ratio(), Some(0.6));
        assert!((row.delivered() - 1_005.0 / 1_010.0).abs() < 1e-12);
        let json = row.to_json();
        assert_eq!(json["packets_per_cpu_second"], 500_000.0);
        assert_eq!(json["server"]["system_share"], 0.75);
        assert!(row.to_text().contains("GSO 1000 ns (ratio 0.50)"));
    }

    #[test]
    fn without_a_server_to_look_at_there_is_no_cost() {
        let row = Row { counts: Counts { packets: 1, ..Counts::default() }, ..Row::default() };
        assert_eq!((row.ns_per_packet(), row.ratios()), (None, None));
        assert!(row.to_json()["ns_per_packet"].is_null());
    }
}
