//! All runs together: the median of each setting over its rounds, and how the servers stand to each other. Owns that
//! arithmetic; must never hide that rounds differ. Read `plot.rs` next.

use crate::report::Row;
use crate::scenarios::Axis;

/// One setting over all its rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub scenario: String,
    pub target: String,
    pub profile: &'static str,
    /// How many viewers, rooms or tracks.
    pub axis: Axis,
    pub size: usize,
    /// Nanoseconds a packet: median, least and most.
    pub cost: Option<[f64; 3]>,
    /// Medians: the cost relative to OpenSSL's AES-128-GCM of a packet, the ratio to the raw limit by GSO, ms.
    pub calibrated: Option<f64>,
    /// Of a sweep, nanoseconds for each packet in or out; without what the server does at rest; that relative to AES-GCM.
    pub in_out: Option<f64>,
    pub over_rest: Option<f64>,
    pub over_rest_calibrated: Option<f64>,
    pub ratio: Option<f64>,
    pub single_ratio: Option<f64>,
    pub paced_ratio: Option<f64>,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub delivered: Option<f64>,
}

pub fn lines(rows: &[Row]) -> Vec<Line> {
    let mut keys = Vec::new();
    for row in rows {
        if !keys.contains(&key(row)) {
            keys.push(key(row));
        }
    }
    keys.iter().map(|key| line(rows.iter().filter(|row| self::key(row) == *key).collect())).collect()
}

fn key(row: &Row) -> (&str, &str, &str, usize) {
    let setting = &row.setting;
    (&setting.scenario, &setting.target, setting.profile, row.size())
}

fn line(rows: Vec<&Row>) -> Line {
    let of = |value: fn(&Row) -> Option<f64>| rows.iter().filter_map(|row| value(row)).collect::<Vec<_>>();
    let costs = of(Row::ns_per_packet);
    let setting = &rows[0].setting;
    Line {
        scenario: setting.scenario.clone(),
        target: setting.target.clone(),
        profile: setting.profile,
        axis: setting.axis,
        size: rows[0].size(),
        cost: median(costs.clone()).map(|middle| {
            [middle, costs.iter().copied().fold(f64::MAX, f64::min), costs.iter().copied().fold(0.0, f64::max)]
        }),
        in_out: median(of(|row| row.rest_ns.and(row.ns_per_packet_in_out()))),
        over_rest: median(of(Row::ns_over_rest)),
        over_rest_calibrated: median(of(|row| Some(row.ns_over_rest()? / row.setting.aes_gcm_ns))),
        calibrated: median(of(|row| Some(row.ns_per_packet()? / row.setting.aes_gcm_ns))),
        ratio: median(of(|row| Some(row.ratios()?.1))),
        single_ratio: median(of(|row| Some(row.ratios()?.0))),
        paced_ratio: median(of(Row::paced_ratio)),
        p50: median(of(|row| Some(row.latency?.p50))),
        p99: median(of(|row| Some(row.latency?.p99))),
        delivered: of(|row| (row.expected > 0).then(|| row.delivered())).into_iter().reduce(f64::min),
    }
}

/// The median: of two middle values the lower, so that it is one that was measured.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// A table, as Markdown too.
pub fn to_text(lines: &[Line]) -> String {
    let number = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let is_sweep = lines.iter().any(|line| line.in_out.is_some());
    let axis = lines.first().map_or(Axis::Viewers, |line| line.axis).name();
    let mut names = vec!["scenario", "server", "SRTP", axis, "ns/packet", "least..most"];
    if is_sweep {
        names.extend(["in or out", "without rest"]);
    }
    names.extend(["packets/CPU s", "x AES-GCM", "to sendmmsg", "to GSO", "paced", "p50 ms", "p99 ms", "delivered"]);
    let mut table: Vec<Vec<String>> = vec![names.into_iter().map(str::to_owned).collect()];
    for line in lines {
        let mut cells = vec![
            line.scenario.clone(),
            line.target.clone(),
            line.profile.to_owned(),
            line.size.to_string(),
            number(line.cost.map(|cost| cost[0]), 0),
            line.cost.map_or("-".to_owned(), |cost| format!("{:.0}..{:.0}", cost[1], cost[2])),
        ];
        if is_sweep {
            cells.extend([number(line.in_out, 0), number(line.over_rest, 0)]);
        }
        cells.extend([
            number(line.cost.map(|cost| 1e9 / cost[0]), 0),
            number(line.calibrated, 1),
            number(line.single_ratio, 2),
            number(line.ratio, 2),
            number(line.paced_ratio, 2),
            number(line.p50, 3),
            number(line.p99, 3),
            line.delivered.map_or("-".to_owned(), |share| format!("{:.3} %", 100.0 * share)),
        ]);
        table.push(cells);
    }
    let widths: Vec<_> = (0..table[0].len()).map(|i| table.iter().map(|row| row[i].len()).max().unwrap_or(0)).collect();
    let write = |cells: &[String]| {
        let cells: Vec<_> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("| {} |", cells.join(" | "))
    };
    let mut text: Vec<_> = table.iter().map(|row| write(row)).collect();
    text.insert(1, format!("|{}|", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|")));
    text.extend(comparisons(lines));
    text.extend(courses(lines));
    text.join("\n")
}

/// The first server's packets per CPU second over each other server's, and the cost of crossing workers.
fn comparisons(lines: &[Line]) -> Vec<String> {
    let mut found = Vec::new();
    for line in lines {
        let same =
            |other: &&Line| (other.profile, other.size) == (line.profile, line.size) && other.target != line.target;
        let (name, profile, size, axis) = (&line.scenario, line.profile, line.size, line.axis.name());
        if line.target == lines[0].target {
            for other in lines.iter().filter(same).filter(|other| other.scenario == line.scenario) {
                if let (Some(own), Some(theirs)) = (line.cost, other.cost) {
                    let times = theirs[0] / own[0];
                    let (one, two) = (&line.target, &other.target);
                    found.push(format!(
                        "{name}, {profile}, {size} {axis}: {one} has {times:.2} times {two}'s packets per CPU second"
                    ));
                }
            }
        }
        if line.scenario == "spread, other worker" {
            let stayed = lines.iter().find(|other| {
                other.scenario == "spread, same worker"
                    && (other.profile, &other.target, other.size) == (line.profile, &line.target, line.size)
            });
            if let (Some(crossed), Some(stayed)) = (line.cost, stayed.and_then(|stayed| stayed.cost)) {
                let more = 100.0 * (crossed[0] / stayed[0] - 1.0);
                found.push(format!("{profile}, {size} {axis}: crossing workers costs {more:+.1} % a packet"));
            }
        }
    }
    found
}

/// How the cost of each sweep changes from the least size to the greatest. In units of that minute's AES-GCM, since the machine's speed
/// differs at each size.
fn courses(lines: &[Line]) -> Vec<String> {
    let mut found = Vec::new();
    for first in lines.iter().filter(|line| line.in_out.is_some()) {
        let same = |line: &&Line| {
            (&line.scenario, &line.target, line.profile) == (&first.scenario, &first.target, first.profile)
        };
        let mut course: Vec<&Line> = lines.iter().filter(same).collect();
        course.sort_by_key(|line| line.size);
        if course.len() < 2 || course[0] != first {
            continue;
        }
        let (name, profile, target) = (&first.scenario, first.profile, &first.target);
        let (least, most, axis) = (first.size, course[course.len() - 1].size, first.axis.name());
        for (what, value) in [
            ("forwarded packet", (|line| line.calibrated) as fn(&Line) -> Option<f64>),
            ("packet in or out, without rest,", |line| line.over_rest_calibrated),
        ] {
            let costs: Vec<f64> = course.iter().filter_map(|line| value(line)).collect();
            let (Some(one), Some(other), Some(growth)) = (costs.first(), costs.last(), growth(&costs)) else {
                continue;
            };
            found.push(format!(
                "{name}, {profile}, {target}: from {least} to {most} {axis} a {what} goes from {one:.1} to {other:.1} x AES-GCM; \
                 no size costs more than {growth:.2} times any smaller one"
            ));
        }
    }
    found
}

/// The largest ratio of a cost to an earlier one; `None` for a single cost.
fn growth(costs: &[f64]) -> Option<f64> {
    let mut least = *costs.first()?;
    let mut growth: Option<f64> = None;
    for cost in &costs[1..] {
        growth = Some(growth.unwrap_or(0.0).max(cost / least));
        least = least.min(*cost);
    }
    growth
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::{Cpu, Memory};
    use crate::report::Setting;
    use crate::viewer::Counts;

    fn row(scenario: &str, target: &str, cost: u64) -> Row {
        Row {
            setting: Setting {
                scenario: scenario.to_owned(),
                target: target.to_owned(),
                profile: "P",
                viewers: 7,
                axis: Axis::Viewers,
                aes_gcm_ns: 100.0,
                ..Setting::default()
            },
            counts: Counts { packets: 10, ..Counts::default() },
            expected: 10,
            server: Some((Cpu { total_ns: 10 * cost, ..Cpu::default() }, Memory::default())),
            ..Row::default()
        }
    }

    #[test]
    fn rounds_come_down_to_their_median_and_their_range() {
        let rows = [row("video", "a", 300), row("video", "b", 800), row("video", "a", 100), row("video", "a", 200)];
        let lines = lines(&rows);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].cost, lines[0].calibrated), (Some([200.0, 100.0, 300.0]), Some(2.0)));
        assert!(to_text(&lines).contains("a has 4.00 times b's packets"));
    }

    #[test]
    fn a_sweep_tells_how_its_cost_goes() {
        let at = |viewers, cost| {
            let mut row = row("viewers", "a", cost);
            row.setting.viewers = viewers;
            row.rest_ns = Some(0.0);
            row
        };
        let text = to_text(&lines(&[at(100, 150), at(10, 400), at(1_000, 180)]));
        assert!(text.contains("from 10 to 1000 viewers a forwarded packet goes from 4.0 to 1.8 x AES-GCM"), "{text}");
        assert!(text.contains("no size costs more than 1.20 times any smaller one"), "{text}");
        assert!(text.contains("without rest"));
    }

    #[test]
    fn crossing_workers_is_held_against_staying() {
        let lines = lines(&[row("spread, same worker", "a", 100), row("spread, other worker", "a", 107)]);
        assert!(to_text(&lines).contains("costs +7.0 % a packet"));
    }
}
