use super::*;
use crate::ci::file::CiFile;
use tenon_jobqueue::{
    Attempt, Class, Config, Effect, Engine, Incarnation, JobSpec, NewJob, PipelineState, Submission, Timestamp, Version,
};

fn store() -> (tempfile::TempDir, CiStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = CiStore::open(&dir.path().join("store.db")).unwrap();
    (dir, store)
}

const REPO: u64 = 7;

/// A pipeline of one job, as an engine proposes it.
fn submission(id: u64, cursor: (Cursor, Cursor)) -> Write {
    let config = Config::builder(Incarnation::new(1)).build().unwrap();
    let mut engine = Engine::new(config);
    let jobs = [NewJob { id: JobId::new(id), spec: JobSpec { order: 1, ..JobSpec::default() }, tag: None }];
    let new = Submission { id: PipelineId::new(id), class: Class::new(1), priority: 0, jobs: &jobs, needs: &[] };
    let _call = engine.submit(Timestamp::from_millis(5), &new).unwrap();
    let Some(Effect::Persist { ticket }) = engine.poll_effect() else { panic!("a write") };
    let birth = birth(id, cursor, BirthOf::Jobs(CiFile::parse("a: {script: x}").unwrap(), vec![JobId::new(id)]));
    Write { changes: engine.changes(ticket).to_vec(), birth: Some(birth) }
}

fn birth(id: u64, cursor: (Cursor, Cursor), what: BirthOf) -> Birth {
    Birth {
        pipeline: PipelineId::new(id),
        repo: REPO,
        reference: "refs/heads/main".into(),
        hash: "1".repeat(40),
        subject: "first".into(),
        pushed: 2,
        created_ms: 5,
        what,
        cursor,
    }
}

const fn at(version: u64, part: u32) -> Cursor {
    Cursor { version, part }
}

#[test]
fn a_pipeline_is_born_with_its_jobs_and_its_cursor_or_not_at_all() {
    let (_dir, store) = store();
    let write = submission(1, (at(0, 0), at(1, 1)));
    assert_eq!(store.write(std::slice::from_ref(&write)).unwrap(), [Written::Committed]);
    assert_eq!(store.cursor(REPO).unwrap(), at(1, 1));
    assert_eq!(store.open_rows().unwrap().len(), 2);
    // The same push again, as after a crash: the cursor has moved.
    let again = submission(2, (at(0, 0), at(1, 1)));
    assert_eq!(store.write(&[again]).unwrap(), [Written::Conflicted(Vec::new())]);
    assert_eq!((store.open_rows().unwrap().len(), store.largest().unwrap()), (2, (1, 1)));
    let (pipeline, def) = store.definition(JobId::new(1)).unwrap().unwrap();
    assert_eq!((pipeline.repo, def.name.as_str()), (REPO, "a"));
}

#[test]
fn a_conflict_changes_nothing_and_says_what_is_there_while_others_go_on() {
    let (_dir, store) = store();
    let first = submission(1, (at(0, 0), at(1, 0)));
    store.write(std::slice::from_ref(&first)).unwrap();
    let mut stale = first.changes.clone();
    for change in &mut stale {
        change.expect = Some(Version::new(9));
    }
    let writes = [Write { changes: stale, birth: None }, submission(2, (at(1, 0), at(2, 0)))];
    let told = store.write(&writes).unwrap();
    let there: Vec<Row> = first.changes.iter().map(|c| c.row.clone()).collect();
    assert_eq!(told, [Written::Conflicted(there), Written::Committed]);
    assert_eq!(store.cursor(REPO).unwrap(), at(2, 0));
}

#[test]
fn a_row_moves_by_its_version_and_remembers_its_times() {
    let (_dir, store) = store();
    let first = submission(1, (at(0, 0), at(1, 0)));
    store.write(std::slice::from_ref(&first)).unwrap();
    let rows: Vec<Row> = first.changes.iter().map(|c| c.row.clone()).collect();
    let [Row::Job(mut job), Row::Pipeline(mut pipeline)] = <[Row; 2]>::try_from(rows).unwrap() else {
        panic!("two rows")
    };
    let old = job.version;
    job.version = job.version.next();
    job.state = tenon_jobqueue::State::Succeeded;
    job.since = Timestamp::from_millis(900);
    pipeline.version = pipeline.version.next();
    (pipeline.unstarted, pipeline.remaining) = (0, 0);
    assert_eq!(pipeline.state(), PipelineState::Succeeded);
    let change = |row| Change { expect: Some(old), row };
    let write = Write { changes: vec![change(Row::Job(job)), change(Row::Pipeline(pipeline))], birth: None };
    assert_eq!(store.write(std::slice::from_ref(&write)).unwrap(), [Written::Committed]);
    assert!(matches!(&store.write(&[write]).unwrap()[..], [Written::Conflicted(rows)] if rows.len() == 2));
    assert!(store.open_rows().unwrap().is_empty());
    assert_eq!(store.pipeline(1).unwrap().unwrap().ended_ms, Some(900));
    let job = &store.attempts(1).unwrap()[0];
    assert_eq!((job.ended_ms, job.row.key.attempt), (Some(900), Attempt::FIRST));
    assert_eq!(store.fetch(tenon_jobqueue::Want::Pipeline(PipelineId::new(1)), &[]).unwrap().len(), 2);
}

#[test]
fn a_push_without_a_pipeline_and_one_with_an_error_move_the_cursor_once() {
    let (_dir, store) = store();
    let bad = birth(1, (at(1, 0), at(2, 0)), BirthOf::Error("line 3: no".into()));
    assert!(store.pass(REPO, (at(0, 0), at(1, 0)), None).unwrap());
    assert!(!store.pass(REPO, (at(0, 0), at(1, 0)), None).unwrap());
    assert!(store.pass(REPO, bad.cursor, Some(&bad)).unwrap());
    assert!(!store.pass(REPO, bad.cursor, Some(&bad)).unwrap());
    let all = store.pipelines(Some(REPO), 10).unwrap();
    assert_eq!((all.len(), all[0].error.as_deref(), all[0].ended_ms), (1, Some("line 3: no"), Some(5)));
    assert!(store.pipelines(Some(8), 10).unwrap().is_empty());
}

#[test]
fn names_and_numbers_last() {
    let (dir, store) = store();
    let (a, b) = (store.number(Kind::Tags, "a").unwrap(), store.number(Kind::Tags, "b").unwrap());
    assert_eq!((a, b, store.number(Kind::Worker, "a").unwrap()), (1, 2, 1));
    assert_eq!(store.count_up("engine").unwrap(), 1);
    drop(store);
    let store = CiStore::open(&dir.path().join("store.db")).unwrap();
    assert_eq!((store.number(Kind::Tags, "a").unwrap(), store.count_up("engine").unwrap()), (1, 2));
    assert_eq!(store.names(Kind::Tags).unwrap(), [(1, "a".to_owned()), (2, "b".to_owned())]);
}

/// The only job of a pipeline, and so the pipeline, ends.
fn finish(store: &CiStore, first: &Write, at_ms: u64) {
    let rows: Vec<Row> = first.changes.iter().map(|c| c.row.clone()).collect();
    let [Row::Job(mut job), Row::Pipeline(mut pipeline)] = <[Row; 2]>::try_from(rows).unwrap() else {
        panic!("two rows")
    };
    let old = job.version;
    (job.version, pipeline.version) = (job.version.next(), pipeline.version.next());
    job.state = tenon_jobqueue::State::Succeeded;
    job.since = Timestamp::from_millis(at_ms);
    (pipeline.unstarted, pipeline.remaining) = (0, 0);
    let change = |row| Change { expect: Some(old), row };
    let write = Write { changes: vec![change(Row::Job(job)), change(Row::Pipeline(pipeline))], birth: None };
    assert_eq!(store.write(&[write]).unwrap(), [Written::Committed]);
}

#[test]
fn what_is_old_is_forgotten_but_what_is_open_newest_or_the_last_that_was_counted() {
    let (_dir, store) = store();
    let wrong = |id: u64| {
        let cursor = (at(id - 1, 0), at(id, 0));
        assert!(store.pass(REPO, cursor, Some(&birth(id, cursor, BirthOf::Error("no".into())))).unwrap());
    };
    let left = || store.pipelines(None, 100).unwrap().iter().map(|p| p.id).collect::<Vec<_>>();
    for id in 1..=3 {
        wrong(id);
    }
    let fourth = submission(4, (at(3, 0), at(4, 0)));
    store.write(std::slice::from_ref(&fourth)).unwrap();
    for id in 5..=6 {
        wrong(id);
    }
    assert!(store.forget(5, 1).unwrap().is_empty());
    assert_eq!(left(), [6, 5, 4, 3, 2, 1], "all ended at 5, none before");
    store.forget(6, 4).unwrap();
    assert_eq!(left(), [6, 5, 4, 3], "the newest four stay");
    store.forget(6, 1).unwrap();
    assert_eq!(left(), [6, 4], "what is open stays");
    finish(&store, &fourth, 900);
    assert!(store.forget(10_000, 1).unwrap().is_empty(), "its job has the largest number");
    let seventh = submission(7, (at(6, 0), at(7, 0)));
    store.write(std::slice::from_ref(&seventh)).unwrap();
    let gone = store.forget(10_000, 1).unwrap();
    assert_eq!(gone, [tenon_jobqueue::JobKey { job: JobId::new(4), attempt: Attempt::FIRST }]);
    assert_eq!((left(), store.largest().unwrap()), (vec![7], (7, 7)));
    assert!(store.definition(JobId::new(4)).unwrap().is_none());
}
