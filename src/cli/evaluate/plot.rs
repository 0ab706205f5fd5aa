//! Curves as pictures: what is missed for what is lost, and how the filter learns.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use crate::learn::{Scored, measure};

const SIZE: (u32, u32) = (760, 520);
/// Messages of one point of the curve of learning.
const WINDOW: usize = 500;
/// The least share that is drawn, in per cent: a logarithm of none is nowhere.
const LEAST: f64 = 0.01;

/// Draws `roc.svg` and `learning.svg` into a folder that exists. The scores are in the order of their messages.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn draw(folder: &Path, scored: &[Scored]) -> anyhow::Result<()> {
    let axes = ["ham lost, %", "spam missed, %"];
    curve(&folder.join("roc.svg"), axes, &roc(scored))
        .map_err(|error| anyhow!("drawing roc.svg: {error}"))?;
    let axes = ["messages", "1-ROCA %, of the last 500"];
    curve(&folder.join("learning.svg"), axes, &learning(scored))
        .map_err(|error| anyhow!("drawing learning.svg: {error}"))
}

/// Returns the share of ham lost and of spam missed at every threshold that changes either.
fn roc(scored: &[Scored]) -> Vec<(f64, f64)> {
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
    let spam = sorted.iter().filter(|scored| scored.is_spam).count() as f64;
    let ham = sorted.len() as f64 - spam;
    let (mut lost, mut found) = (0.0, 0.0);
    let mut points = Vec::new();
    for equal in sorted.chunk_by(|a, b| a.score == b.score) {
        let spam_here = equal.iter().filter(|scored| scored.is_spam).count() as f64;
        found += spam_here;
        lost += equal.len() as f64 - spam_here;
        points.push((100.0 * lost / ham.max(1.0), 100.0 * (spam - found) / spam.max(1.0)));
    }
    points
}

/// Returns the error of windows of messages, each at its end.
fn learning(scored: &[Scored]) -> Vec<(f64, f64)> {
    let windows = scored.chunks(WINDOW).enumerate();
    let error = |(number, window): (usize, &[Scored])| {
        Some(((number * WINDOW + window.len()) as f64, measure(window)?.roca_error))
    };
    windows.filter_map(error).collect()
}

fn curve(
    path: &Path,
    [x_name, y_name]: [&str; 2],
    points: &[(f64, f64)],
) -> Result<(), Box<dyn std::error::Error>> {
    let points: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.max(LEAST), y.max(LEAST))).collect();
    let most = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).fold(1.0, f64::max);
    let (right, top) = (most(|point| point.0), most(|point| point.1));
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut builder = ChartBuilder::on(&area);
    builder.margin(16).x_label_area_size(48).y_label_area_size(64);
    let mut chart = builder.build_cartesian_2d((LEAST..right).log_scale(), (LEAST..top).log_scale())?;
    chart.configure_mesh().x_desc(x_name).y_desc(y_name).label_style(("sans-serif", 14)).draw()?;
    chart.draw_series(LineSeries::new(points, BLUE.stroke_width(2)))?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(score: f64, is_spam: bool) -> Scored {
        Scored { score, is_spam, is_kept: false }
    }

    #[test]
    fn the_curve_has_a_point_for_each_threshold() {
        let scored = [scored(3.0, true), scored(2.0, false), scored(1.0, true), scored(1.0, false)];
        assert_eq!(roc(&scored), [(0.0, 50.0), (50.0, 50.0), (100.0, 0.0)]);
    }

    #[test]
    fn pictures_are_written_even_of_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for scores in [&[][..], &[scored(1.0, true), scored(0.0, false)]] {
            draw(folder.path(), scores).unwrap();
            let text = std::fs::read_to_string(folder.path().join("roc.svg")).unwrap();
            assert!(text.starts_with("<svg") && text.contains("ham lost"), "{text}");
            assert!(folder.path().join("learning.svg").exists());
        }
    }
}
