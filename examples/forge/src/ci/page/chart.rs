//! The fleet over time, as one small drawing: workers wanted and there, above the load that they carry.

use maud::{Markup, html};

use super::text::ago;
use crate::ci::view::{FleetPoint, FleetView};

const WIDTH: u64 = 560;
const HEIGHT: u64 = 120;
/// How much of the past is drawn: all there is, within these.
const MOST_MS: u64 = 10 * 60 * 1000;
const LEAST_MS: u64 = 60 * 1000;

pub(super) fn fleet(fleet: &FleetView, now_ms: u64) -> Markup {
    let first = fleet.points.first().map_or(now_ms, |p| p.at_ms);
    let from = now_ms.saturating_sub(now_ms.saturating_sub(first).clamp(LEAST_MS, MOST_MS));
    let points = window(&fleet.points, from);
    let most = points.iter().map(|p| p.load.max(p.target).max(p.ready)).max().unwrap_or(0).max(fleet.max).max(1);
    let at = Scale { from, now_ms, most };
    html! {
        figure.chart {
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                aria-label="workers wanted, workers there and load over the last minutes" {
                @for line in 1..=3_u64 {
                    line.grid x1="0" x2=(WIDTH) y1=(HEIGHT * line / 4) y2=(HEIGHT * line / 4) {}
                }
                path.load d=(at.area(&points, |p| p.load)) {}
                path.target d=(at.steps(&points, |p| p.target)) {}
                path.ready d=(at.steps(&points, |p| p.ready)) {}
            }
            figcaption {
                span { (ago(now_ms, from)) }
                span.key.ready { "workers" }
                span.key.target { "wanted" }
                span.key.load { "jobs waiting or running (top: " (most) ")" }
                span { "now" }
            }
        }
    }
}

/// The points of the window, and the last one before it at its edge.
fn window(points: &[FleetPoint], from: u64) -> Vec<FleetPoint> {
    let begin = points.partition_point(|p| p.at_ms < from);
    let before = begin.checked_sub(1).and_then(|at| points.get(at)).map(|p| FleetPoint { at_ms: from, ..*p });
    before.into_iter().chain(points[begin..].iter().copied()).collect()
}

struct Scale {
    from: u64,
    now_ms: u64,
    most: u32,
}

impl Scale {
    fn x(&self, at_ms: u64) -> u64 {
        let span = self.now_ms.saturating_sub(self.from).max(1);
        at_ms.saturating_sub(self.from).min(span) * WIDTH / span
    }

    fn y(&self, value: u32) -> u64 {
        let inner = HEIGHT - 8;
        4 + inner - inner * u64::from(value) / u64::from(self.most)
    }

    fn steps(&self, points: &[FleetPoint], of: impl Fn(&FleetPoint) -> u32) -> String {
        let Some(first) = points.first() else { return String::new() };
        let begin = format!("M{} {}", self.x(first.at_ms), self.y(of(first)));
        let steps = points[1..].iter().map(|point| format!("H{}V{}", self.x(point.at_ms), self.y(of(point))));
        let end = format!("H{}", self.x(self.now_ms));
        std::iter::once(begin).chain(steps).chain([end]).collect()
    }

    fn area(&self, points: &[FleetPoint], of: impl Fn(&FleetPoint) -> u32) -> String {
        let Some(first) = points.first() else { return String::new() };
        format!("{}V{HEIGHT}H{}Z", self.steps(points, of), self.x(first.at_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_begins_at_the_window_and_ends_now() {
        let point = |at_ms, ready| FleetPoint { at_ms, target: 4, ready, load: 0 };
        let points = window(&[point(0, 1), point(1000, 2), point(1500, 4)], 500);
        assert_eq!(points[0], point(500, 1));
        let scale = Scale { from: 500, now_ms: 1500, most: 4 };
        assert_eq!(scale.steps(&points, |p| p.ready), "M0 88H280V60H560V4H560");
        assert_eq!(scale.steps(&[], |p| p.ready), "");
    }
}
