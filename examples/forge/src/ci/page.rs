//! The status page: drawn on the server, kept up to date in place by a few lines of script.
//!
//! Each part that changes carries `data-part`; when the server says that something did, the script fetches the page
//! again and swaps the parts that differ.

mod chart;
pub(crate) mod repository;
mod text;

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::view::{
    Act, Dot, FleetDecision, FleetView, JobPage, JobView, Mark, NodeView, Overview, PipelineLine, PipelineView,
    QueueView, RepoView, WorkerState, WorkerView,
};
use text::{ago, count, short, span};

/// Served as they are.
pub(crate) const STYLE: &str = include_str!("page/style.css");
pub(crate) const SCRIPT: &str = include_str!("page/live.js");
/// What a page of ours may load and do: its own style and script, and nothing else.
pub(crate) const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

fn frame(title: &str, trail: &Markup, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/-/style.css";
                script src="/-/live.js" defer {}
            }
            body {
                header {
                    a.brand href="/" { (logo()) "forge" }
                    nav aria-label="trail" { (trail) }
                    span.live title="kept up to date" { "live" }
                }
                main { (body) }
            }
        }
    }
}

fn logo() -> Markup {
    PreEscaped(
        "<svg class=\"logo\" viewBox=\"0 0 20 20\" aria-hidden=\"true\"><path d=\"M2 4h9v4h7v8h-9v-4H2z\"/></svg>"
            .into(),
    )
}

fn part(name: &str, class: &str, title: &str, note: &str, body: &Markup) -> Markup {
    html! {
        section.(class) data-part=(name) {
            h2 { (title) @if !note.is_empty() { small { (note) } } }
            (body)
        }
    }
}

/// The first page.
pub(crate) fn overview(view: &Overview) -> Markup {
    let up = view.nodes.iter().filter(|n| n.up).count();
    let nodes_note = format!("{up} of {} up", view.nodes.len());
    let body = html! {
        div.columns {
            div {
                (part("repos", "card", "Repositories", &count(len(&view.repos), "repository"), &repos(view)))
                (part("pipelines", "card", "Pipelines", "", &pipelines(view)))
            }
            div {
                (part("fleet", "card", "Fleet", &format!("{} of {} to {}", view.fleet.ready, view.fleet.min, view.fleet.max), &fleet(&view.fleet, view.at_ms)))
                (part("workers", "card", "Workers", "", &workers(&view.workers, view.at_ms)))
                (part("queues", "card", "Queues", "", &queues(&view.queues)))
                (part("nodes", "card", "Nodes", &nodes_note, &nodes(&view.nodes)))
            }
        }
    };
    frame("forge", &html! {}, &body)
}

fn len<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}

fn pipelines(view: &Overview) -> Markup {
    html! {
        @if view.pipelines.is_empty() {
            p.empty {
                "Push a repository with a " code { ".gitlab-ci.yml" } ": "
                code { "git push " (view.url) "/NAME.git HEAD" }
            }
        }
        ol.lines { @for line in &view.pipelines { li { (pipeline_line(line, view.at_ms)) } } }
    }
}

fn pipeline_line(line: &PipelineLine, now: u64) -> Markup {
    let end = line.ended_ms.unwrap_or(now);
    html! {
        a.line href={ "/-/pipelines/" (line.id) } {
            (badge(line.mark))
            span.what {
                strong { (line.repo) } " " span.ref { (line.reference) }
                span.subject { (line.subject) }
                @if let Some(error) = &line.error { span.error { (error) } }
            }
            span.stages { @for stage in &line.stages { span.stage { @for dot in stage { (tiny(dot)) } } } }
            span.when { span { (span(end.saturating_sub(line.created_ms))) } small { (ago(now, line.created_ms)) } }
        }
    }
}

fn tiny(dot: &Dot) -> Markup {
    html! { i.dot.(dot.mark.word()) title={ (dot.name) ": " (dot.mark.word()) } {} }
}

fn badge(mark: Mark) -> Markup {
    html! { span.badge.(mark.word()) { (mark.word()) } }
}

fn repos(view: &Overview) -> Markup {
    html! {
        @if view.repos.is_empty() {
            p.empty { "No repository yet: the first push makes one: " code { "git push " (view.url) "/NAME.git HEAD" } }
        }
        table {
            @for repo in &view.repos { (repo_row(repo)) }
        }
    }
}

fn repo_row(repo: &RepoView) -> Markup {
    html! {
        tr {
            td { a href={ "/" (repo.name) } { strong { (repo.name) } } }
            td.muted { "shard " (repo.shard) " · version " (repo.version) }
            td.replicas {
                @for replica in &repo.replicas {
                    span.replica.(replica.standing) title={ "node " (replica.node) ": " (replica.standing) } {
                        (replica.node)
                        @if let Some(lag) = replica.lag.filter(|lag| *lag > 0) { small { "−" (lag) } }
                    }
                }
            }
            td.end {
                @if let Some(last) = &repo.last { a href={ "/-/pipelines/" (last.id) } { (badge(last.mark)) } }
            }
        }
    }
}

fn fleet(fleet: &FleetView, now: u64) -> Markup {
    html! {
        p.figure {
            strong { (fleet.ready) } " " (if fleet.ready == 1 { "worker" } else { "workers" })
            @if fleet.starting > 0 { span.muted { ", " (fleet.starting) " starting" } }
            @if fleet.target != fleet.ready + fleet.starting { span.muted { ", " (fleet.target) " wanted" } }
            span.muted { " · " (fleet.why) }
        }
        (chart::fleet(fleet, now))
        ol.decisions {
            @for d in folded(&fleet.decisions).iter().take(6) {
                li {
                    span.step.(if d.to > d.from { "up" } else { "down" }) { (d.from) " → " (d.to) }
                    span { (d.reason) @if d.steps > 1 { span.muted { " (" (d.steps) " times)" } } }
                    small { (ago(now, d.at_ms)) }
                }
            }
        }
    }
}

/// Changes of the fleet's size that followed each other for the same reason, as one.
struct Folded<'a> {
    from: u32,
    to: u32,
    reason: &'a str,
    at_ms: u64,
    steps: u32,
}

/// Newest first, as they come.
fn folded(decisions: &[FleetDecision]) -> Vec<Folded<'_>> {
    let mut all: Vec<Folded<'_>> = Vec::new();
    for d in decisions {
        match all.last_mut().filter(|last| last.reason == d.reason) {
            Some(last) => {
                last.from = d.from;
                last.steps += 1;
            }
            None => all.push(Folded { from: d.from, to: d.to, reason: &d.reason, at_ms: d.at_ms, steps: 1 }),
        }
    }
    all
}

fn workers(workers: &[WorkerView], now: u64) -> Markup {
    html! {
        @if workers.is_empty() { p.empty { "No worker." } }
        table {
            @for w in workers {
                tr {
                    td { (state(w.state)) }
                    td { strong { (w.name) } @if !w.fleet { small.muted { " own" } } }
                    td {
                        @if let Some((job, title)) = &w.job { a href={ "/-/jobs/" (job) } { (title) } }
                        @else { span.muted { (tags(&w.tags)) } }
                    }
                    td.end.muted {
                        @if w.state == WorkerState::Silent { (ago(now, w.seen_ms)) }
                        @else if let Some(pid) = w.pid { "pid " (pid) }
                    }
                }
            }
        }
    }
}

fn state(state: WorkerState) -> Markup {
    html! { span.state.(state.word()) { (state.word()) } }
}

fn tags(tags: &[String]) -> String {
    if tags.is_empty() { "untagged jobs".into() } else { tags.join(", ") }
}

fn queues(queues: &[QueueView]) -> Markup {
    html! {
        @if queues.is_empty() { p.empty { "Nothing has been queued." } }
        table {
            @for q in queues {
                tr {
                    td { strong { (tags(&q.tags)) } " " small.muted { (q.class) } }
                    td {
                        (q.depth) " waiting" @if let Some(ms) = q.oldest_ms { span.muted { " for " (span(ms)) } }
                        span.muted { " · " (q.running) " running" }
                    }
                    td.end {
                        @if q.workers == 0 && q.depth > 0 { span.error { "no worker" } }
                        @else { span.muted { (count(q.workers, "worker")) } }
                    }
                }
            }
        }
    }
}

fn nodes(nodes: &[NodeView]) -> Markup {
    html! {
        table {
            @for n in nodes {
                tr {
                    td { span.state.(if n.up { "idle" } else { "silent" }) { (if n.up { "up" } else { "down" }) } }
                    td { strong { "node " (n.node) } }
                    td.muted { "datacentre " (n.datacentre) }
                    td.end.muted { @if let Some(pid) = n.pid { "pid " (pid) } }
                }
            }
        }
    }
}

/// One pipeline.
pub(crate) fn pipeline(view: &PipelineView) -> Markup {
    let line = &view.line;
    let trail = html! { a href={ "/-/pipelines/" (line.id) } { "pipeline " (line.id) } };
    let body = html! {
        section.head data-part="head" {
            h1 { (badge(line.mark)) (line.repo) " " span.ref { (line.reference) } }
            p.muted {
                code { (short(&line.commit)) } " " (line.subject) " · " (ago(view.at_ms, line.created_ms))
                " · " (span(line.ended_ms.unwrap_or(view.at_ms).saturating_sub(line.created_ms)))
            }
            (acts(&format!("/-/pipelines/{}", line.id), &view.acts))
            @if let Some(error) = &line.error { p.error.box { code { ".gitlab-ci.yml" } ": " (error) } }
            @if !view.notes.is_empty() {
                details { summary.muted { (view.notes.len()) " notes about the file" }
                    ul { @for note in &view.notes { li.muted { (note) } } }
                }
            }
        }
        div.board data-part="stages" {
            @for stage in &view.stages {
                section.column {
                    h2 { (stage.name) }
                    @for job in &stage.jobs { (job_card(job, view.at_ms)) }
                }
            }
        }
    };
    frame(&format!("{} · pipeline {}", line.repo, line.id), &trail, &body)
}

fn job_card(job: &JobView, now: u64) -> Markup {
    html! {
        div.job.(job.mark.word()) {
            a href={ "/-/jobs/" (job.job) } { strong { (job.name) } }
            (badge(job.mark))
            p.muted { (job.reason) @if job.attempt > 1 { " · attempt " (job.attempt) } }
            p.muted {
                @if let Some(began) = job.began_ms { (span(job.ended_ms.unwrap_or(now).saturating_sub(began))) " " }
                @if let Some(worker) = &job.worker { "on " (worker) }
                @if job.allow_failure { span.chip { "may fail" } }
                @for tag in &job.tags { span.chip { (tag) } }
            }
            (acts(&format!("/-/jobs/{}", job.job), &job.acts))
        }
    }
}

fn acts(base: &str, acts: &[Act]) -> Markup {
    html! {
        @if !acts.is_empty() {
            div.acts {
                @for act in acts {
                    form method="post" action={ (base) "/" (act.word()) } {
                        button.(act.word()) type="submit" { (act.word()) }
                    }
                }
            }
        }
    }
}

/// One job and its log.
pub(crate) fn job(view: &JobPage) -> Markup {
    let (line, job) = (&view.line, &view.job);
    let trail = html! {
        a href={ "/-/pipelines/" (line.id) } { "pipeline " (line.id) } " " a href={ "/-/jobs/" (job.job) } { (job.name) }
    };
    let body = html! {
        section.head data-part="head" {
            h1 { (badge(job.mark)) (job.name) " " span.ref { (job.stage) } }
            p.muted {
                strong { (line.repo) } " " (line.reference) " " code { (short(&line.commit)) } " · " (job.reason)
                @if let Some(worker) = &job.worker { " · on " (worker) }
                @if let Some(began) = job.began_ms { " · " (span(job.ended_ms.unwrap_or(view.at_ms).saturating_sub(began))) }
                " · so since " (ago(view.at_ms, job.since_ms))
            }
            p {
                @if !job.needs.is_empty() { span.muted { "after " (job.needs.join(", ")) " " } }
                @for tag in &job.tags { span.chip { (tag) } }
                @if job.allow_failure { span.chip { "may fail" } }
            }
            (acts(&format!("/-/jobs/{}", job.job), &job.acts))
        }
        @if view.attempts.len() > 1 {
            section.card data-part="attempts" {
                h2 { "Attempts" }
                table {
                    @for a in &view.attempts {
                        tr {
                            td { (badge(a.mark)) }
                            td { a href={ "/-/jobs/" (job.job) "?attempt=" (a.attempt) } { "attempt " (a.attempt) } }
                            td.muted { (a.reason) }
                            td.end.muted { @if let Some(worker) = &a.worker { (worker) } }
                        }
                    }
                }
            }
        }
        section.log {
            h2 { "Log" small { "attempt " (view.shown) } }
            @if view.log_before > 0 { p.muted { (view.log_before) " bytes before this are in " a href={ "/api/jobs/" (job.job) "/log?attempt=" (view.shown) } { "the whole log" } } }
            pre data-part="log" { @if view.log.is_empty() { span.muted { "nothing yet" } } (view.log) }
        }
        details.card { summary { "Script" } pre { (view.script.join("\n")) } }
    };
    frame(&format!("{} · job {}", job.name, job.job), &trail, &body)
}

/// A page as it is sent: it loads nothing but its own, and is kept nowhere.
pub(crate) fn html(markup: Markup) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Html(markup.into_string())).into_response()
}

/// Nothing is at `path`; what one could have meant.
pub(crate) fn not_here(path: &str) -> Response {
    let body = html! {
        section.head {
            h1 { "Nothing is here" }
            p { "There is no page at " code { (path) } "." }
            p.muted {
                "All repositories are on the " a href="/" { "first page" } "; one is at its name, as /team/project, and is \
                 cloned from there with .git behind it. Files are reached from a repository's page. Whoever pushes to a \
                 new name makes the repository."
            }
        }
    };
    (StatusCode::NOT_FOUND, self::html(frame("Nothing is here", &html! {}, &body))).into_response()
}

/// A page that says what is wrong.
/// Where a browser shows the token.
pub(crate) fn login(why: &str) -> Markup {
    let body = html! {
        section.head {
            h1 { "Log in" }
            @if !why.is_empty() { p { (why) } }
            form method="post" action=(crate::router::PATH_OF_LOGIN) {
                label { "Token " input type="password" name="token" autocomplete="current-password" autofocus; }
                " " button { "Log in" }
            }
            p.muted { "On its machine, " code { "forge login" } " prints a link that logs a browser in." }
        }
    };
    frame("forge: log in", &html! {}, &body)
}

/// A browser is let in; it goes on by itself.
pub(crate) fn welcome() -> Markup {
    let body = html! {
        meta http-equiv="refresh" content="0; url=/";
        section.head { h1 { "Logged in" } p { a href="/" { "Go on" } } }
    };
    frame("forge: logged in", &html! {}, &body)
}

pub(crate) fn sorry(message: &str) -> Markup {
    frame("forge", &html! {}, &html! { section.head { h1 { "Not here" } p.muted { (message) } } })
}

#[cfg(test)]
mod tests;
