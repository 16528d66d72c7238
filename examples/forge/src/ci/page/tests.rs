use super::*;
use crate::ci::view::{AttemptView, FleetDecision, FleetPoint, ReplicaView, StageView};

const NOW: u64 = 1_800_000_000_000;

fn dot(job: u64, name: &str, mark: Mark) -> Dot {
    Dot { job, name: name.into(), mark }
}

fn line(id: u64, mark: Mark, subject: &str) -> PipelineLine {
    let stages = vec![
        vec![dot(1, "compile", Mark::Passed)],
        vec![dot(2, "unit", mark), dot(3, "lint", Mark::Warned), dot(4, "docs", Mark::Waiting)],
        vec![dot(5, "release", Mark::Manual)],
    ];
    let ended_ms = matches!(mark, Mark::Passed | Mark::Failed).then_some(NOW - 90_000 * id);
    PipelineLine {
        id,
        repo: "team/app".into(),
        reference: "main".into(),
        commit: "0123456789abcdef0123456789abcdef01234567".into(),
        subject: subject.into(),
        mark,
        error: None,
        created_ms: NOW - 130_000 * id,
        ended_ms,
        stages,
    }
}

fn job(id: u64, name: &str, mark: Mark, acts: &[Act]) -> JobView {
    JobView {
        job: id,
        name: name.into(),
        stage: "check".into(),
        mark,
        state: "Running".into(),
        code: 11,
        reason: "a worker runs it".into(),
        attempt: u32::try_from(id).unwrap() % 3,
        tags: vec!["linux".into()],
        needs: vec!["compile".into()],
        allow_failure: mark == Mark::Warned,
        worker: Some("w-2".into()),
        since_ms: NOW - 8000,
        began_ms: Some(NOW - 8000),
        ended_ms: None,
        acts: acts.to_vec(),
    }
}

fn a_fleet() -> FleetView {
    let shape: [(u64, u32, u32, u32); 7] =
        [(600, 1, 1, 0), (480, 4, 1, 7), (470, 4, 4, 9), (300, 4, 4, 3), (240, 2, 3, 1), (120, 1, 1, 0), (20, 2, 1, 3)];
    let points = shape.map(|(ago, target, ready, load)| FleetPoint { at_ms: NOW - ago * 1000, target, ready, load });
    let decision =
        |ago, from, to, reason: &str| FleetDecision { at_ms: NOW - ago, from, to, code: 101, reason: reason.into() };
    FleetView {
        min: 1,
        max: 4,
        target: 2,
        ready: 1,
        starting: 1,
        why: "3 jobs, 2 a worker".into(),
        points: points.to_vec(),
        decisions: vec![decision(20_000, 1, 2, "rule 1 wants it"), decision(240_000, 4, 2, "the window agrees")],
    }
}

fn worker(name: &str, state: WorkerState, job: Option<(u64, String)>) -> WorkerView {
    WorkerView {
        name: name.into(),
        tags: vec!["linux".into()],
        fleet: name != "mine",
        state,
        job,
        pid: Some(4711),
        seen_ms: NOW - 9000,
    }
}

pub(super) fn an_overview() -> Overview {
    let replica = |node, standing, lag| ReplicaView { node, standing, lag };
    let mut broken = line(4, Mark::Failed, "Cache the build");
    broken.error = Some("line 7: the key `cache` is not supported".into());
    broken.stages.clear();
    let pipelines = vec![
        line(1, Mark::Running, "Say what the page is for"),
        line(2, Mark::Passed, "<script>alert(1)</script>"),
        line(
            3,
            Mark::Failed,
            "A long subject that goes on and on, as the subjects of some commits do, beyond any line",
        ),
        broken,
    ];
    let repos = vec![
        RepoView {
            id: 1,
            name: "team/app".into(),
            shard: 1,
            version: 42,
            replicas: vec![replica(1, "current", Some(0)), replica(2, "lagging", Some(3)), replica(3, "down", None)],
            last: Some(line(1, Mark::Running, "")),
        },
        RepoView {
            id: 2,
            name: "notes".into(),
            shard: 1,
            version: 3,
            replicas: [1, 2, 3].map(|n| replica(n, "current", Some(0))).to_vec(),
            last: None,
        },
    ];
    let queue = |tags: &[&str], depth, workers| QueueView {
        tags: tags.iter().map(|&t| t.to_owned()).collect(),
        class: "default branch",
        depth,
        oldest_ms: (depth > 0).then_some(4200),
        running: 2,
        workers,
    };
    Overview {
        at_ms: NOW,
        url: "http://127.0.0.1:7420".into(),
        nodes: (1..=3).map(|node| NodeView { node, datacentre: node, up: node != 3, pid: Some(100 + node) }).collect(),
        repos,
        pipelines,
        queues: vec![queue(&[], 3, 2), queue(&["gpu"], 1, 0)],
        workers: vec![
            worker("w-1", WorkerState::Busy, Some((2, "check / unit".into()))),
            worker("w-2", WorkerState::Starting, None),
            worker("mine", WorkerState::Silent, None),
        ],
        fleet: a_fleet(),
    }
}

/// Writes a page where `FORGE_PAGES` says, with its style, to be looked at.
fn show(name: &str, page: &Markup) {
    let Some(folder) = std::env::var_os("FORGE_PAGES") else { return };
    let folder = std::path::Path::new(&folder);
    let html = page
        .0
        .replace("href=\"/-/style.css\"", "href=\"style.css\"")
        .replace("<script src=\"/-/live.js\" defer></script>", "");
    std::fs::write(folder.join(format!("{name}.html")), html).unwrap();
    std::fs::write(folder.join("style.css"), STYLE).unwrap();
}

#[test]
fn the_overview_shows_everything_and_escapes_it() {
    let page = overview(&an_overview());
    show("overview", &page);
    for wanted in ["team/app", "line 7: the key `cache`", "w-1", "no worker<", "1 → 2", "node 3", "−3"] {
        assert!(page.0.contains(wanted), "{wanted}");
    }
    assert!(page.0.contains("&lt;script&gt;alert(1)") && !page.0.contains("<script>alert"));
    let at = |what: &str| page.0.find(what).unwrap();
    assert!(at("data-part=\"repos\"") < at("data-part=\"pipelines\""), "repositories come first");
    assert!(page.0.contains("<a href=\"/team/app\">"), "and lead to their pages");
}

#[test]
fn equal_reasons_of_the_fleet_are_one() {
    let mut view = an_overview();
    let step = |from, to, reason: &str| FleetDecision { at_ms: NOW, from, to, code: 1, reason: reason.into() };
    view.fleet.decisions =
        vec![step(3, 4, "depth"), step(2, 3, "depth"), step(1, 2, "depth"), step(2, 1, "calm"), step(1, 2, "depth")];
    let page = overview(&view).0;
    assert!(page.contains("1 → 4") && page.contains("(3 times)") && page.contains("2 → 1"), "{page}");
    assert!(!page.contains("3 → 4"), "{page}");
    assert_eq!(page.matches("depth").count(), 2, "the one before the calm stands by itself");
}

#[test]
fn a_wrong_address_is_told_what_it_could_have_been() {
    let page = not_here("/demo/-/tree/<main>");
    assert_eq!(page.status(), axum::http::StatusCode::NOT_FOUND);
}

#[test]
fn a_pipeline_shows_its_stages_and_what_can_be_done() {
    let stage = |name: &str, jobs| StageView { name: name.into(), jobs };
    let view = PipelineView {
        at_ms: NOW,
        line: line(1, Mark::Running, "Say what the page is for"),
        stages: vec![
            stage("build", vec![job(1, "compile", Mark::Passed, &[])]),
            stage(
                "check",
                vec![job(2, "unit", Mark::Running, &[Act::Abort]), job(3, "lint", Mark::Warned, &[Act::Retry])],
            ),
            stage("ship", vec![job(5, "release", Mark::Manual, &[Act::Approve, Act::Abort])]),
        ],
        notes: vec!["a note <b>".to_owned()],
        acts: vec![Act::Abort],
    };
    let page = pipeline(&view);
    show("pipeline", &page);
    for wanted in ["action=\"/-/jobs/5/approve\"", "action=\"/-/pipelines/1/abort\"", "attempt 2", "may fail"] {
        assert!(page.0.contains(wanted), "{wanted}");
    }
}

#[test]
fn a_job_shows_its_log() {
    let attempt =
        |attempt, mark, reason: &str| AttemptView { attempt, mark, reason: reason.into(), worker: Some("w-1".into()) };
    let view = JobPage {
        at_ms: NOW,
        line: line(1, Mark::Running, "Say what the page is for"),
        job: job(2, "unit", Mark::Running, &[Act::Abort]),
        script: vec!["make test".into()],
        attempts: vec![
            attempt(1, Mark::Failed, "the worker fell silent"),
            attempt(2, Mark::Running, "a worker runs it"),
        ],
        shown: 2,
        log: "forge: checking out 01234567 of team/app\n$ make test\nrunning 12 tests\n<b>ok</b>\n".into(),
        log_before: 1000,
    };
    let page = super::job(&view);
    show("job", &page);
    assert!(page.0.contains("&lt;b&gt;ok&lt;/b&gt;") && page.0.contains("?attempt=1"));
}
