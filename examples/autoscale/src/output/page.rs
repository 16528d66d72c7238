//! `--report`: one page that works from a file, makes no request and runs no script.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::picture::Run;
use super::table::{hours, percent, share, short, span};
use super::{Rehearsed, instant};
use crate::day::Stage;
use crate::finding::{Finding, Level};
use crate::rehearse::{Outcome, Plant};

/// So many changes, and so many shortages, are in the page.
const MAX_ROWS: usize = 5_000;
/// So many changes can be pointed at in the picture.
const MAX_MARKS: usize = 1_000;

/// The page of some rehearsals of one day.
pub(crate) fn page(result: &Rehearsed, stage: &Stage, findings: &[Finding]) -> String {
    let (from, until) = (instant(stage.plant.from), instant(stage.plant.until));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // Nothing is fetched, and nothing is run.
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
                title { "What the autoscaler would have done" }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                main {
                    h1 { "What the autoscaler would have done" }
                    p.soft { (from) " to " (until) }
                    (figures(&result.outcomes, result.price))
                    @if !result.pools.is_empty() {
                        h3 { "Pools" }
                        ul { @for pool in &result.pools { li { (pool.line()) } } }
                    }
                    @for outcome in &result.outcomes { (of_one(outcome, &stage.plant)) }
                    (list(findings, "Of the policy and the trace"))
                    @if !stage.defaults.is_empty() {
                        h2 { "Defaults that were used" }
                        p { (stage.defaults.join(", ")) }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn figures(outcomes: &[Outcome], price: Option<f64>) -> Markup {
    html! {
        div.scroll {
            table.cards {
                caption { "Sums after the warm-up, beside a fleet of a fixed size that is never short, and the replicas of then" }
                thead { tr {
                    th scope="col" { "Autoscaler" }
                    th.n scope="col" { "Time short" }
                    th.n scope="col" { "Not served" }
                    th.n scope="col" { "Pod-hours" }
                    @if price.is_some() { th.n scope="col" { "Cost" } }
                    th.n scope="col" { "Changes" }
                    th.n scope="col" { "Flaps" }
                    th.n scope="col" { "Starts" }
                    th.n scope="col" { "Peak" }
                } }
                tbody {
                    @for outcome in outcomes {
                        @let sums = &outcome.sums;
                        tr {
                            th scope="row" { (outcome.title) }
                            td.n data-label="Time short" { (short(sums.short_seconds, sums.seconds)) }
                            td.n data-label="Not served" { (share(sums)) }
                            td.n data-label="Pod-hours" { (hours(sums.pod_seconds)) }
                            @if let Some(price) = price { td.n data-label="Cost" { (cost(sums.pod_seconds, price)) } }
                            td.n data-label="Changes" { (sums.changes) }
                            td.n data-label="Flaps" { (sums.flaps) }
                            td.n data-label="Starts" { (sums.starts) }
                            td.n data-label="Peak" { (sums.peak) }
                        }
                        @for (name, held) in [("a fixed fleet", &sums.fixed), ("the replicas of then", &sums.recorded)] {
                            @if let Some(held) = held {
                                tr.soft {
                                    td { (name) " of " @if name.starts_with("the") { "at most " } (held.peak) }
                                    td.n data-label="Time short" { (short(Some(held.short_seconds), sums.seconds)) }
                                    td {}
                                    td.n data-label="Pod-hours" { (hours(held.pod_seconds)) }
                                    @if let Some(price) = price { td.n data-label="Cost" { (cost(held.pod_seconds, price)) } }
                                    td {} td {} td {}
                                    td.n data-label="Peak" { (held.peak) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn cost(pod_seconds: f64, price: f64) -> String {
    format!("{:.2}", pod_seconds / 3_600.0 * price)
}

fn of_one(outcome: &Outcome, plant: &Plant) -> Markup {
    let run = Run::new(outcome, plant.from, plant.until);
    html! {
        section {
            h2 { (outcome.title) }
            p { "Replicas at first: " (outcome.initial) "; at last: " (outcome.last) "; changes: " (outcome.changes.len()) "." }
            @if !outcome.demand.is_empty() { (demand(outcome, &run, plant)) }
            (pods(outcome, &run, plant))
            (list(&outcome.findings, "Worth knowing"))
            (shortages(outcome, &run))
            (changes(outcome))
        }
    }
}

/// Demand, and what ready pods carry.
fn demand(outcome: &Outcome, run: &Run, plant: &Plant) -> Markup {
    let each = outcome.capacity;
    let carried = |ready: f64| each.map(|each| ready * each);
    let most = nice(run.most(|moment| moment.demand).max(run.most(|moment| carried(moment.ready))));
    let sums = &outcome.sums;
    let label = format!(
        "The demand {} and what ready pods carry, from {} to {}. The demand peaks at {:.3}. Short for {}.",
        outcome.demand_name,
        instant(plant.from),
        instant(plant.until),
        run.most(|moment| moment.demand),
        short(sums.short_seconds, sums.seconds),
    );
    html! {
        figure {
            figcaption { "Demand (" (outcome.demand_name) ") and capacity" }
            ul.key aria-hidden="true" {
                li { span.l style="color:var(--demand)" {} "demand" }
                @if each.is_some() {
                    li { span.l.d style="color:var(--capacity)" {} "capacity of ready pods" }
                    li { span style="background:var(--short)" {} "short" }
                }
            }
            (plot(most, plant, &html! {
                svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label=(label) {
                    @for held in run.shortages.iter().take(MAX_ROWS) {
                        @let (x, end) = (run.across(held.from), run.across(held.until));
                        rect.short x=(round(x)) y="0" width=(round((end - x).max(0.5))) height="100" {
                            title { "short from " (instant(held.from)) " to " (instant(held.until)) ", by " (figure(held.most)) " at most" }
                        }
                        rect.shortline x=(round(x)) y="97" width=(round((end - x).max(1.0))) height="3" {}
                    }
                    @if each.is_some() {
                        path.line.capacity d=(run.path(most, false, |moment| carried(moment.ready))) {}
                    }
                    path.line.demand d=(run.path(most, false, |moment| moment.demand)) {}
                }
            }))
        }
    }
}

/// Ready and starting pods, and every change.
fn pods(outcome: &Outcome, run: &Run, plant: &Plant) -> Markup {
    let most = nice(run.most(|moment| Some(moment.ready + moment.starting)).max(1.8) * 1.1);
    let label = format!(
        "Pods over time, from {} to {}: {} at most. Every change is in the table below.",
        outcome.initial, outcome.last, outcome.sums.peak
    );
    let pool = plant.nodes.map(|(room, _)| f64::from(room)).filter(|room| *room <= most);
    html! {
        figure {
            figcaption { "Pods; point at a change for its reason" }
            ul.key aria-hidden="true" {
                li { span style="background:var(--ready)" {} "ready" }
                li { span style="background:var(--starting)" {} "starting" }
                @if !outcome.cron_active.is_empty() { li { span style="background:var(--cron);opacity:.4" {} "cron is open" } }
                @if pool.is_some() { li { span.l.d style="color:var(--soft)" {} "room on the nodes" } }
            }
            (plot(most, plant, &html! {
                svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label=(label) {
                    @for (from, until) in outcome.cron_active.iter().take(MAX_ROWS) {
                        @let (x, end) = (run.across(*from), run.across(*until));
                        rect.cron x=(round(x)) y="0" width=(round((end - x).max(0.5))) height="100" {
                            title { "cron is open from " (instant(*from)) " to " (instant(*until)) }
                        }
                    }
                    path.starting d=(run.path(most, true, |moment| Some(moment.ready + moment.starting))) {}
                    path.ready d=(run.path(most, true, |moment| Some(moment.ready))) {}
                    @if let Some(room) = pool {
                        @let y = round(100.0 - room / most * 100.0);
                        line.line.pool x1="0" x2="1000" y1=(y) y2=(y) {}
                    }
                    @for change in outcome.changes.iter().take(MAX_MARKS) {
                        @let x = run.across(change.at);
                        line.mark x1=(round(x)) x2=(round(x)) y1="94" y2="100" {}
                        rect.hit x=(round((x - 3.0).max(0.0))) y="0" width="6" height="100" {
                            title { (instant(change.at)) ": " (change.before) " → " (change.after) ", " (change.by.word()) ": " (change.reason) }
                        }
                    }
                }
            }))
            @if outcome.changes.len() > MAX_MARKS { p.soft { "The first " (MAX_MARKS) " changes can be pointed at." } }
        }
    }
}

/// A picture with its axes, which are text beside it, so that it can be read at any width.
fn plot(most: f64, plant: &Plant, picture: &Markup) -> Markup {
    let along: Vec<String> =
        (0..=4_u64).map(|part| instant(plant.from + (plant.until - plant.from) / 4 * part)).collect();
    html! {
        div.plot {
            div.up aria-hidden="true" { span { (figure(most)) } span { (figure(most / 2.0)) } span { "0" } }
            (picture)
            div.along aria-hidden="true" {
                @for (place, text) in along.iter().enumerate() {
                    span.wide[place % 2 == 1] { (brief(text, plant.until - plant.from)) }
                }
            }
        }
    }
}

/// `08:15`, `06-01 08:15` or `06-01` of an instant, by how long the whole is.
fn brief(instant: &str, span: u64) -> String {
    let part = match span / 86_400_000 {
        0 => instant.get(11..16),
        1..=9 => instant.get(5..16),
        _ => instant.get(5..10),
    };
    part.unwrap_or(instant).replace('T', " ")
}

/// A round number that is no smaller.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-9).log10().floor());
    let steps = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(value)
}

fn figure(value: f64) -> String {
    match value.abs() {
        size if size.fract() < 1e-9 => format!("{value:.0}"),
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn round(value: f64) -> String {
    format!("{value:.2}")
}

fn list(findings: &[Finding], title: &str) -> Markup {
    html! {
        @if !findings.is_empty() {
            h3 { (title) }
            ul.findings {
                @for finding in findings {
                    li.warning[finding.level == Level::Warning] {
                        @if finding.level == Level::Warning { span.tag { "Warning: " } }
                        @if let Some(file) = &finding.file {
                            (file) @if let Some(line) = finding.line { ", line " (line) } ": "
                        }
                        @if !finding.path.is_empty() { code { (finding.path) } ": " }
                        (finding.text)
                    }
                }
            }
        }
    }
}

fn shortages(outcome: &Outcome, run: &Run) -> Markup {
    let mut longest: Vec<_> = run.shortages.iter().collect();
    longest.sort_by_key(|held| std::cmp::Reverse(held.until - held.from));
    let of = outcome.sums.seconds;
    html! {
        @if !longest.is_empty() {
            details {
                summary { "Shortages: " (longest.len()) ", the longest first" }
                div.scroll {
                    table.cards {
                        thead { tr { th scope="col" { "From" } th scope="col" { "Until" } th.n scope="col" { "For" } th.n scope="col" { "Missing at most" } } }
                        tbody {
                            @for held in longest.iter().take(200) {
                                @let seconds = crate::quantity::units(i64::try_from(held.until - held.from).unwrap_or(i64::MAX));
                                tr {
                                    td.t data-label="From" { (instant(held.from)) }
                                    td.t data-label="Until" { (instant(held.until)) }
                                    td.n data-label="For" { (span(seconds)) @if percent(seconds, of) >= 1.0 { " (" (round(percent(seconds, of))) " %)" } }
                                    td.n data-label="Missing at most" { (figure(held.most)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn changes(outcome: &Outcome) -> Markup {
    let count = outcome.changes.len();
    html! {
        details open[count <= 40] {
            summary { "Changes: " (count) }
            div.scroll {
                table.cards {
                    thead { tr {
                        th scope="col" { "At" } th.n scope="col" { "From" } th.n scope="col" { "To" } th scope="col" { "By" } th scope="col" { "Reason" }
                    } }
                    tbody {
                        @for change in outcome.changes.iter().take(MAX_ROWS) {
                            tr {
                                td.t data-label="At" { (instant(change.at)) }
                                td.n data-label="From" { (change.before) }
                                td.n data-label="To" { (change.after) }
                                td data-label="By" { (change.by.word()) }
                                td data-label="Reason" { (change.reason) }
                            }
                        }
                    }
                }
            }
            @if count > MAX_ROWS { p.soft { (count - MAX_ROWS) " more are in the JSON." } }
        }
    }
}
