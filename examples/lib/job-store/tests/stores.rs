//! What the host kit does not ask of a store: several writes with one commit, pages, numbers, payloads, versions of the
//! schema, and a server that goes away and comes back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use job_store::server::{Server, Stop};
use job_store::{BlockingPostgresStore, Error, SqliteStore, Store, Write, Written};
use tenon_jobqueue::memory::MemoryRows;
use tenon_jobqueue::{
    Attempt, CallId, Change, Class, Config, Delivery, Effect, Engine, Incarnation, Job, JobId, JobKey, JobSpec, Key,
    KeyRow, LifeRow, NewJob, Pipeline, PipelineId, Plan, PlannedJob, PoolId, PoolRow, PoolShare, Row, State,
    Submission, Ticket, Timestamp, Version, Want, When, Worker, WorkerName, WriteId,
};

/// A pipeline of so many jobs, as an engine proposes it.
fn submission(id: u64, jobs: u64) -> Vec<Change> {
    let mut engine = Engine::new(Config::builder(Incarnation::new(id)).build().unwrap());
    let job = |number| NewJob { id: JobId::new(id.wrapping_add(number)), spec: JobSpec::default(), tag: None };
    let jobs: Vec<NewJob> = (0..jobs).map(job).collect();
    let new = Submission { id: PipelineId::new(id), class: Class::new(1), priority: 0, jobs: &jobs, needs: &[] };
    let _call = engine.submit(Timestamp::from_millis(5), &new).unwrap();
    let Some(Effect::Persist { ticket }) = engine.poll_effect() else { panic!("a write") };
    engine.changes(ticket).to_vec()
}

/// The test on every database: new, empty stores come from the function that it is given.
fn on_each(name: &str, test: fn(&mut dyn FnMut() -> Box<dyn Store>)) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queue.db");
    test(&mut || Box::new(SqliteStore::open(&file).unwrap()));
    if let Some(server) = shared_server(name) {
        let url = server.database(name.get(..60).unwrap_or(name)).unwrap();
        test(&mut || Box::new(BlockingPostgresStore::open(&url).unwrap()));
    }
}

/// One server for the tests that run at the same time; it ends with the last of them.
fn shared_server(name: &str) -> Option<Arc<Server>> {
    static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return Some(server);
    }
    let server = Arc::new(Server::start_or_skip(name).unwrap()?);
    *shared = Arc::downgrade(&server);
    Some(server)
}

fn pipelines(rows: &[Row]) -> Vec<u64> {
    let mut ids: Vec<u64> =
        rows.iter().filter_map(|row| if let Row::Pipeline(row) = row { Some(row.id.get()) } else { None }).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn of_several_writes_each_is_made_whole_or_not_at_all() {
    on_each("of_several_writes_each_is_made_whole_or_not_at_all", |open| {
        let mut store = open();
        let first = submission(1, 3);
        assert_eq!(store.write(&[Write::of(&first)]).unwrap(), [Written::Made]);
        // One row of this write is as expected and two are not.
        let mut stale = first.clone();
        for (number, change) in stale.iter_mut().enumerate() {
            change.expect = Some(Version::new(if number == 0 { 1 } else { 9 }));
        }
        let (second, third) = (submission(10, 1), submission(20, 1));
        let told = store.write(&[Write::of(&second), Write::of(&stale), Write::of(&third)]).unwrap();
        assert!(told[0].is_made() && !told[1].is_made() && told[2].is_made(), "{told:?}");
        let mut fresh = told[1].fresh().to_vec();
        let mut there: Vec<Row> = first.iter().map(|change| change.row.clone()).collect();
        fresh.sort_by_key(|row| format!("{row:?}"));
        there.sort_by_key(|row| format!("{row:?}"));
        assert_eq!(fresh, there);
        assert_eq!(pipelines(&store.open_rows().unwrap()), [1, 10, 20]);
    });
}

#[test]
fn a_payload_comes_with_its_job_or_not_at_all() {
    on_each("a_payload_comes_with_its_job_or_not_at_all", |open| {
        let mut store = open();
        let changes = submission(1, 1);
        let payloads = [(JobId::new(1), &b"first"[..])];
        store.write(&[Write { payloads: &payloads, ..Write::of(&changes) }]).unwrap();
        let (again, other) = ([(JobId::new(1), &b"again"[..])], [(JobId::new(2), &b"lost"[..])]);
        let told = store
            .write(&[
                Write { payloads: &again, ..Write::of(&changes) },
                Write { payloads: &other, ..Write::of(&changes) },
            ])
            .unwrap();
        assert!(told.iter().all(|told| !told.is_made()));
        assert_eq!(store.payload(JobId::new(1)).unwrap().as_deref(), Some(&b"first"[..]));
        assert_eq!(store.payload(JobId::new(2)).unwrap(), None);
    });
}

#[test]
fn every_question_is_answered_as_the_store_in_memory_does() {
    on_each("every_question_is_answered_as_the_store_in_memory_does", |open| {
        let (mut store, mut memory) = (open(), MemoryRows::default());
        let ids = [1, 50, 100, i64::MAX as u64 - 9, 1 << 63, u64::MAX - 10];
        for id in ids {
            let changes = submission(id, 3);
            assert!(store.write(&[Write::of(&changes)]).unwrap()[0].is_made() && memory.write(&changes));
        }
        let changes = others(&memory);
        for change in &changes {
            let change = std::slice::from_ref(change);
            assert!(memory.write(change), "{change:?}");
            assert!(store.write(&[Write::of(change)]).unwrap()[0].is_made(), "{change:?}");
        }
        let pool = PoolId::new(3);
        let mut wants = vec![Want::Pool(pool), Want::Pool(PoolId::new(4)), Want::Written(Ticket::new(1))];
        wants.extend([1, u64::MAX, 9].map(|key| Want::Key(Key::new(key))));
        wants.extend([1, 2, 3].map(|life| Want::Charged { pool, life: Incarnation::new(life) }));
        wants.extend([1, 2, 100].map(|limit| Want::Owing { limit }));
        for id in ids.into_iter().flat_map(|id| id - 1..id + 4) {
            wants.extend([Want::Job(JobId::new(id)), Want::Pipeline(PipelineId::new(id))]);
            wants.extend((1..8).map(|limit| Want::Open { from: PipelineId::new(id), limit }));
        }
        for want in wants {
            let (mut told, mut must) = (store.read(want, &changes).unwrap(), memory.read(want, &changes));
            for rows in [&mut told, &mut must] {
                rows.sort_by_key(|row| (row.key(), row.version()));
                rows.iter_mut().for_each(forget_the_clock);
            }
            assert_eq!(told, must, "{want:?}");
        }
        let (mut told, mut must) = (store.open_rows().unwrap(), memory.open());
        told.sort_by_key(Row::key);
        must.sort_by_key(Row::key);
        assert_eq!(told, must);
    });
}

/// A job and its key are written together again and again, beside a reader: it never sees the one without the other.
#[test]
fn what_is_read_was_all_so_at_one_moment() {
    on_each("what_is_read_was_all_so_at_one_moment", |open| {
        let (mut writer, mut reader, mut memory) = (open(), open(), MemoryRows::default());
        let changes = submission(1, 2);
        assert!(writer.write(&[Write::of(&changes)]).unwrap()[0].is_made() && memory.write(&changes));
        let key = Key::new(4);
        let job = memory.latest(JobId::new(1)).unwrap();
        let job_key = job.key;
        let rows = move |version: u32| {
            let version = Version::new(version);
            let mut job = Job { version, state: State::Running, ..job };
            job.spec.key = Some(key);
            [Row::Job(job), Row::Key(KeyRow { version, holder: Some(job_key), ..KeyRow::new(key) })]
        };
        let first = rows(2).map(|row| Change { expect: row.as_job().map(|_| Version::FIRST), row });
        assert!(writer.write(&[Write::of(&first)]).unwrap()[0].is_made());
        let ends = Arc::new((AtomicBool::new(false), AtomicU32::new(0)));
        let ended = Arc::clone(&ends);
        let writing = thread::spawn(move || {
            for version in 3.. {
                let expect = Some(Version::new(version - 1));
                let next = rows(version).map(|row| Change { expect, row });
                assert!(writer.write(&[Write::of(&next)]).unwrap()[0].is_made());
                ended.1.store(version, Ordering::Relaxed);
                if ended.0.load(Ordering::Relaxed) {
                    return;
                }
            }
            unreachable!("as many versions as there are numbers")
        });
        let mut reads = 0;
        while reads < 300 || ends.1.load(Ordering::Relaxed) < 20 {
            reads += 1;
            let found = reader.read(Want::Key(key), &[]).unwrap();
            let versions: Vec<_> = found.iter().map(|row| (row.key(), row.version())).collect();
            assert!(versions.len() == 2 && versions[0].1 == versions[1].1, "{versions:?}");
        }
        ends.0.store(true, Ordering::Relaxed);
        writing.join().unwrap();
    });
}

fn forget_the_clock(row: &mut Row) {
    if let Row::Pool(row) = row {
        row.clock = Timestamp::ZERO;
    }
}

/// Changes to what was submitted: jobs that are held, charged, ended or tried again, pipelines that owe or are closed, a
/// pool with shares, lives, keys with names.
fn others(memory: &MemoryRows) -> Vec<Change> {
    let insert = |row| Change { expect: None, row };
    let write = WriteId { engine: Incarnation::new(1), ticket: Ticket::new(7) };
    let version = Version::FIRST;
    let job = |id: u64| memory.latest(JobId::new(id)).unwrap();
    let held = |id: u64, life: u64, key: u64| {
        let mut row = Job { version: Version::new(2), state: State::Running, ..job(id) };
        row.spec.key = Some(Key::new(key));
        let worker = Worker { name: WorkerName::new(1), incarnation: Incarnation::new(1) };
        let write = WriteId { engine: Incarnation::new(life), ticket: Ticket::new(8) };
        let (pool, pull) = (PoolId::new(3), CallId::new(1));
        row.delivery = Some(Delivery { worker, pool, pull, version: row.version, write });
        Change { expect: Some(version), row: Row::Job(row) }
    };
    let ended = Job { version: Version::new(2), state: State::Failed, ..job(51) };
    let again = JobKey { attempt: Attempt::new(2), ..ended.key };
    let pipeline = |id: u64| memory.pipelines[&PipelineId::new(id)].clone();
    let owing = |id| Row::Pipeline(Pipeline { version: Version::new(2), owes: true, ..pipeline(id) });
    // Its manual job may be played later; it is closed.
    let closed = Pipeline { version: Version::new(2), unstarted: 0, remaining: 0, owes: true, ..pipeline(100) };
    let plan = PlannedJob { job: JobId::new(1), order: 1, when: When::Always, needs: Some(vec![0, 1]) };
    let name = |id: u64| Some(JobKey { job: JobId::new(id), attempt: Attempt::FIRST });
    let (life, share) =
        (|life| Incarnation::new(life), PoolShare { life: Incarnation::new(1), ..PoolShare::default() });
    let shares = vec![share, PoolShare { life: Incarnation::new(2), leases: 5, ..share }];
    let (missing, filled, clock) = (5, Timestamp::from_millis(6), Timestamp::from_millis(7));
    let update = |row| Change { expect: Some(version), row };
    vec![
        held(1, 1, 1),
        held(2, 2, 1),
        held(52, 1, u64::MAX),
        update(Row::Job(ended)),
        insert(Row::Job(Job { key: again, ..job(51) })),
        update(owing(1)),
        update(owing(1 << 63)),
        update(Row::Pipeline(closed)),
        insert(Row::Plan(Plan { pipeline: PipelineId::new(1), version, write, jobs: vec![plan.clone()] })),
        insert(Row::Plan(Plan { pipeline: PipelineId::new(100), version, write, jobs: vec![plan] })),
        insert(Row::Key(KeyRow {
            version,
            holder: name(2),
            claim: name(51),
            newest: name(2),
            ..KeyRow::new(Key::new(1))
        })),
        insert(Row::Key(KeyRow { version, next: name(77), ..KeyRow::new(Key::new(u64::MAX)) })),
        insert(Row::Life(LifeRow { life: life(1), version, write })),
        insert(Row::Life(LifeRow { life: life(2), version, write })),
        insert(Row::Pool(PoolRow { pool: PoolId::new(3), version, write, limit: 9, shares, missing, filled, clock })),
        // A guard: it is there, and stays.
        update(Row::Life(LifeRow { life: life(1), version, write })),
    ]
}

#[test]
fn a_guard_holds_a_write_back_and_writes_nothing() {
    on_each("a_guard_holds_a_write_back_and_writes_nothing", |open| {
        let mut store = open();
        let life = LifeRow { life: Incarnation::new(7), version: Version::FIRST, write: WriteId::default() };
        let raised = LifeRow { version: Version::new(2), ..life };
        let change = |expect: Option<u32>, row| Change { expect: expect.map(Version::new), row: Row::Life(row) };
        assert!(store.write(&[Write::of(&[change(None, life)])]).unwrap()[0].is_made());
        let guarded = |id| [submission(id, 1), vec![change(Some(1), life)]].concat();
        let (first, second, third) = (guarded(10), guarded(20), guarded(30));
        // Many writes of one commit under one guard.
        let told = store.write(&[Write::of(&first), Write::of(&second)]).unwrap();
        assert!(told.iter().all(Written::is_made), "{told:?}");
        assert!(store.write(&[Write::of(&[change(Some(1), raised)])]).unwrap()[0].is_made());
        let told = store.write(&[Write::of(&third)]).unwrap();
        assert_eq!(told[0].fresh(), [Row::Life(raised)], "the fence has been raised");
        assert_eq!(pipelines(&store.open_rows().unwrap()), [10, 20]);
        let there = store.read(Want::Written(Ticket::new(1)), &[change(Some(1), life)]).unwrap();
        assert_eq!(there, [Row::Life(raised)], "a guard writes nothing");
    });
}

#[test]
fn no_number_is_drawn_twice_by_stores_that_start_together() {
    on_each("no_number_is_drawn_twice_by_stores_that_start_together", |open| {
        // The first finds no tables, or all do.
        let mut stores: Vec<Box<dyn Store>> = (0..4).map(|_| open()).collect();
        let (mut lives, mut ids) = (Vec::new(), Vec::new());
        thread::scope(|scope| {
            let draw = |store: &mut Box<dyn Store>| {
                let lives: Vec<_> = (0..25).map(|_| store.next_life().unwrap()).collect();
                (lives, (0..25).map(|_| store.next_ids(3).unwrap()).collect::<Vec<_>>())
            };
            let threads: Vec<_> = stores.iter_mut().map(|store| scope.spawn(move || draw(store))).collect();
            for thread in threads {
                let (some, others) = thread.join().unwrap();
                lives.extend(some);
                ids.extend(others);
            }
        });
        lives.sort_unstable();
        ids.sort_unstable();
        lives.dedup();
        assert_eq!(lives.len(), 100);
        assert!(lives.iter().all(|life| life.get() > 0));
        assert!(ids.windows(2).all(|pair| pair[1] >= pair[0] + 3) && ids[0] == 1, "{ids:?}");
    });
}

#[test]
fn tables_of_a_newer_program_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queue.db");
    let mut store = SqliteStore::open(&file).unwrap();
    store.connection().execute("INSERT INTO jobqueue_schema VALUES(1000)", []).unwrap();
    let told = SqliteStore::open(&file).unwrap_err();
    assert!(matches!(told, Error::NewerSchema { found: 1000, .. }), "{told}");
    assert!(told.to_string().contains("use a newer program"));
}

#[test]
fn a_damaged_row_is_told_by_its_id() {
    let mut store = SqliteStore::in_memory().unwrap();
    store.write(&[Write::of(&submission(7, 1))]).unwrap();
    for damage in ["x''", "x'07'", "x'01ff'", "x'0191'"] {
        let sql = format!("UPDATE jobqueue_rows SET row = {damage} WHERE kind = 0");
        assert_eq!(store.connection().execute(&sql, []).unwrap(), 1);
        let told = store.open_rows().unwrap_err();
        assert!(matches!(told, Error::Damaged { kind: 0, id: 7, .. }), "{damage}: {told}");
    }
}

#[test]
fn a_server_that_comes_back_is_used_again() {
    let Some(mut server) = Server::start_or_skip("a_server_that_comes_back_is_used_again").unwrap() else { return };
    let mut store = BlockingPostgresStore::open(&server.url()).unwrap();
    assert!(store.write(&[Write::of(&submission(1, 1))]).unwrap()[0].is_made());
    for (how, id) in [(Stop::Kill, 10), (Stop::Fast, 20)] {
        server.stop(how).unwrap();
        assert!(store.open_rows().is_err());
        assert!(store.write(&[Write::of(&submission(id, 1))]).is_err());
        server.run().unwrap();
        assert_eq!(pipelines(&store.open_rows().unwrap()).len() as u64, id / 10, "it is connected again by itself");
        assert!(store.write(&[Write::of(&submission(id, 1))]).unwrap()[0].is_made());
    }
}
