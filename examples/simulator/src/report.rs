//! A page that shows a day: self-contained, without a script, readable in print and at any width.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::day::{Plan, Sample, Summary};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2228; --muted: #656d76; --line: #d8dee4; --back: #fff; --a: #0b6b5d; --b: #8250df; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --muted: #9198a1; --line: #3d444d; --back: #0d1117; --a: #3fb59f; --b: #ab7df8; --bad: #ff7b72; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 1100px; margin: 0 auto; padding: 20px; }
h1 { font-size: 22px; } h2 { font-size: 16px; margin: 28px 0 4px; } p.note { color: var(--muted); margin: 0 0 6px; }
svg { width: 100%; height: auto; display: block; } svg text { font: 11px system-ui, sans-serif; fill: var(--muted); }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: 4px 12px 4px 0; border-top: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 16px 0; }
.facts div { border: 1px solid var(--line); border-radius: 8px; padding: 8px 12px; } .facts b { display: block; font-size: 19px; }
code { font-size: 13px; overflow-wrap: anywhere; }
";

const WIDTH: u64 = 1_000;
const HEIGHT: u64 = 140;
const LEFT: u64 = 46;

/// A line of one colour over the day.
struct Line<'a> {
    name: &'a str,
    color: &'a str,
    values: Vec<u64>,
}

fn clock(ms: u64) -> String {
    format!("{}:{:02}", ms / 3_600_000, ms / 60_000 % 60)
}

fn chart(summary: &Summary, title: &str, note: &str, lines: &[Line<'_>]) -> Markup {
    let most = lines.iter().flat_map(|line| &line.values).copied().max().unwrap_or(0).max(1);
    let (from, to) = bounds(summary);
    let x = |at: u64| LEFT + (at.saturating_sub(from)) * (WIDTH - LEFT) / (to - from).max(1);
    let y = |value: u64| HEIGHT - 20 - value * (HEIGHT - 32) / most;
    html! {
        h2 { (title) }
        p.note {
            (note)
            @for line in lines { " " span style={ "color: " (line.color) } { "— " (line.name) } }
        }
        svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ (title) ": at most " (most) } {
            @for step in [0, most / 2, most] {
                line x1=(LEFT) x2=(WIDTH) y1=(y(step)) y2=(y(step)) stroke="var(--line)" {}
                text x="0" y=(y(step) + 4) { (step) }
            }
            @for (at, fault) in &summary.faults {
                line x1=(x(*at)) x2=(x(*at)) y1="4" y2=(HEIGHT - 20) stroke="var(--bad)" stroke-dasharray="2 3" {
                    title { (clock(*at)) " " (fault) }
                }
            }
            @for line in lines {
                @let points = line.values.iter().zip(&summary.samples)
                    .map(|(value, sample)| format!("{},{}", x(sample.at), y(*value))).collect::<Vec<_>>().join(" ");
                polyline points=(points) fill="none" stroke=(line.color) stroke-width="1.6" {}
            }
            @for quarter in 0..=4 {
                @let at = from + (to - from) * quarter / 4;
                text x=(x(at).min(WIDTH - 32)) y=(HEIGHT - 4) { (clock(at)) }
            }
        }
    }
}

fn bounds(summary: &Summary) -> (u64, u64) {
    let at = |sample: Option<&Sample>| sample.map_or(0, |sample| sample.at);
    (at(summary.samples.first()), at(summary.samples.last()))
}

fn percent(good: u64, bad: u64) -> String {
    let share = (good * 10_000).checked_div(good + bad);
    share.map_or_else(|| "none".into(), |share| format!("{}.{:02} %", share / 100, share % 100))
}

fn series(summary: &Summary, of: impl Fn(&Sample) -> u64) -> Vec<u64> {
    summary.samples.iter().map(of).collect()
}

/// The page of a day that passed.
pub(crate) fn page(plan: &Plan, summary: &Summary, command: &str) -> String {
    let title = format!("A {} day, seed {}", format!("{:?}", plan.weather).to_lowercase(), plan.seed);
    let line = |name, color, values| Line { name, color, values };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                p.note {
                    (plan.repos) " repositories, " (plan.routers) " routers, " (plan.engines) " task centres, " (plan.hours)
                    " hours. Every law held: no write that was acknowledged is lost, no read is stale, every job is done once and in "
                    "order, no limit is exceeded; and " (summary.healed_ms / 60_000) " minutes after the last fault all was well."
                }
                div.facts {
                    div { b { (percent(summary.pushes, summary.failed_pushes)) } "of pushes applied" }
                    div { b { (percent(summary.reads, summary.failed_reads)) } "of reads served in 30 s" }
                    div { b { (summary.results) } "jobs done" }
                    div { b { (summary.peak) } "instances at most" }
                    div { b { (summary.faults.len()) } "faults" }
                    div { b { (summary.events) } "events" }
                }
                (chart(summary, "Pushes", "In each slice of the day. Dashed: a fault.", &[
                    line("applied", "var(--a)", series(summary, |s| s.pushes)),
                    line("not applied", "var(--bad)", series(summary, |s| s.failed_pushes)),
                ]))
                (chart(summary, "Reads", "", &[
                    line("served", "var(--a)", series(summary, |s| s.reads)),
                    line("not in time", "var(--bad)", series(summary, |s| s.failed_reads)),
                ]))
                (chart(summary, "Jobs and the fleet", "", &[
                    line("jobs that wait or run", "var(--b)", series(summary, |s| s.load)),
                    line("instances wanted", "var(--muted)", series(summary, |s| u64::from(s.target))),
                    line("instances that serve", "var(--a)", series(summary, |s| u64::from(s.serving))),
                ]))
                h2 { "How long jobs waited for a worker" }
                table {
                    tr { th { "at most" } th { "jobs" } }
                    @for (class, count) in summary.waits.iter().enumerate().filter(|(_, count)| **count > 0) {
                        tr { td { (duration(1 << class)) } td.n { (count) } }
                    }
                }
                h2 { "Pushes that were not applied, by reason" }
                @if summary.failures.is_empty() { p.note { "None." } }
                table {
                    @for (reason, count) in &summary.failures { tr { td.n { (count) } td { (reason) } } }
                }
                h2 { "Faults" }
                @if summary.faults.is_empty() { p.note { "None." } }
                table {
                    @for (at, fault) in &summary.faults { tr { td.n { (clock(*at)) } td { (fault) } } }
                }
                h2 { "The same day again" }
                p { code { (command) } }
            }
        }
    };
    page.into_string()
}

fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        _ => format!("{} min", ms / 60_000),
    }
}
