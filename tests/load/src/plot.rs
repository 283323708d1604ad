//! A picture of cost and latency against the number of viewers, rooms or tracks, one line for each scenario, server and SRTP profile. Owns how it is
//! drawn, with a font of its own so that every machine draws the same; must never choose what is shown. Read `canvas.rs`
//! next.

use std::path::Path;

use anyhow::Result;

use crate::canvas::{Canvas, Color};
use crate::scenarios::Axis;
use crate::summary::Line;

const WIDTH: usize = 1_200;
const HEIGHT: usize = 520;
/// The ratio of the largest size to the least from which sizes are drawn by their logarithms.
const WIDE: f64 = 20.0;
const INK: Color = [40, 44, 52];
const GRID: Color = [226, 228, 232];
/// Colours that the colour-blind can tell apart (Okabe and Ito).
const COLORS: [Color; 6] = [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [230, 159, 0], [86, 180, 233]];

/// A curve: its name, and points of size and value.
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Where one diagram lies.
struct Frame {
    left: i32,
    top: i32,
    width: i32,
    height: i32,
}

/// Writes the picture as a PNG.
pub fn write(path: &Path, scenario: &str, lines: &[Line]) -> Result<()> {
    let mut canvas = Canvas::new(WIDTH, HEIGHT);
    let axis = lines.first().map_or(Axis::Viewers, |line| line.axis).name();
    canvas.text(40, 16, 2, INK, &format!("{scenario}: cost and latency against {axis}"));
    let mut cost = curves(lines, |line| line.cost.map(|cost| cost[0] / 1_000.0));
    if lines.iter().any(|line| line.over_rest.is_some()) {
        let over_rest = curves(lines, |line| line.over_rest.map(|cost| cost / 1_000.0));
        cost.extend(
            over_rest.into_iter().map(|curve| Curve { name: curve.name + ": in or out, without rest", ..curve }),
        );
    }
    let latency = curves(lines, |line| line.p99);
    let frame = |left| Frame { left, top: 90, width: 480, height: 330 };
    diagram(&mut canvas, &frame(80), "CPU of the server, us a packet", axis, &cost);
    diagram(&mut canvas, &frame(670), "latency p99, ms", axis, &latency);
    for (place, curve) in cost.iter().enumerate() {
        let (column, line) = ((place % 2) as i32, (place / 2) as i32);
        let (x, y) = (80 + 560 * column, 470 + 16 * line);
        canvas.disc(x, y + 4, 5, COLORS[place % COLORS.len()]);
        canvas.text(x + 12, y, 1, INK, &curve.name);
    }
    canvas.save(path)
}

fn curves(lines: &[Line], value: fn(&Line) -> Option<f64>) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for line in lines {
        let name = format!("{}, {}, {}", line.scenario, line.target, line.profile);
        let point = value(line).map(|value| (line.size as f64, value));
        match curves.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.points.extend(point),
            None => curves.push(Curve { name, points: point.into_iter().collect() }),
        }
    }
    curves.iter_mut().for_each(|curve| curve.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    curves
}

fn diagram(canvas: &mut Canvas, frame: &Frame, title: &str, axis: &str, curves: &[Curve]) {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let (least, most) = points()
        .map(|point| point.0)
        .fold((f64::MAX, 1.0), |(least, most), size| (least.min(size), f64::max(most, size)));
    let (step, top) = scale(points().map(|point| point.1).fold(0.0, f64::max));
    // Sizes that differ much would lie together at the left, so they are drawn by their logarithms.
    let is_wide = most / least >= WIDE;
    let part = |size: f64| if is_wide { (size / least).ln() / (most / least).ln() } else { size / most };
    let x = |size: f64| frame.left + (part(size) * f64::from(frame.width)) as i32;
    let y = |value: f64| frame.top + frame.height - (value / top * f64::from(frame.height)) as i32;
    canvas.text(frame.left, frame.top - 28, 1, INK, title);
    let mut mark = 0.0;
    while mark <= top * 1.001 {
        canvas.line((frame.left, y(mark)), (frame.left + frame.width, y(mark)), 1, GRID);
        let label = format!("{mark:.*}", if step < 0.1 { 2 } else { usize::from(step < 1.0) });
        canvas.text(frame.left - 8 * label.len() as i32 - 8, y(mark) - 4, 1, INK, &label);
        mark += step;
    }
    let mut counts: Vec<_> = points().map(|point| point.0).collect();
    counts.sort_by(f64::total_cmp);
    counts.dedup();
    for count in counts {
        let label = format!("{count}");
        canvas.text(x(count) - 4 * label.len() as i32, frame.top + frame.height + 10, 1, INK, &label);
    }
    canvas.text(frame.left + frame.width / 2 - 28, frame.top + frame.height + 28, 1, INK, axis);
    canvas.line((frame.left, y(0.0)), (frame.left + frame.width, y(0.0)), 1, INK);
    for (place, curve) in curves.iter().enumerate() {
        let color = COLORS[place % COLORS.len()];
        for pair in curve.points.windows(2) {
            canvas.line((x(pair[0].0), y(pair[0].1)), (x(pair[1].0), y(pair[1].1)), 2, color);
        }
        for point in &curve.points {
            canvas.disc(x(point.0), y(point.1), 4, color);
        }
    }
}

/// A step of 1, 2 or 5 times a power of ten that makes at most six marks, and the highest mark.
fn scale(most: f64) -> (f64, f64) {
    let most = if most > 0.0 { most } else { 1.0 };
    let power = 10f64.powf((most / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| most / step <= 5.0);
    let step = step.unwrap_or(10.0 * power);
    (step, (most / step).ceil() * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_numbers_above_the_highest_value() {
        for (most, expected) in [(4.7, (1.0, 5.0)), (9.0, (2.0, 10.0)), (0.3, (0.1, 0.3)), (130.0, (50.0, 150.0))] {
            let (step, top) = scale(most);
            assert!((step - expected.0).abs() < 1e-9 && (top - expected.1).abs() < 1e-9, "{most}: {step} {top}");
        }
        assert_eq!(scale(0.0).1, 1.0);
    }

    #[test]
    fn a_picture_of_two_servers_is_written_and_can_be_read_again() {
        let line = |target: &str, viewers, cost| Line {
            scenario: "video".to_owned(),
            target: target.to_owned(),
            profile: "AEAD_AES_128_GCM",
            axis: Axis::Viewers,
            size: viewers,
            cost: Some([cost, cost, cost]),
            calibrated: None,
            in_out: None,
            over_rest: Some(cost / 2.0),
            over_rest_calibrated: None,
            ratio: None,
            single_ratio: None,
            paced_ratio: None,
            p50: None,
            p99: Some(0.4),
            delivered: Some(1.0),
        };
        let lines = [line("one", 50, 2_000.0), line("one", 500, 2_100.0), line("two", 50, 9_000.0)];
        let path = std::env::temp_dir().join(format!("millrace-load-{}.png", std::process::id()));
        write(&path, "video", &lines).unwrap();
        let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
        let reader = png::Decoder::new(file).read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), (WIDTH as u32, HEIGHT as u32));
        std::fs::remove_file(&path).unwrap();
    }
}
