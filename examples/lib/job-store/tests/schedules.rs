//! Schedules as rows: no firing is lost or doubled, over restarts and several servers, and whatever becomes of a write.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use job_store::server::Server;
use job_store::{BlockingPostgresStore, Error, Firing, NewSchedule, SqliteStore, Store, Write};
use tenon_jobqueue::schedule::{Missed, Schedule};
use tenon_jobqueue::{
    Change, Class, Config, Effect, Engine, JobId, JobSpec, NewJob, PipelineId, Row, Submission, Timestamp,
};

const MINUTE: u64 = 60_000;

fn minute(number: u64) -> Timestamp {
    Timestamp::from_millis(number * MINUTE)
}

fn on_each(name: &str, test: fn(&mut dyn FnMut() -> Box<dyn Store>)) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queue.db");
    test(&mut || Box::new(SqliteStore::open(&file).unwrap()));
    if let Some(server) = Server::start_or_skip(name).unwrap() {
        test(&mut || Box::new(BlockingPostgresStore::open(&server.url()).unwrap()));
    }
}

fn schedule(cron: &str, zone: &str, missed: Missed) -> NewSchedule {
    NewSchedule { cron: cron.into(), zone: zone.into(), missed, payload: b"build".to_vec() }
}

/// The pipeline that a firing starts: one job, of the minute that it is for.
fn started(store: &mut dyn Store, at: Timestamp) -> (JobId, Vec<Change>, Vec<u8>) {
    let life = store.next_life().unwrap();
    let mut engine = Engine::new(Config::builder(life).build().unwrap());
    let id = store.next_ids(1).unwrap();
    let job = NewJob { id: JobId::new(id), spec: JobSpec::default(), tag: None };
    let (class, jobs) = (Class::new(0), [job]);
    let new = Submission { id: PipelineId::new(id), class, priority: 0, jobs: &jobs, needs: &[] };
    let _call = engine.submit(at, &new).unwrap();
    let Some(Effect::Persist { ticket }) = engine.poll_effect() else { panic!("a write") };
    (job.id, engine.changes(ticket).to_vec(), (at.as_millis() / MINUTE).to_string().into_bytes())
}

/// Writes a firing with what it starts; whether it was made.
fn fire(store: &mut dyn Store, firing: Firing) -> bool {
    let Some(at) = firing.decision.fire else {
        return store.write(&[Write { firing: Some(firing), ..Write::of(&[]) }]).unwrap()[0].is_made();
    };
    let (job, changes, payload) = started(store, at);
    let payloads = [(job, payload.as_slice())];
    store.write(&[Write { changes: &changes, payloads: &payloads, firing: Some(firing) }]).unwrap()[0].is_made()
}

/// The minutes for which pipelines were started.
fn fired(store: &mut dyn Store) -> Vec<u64> {
    let mut all = Vec::new();
    for row in store.open_rows().unwrap() {
        if let Row::Job(job) = row {
            let payload = store.payload(job.id()).unwrap().unwrap();
            all.push(String::from_utf8(payload).unwrap().parse().unwrap());
        }
    }
    all.sort_unstable();
    all
}

#[test]
fn several_servers_fire_each_minute_once_over_restarts() {
    on_each("several_servers_fire_each_minute_once_over_restarts", |open| {
        let mut stores = [open(), open(), open()];
        let id = stores[0].put_schedule(&schedule("*/2 * * * *", "UTC", Missed::All), minute(100)).unwrap();
        let (mut chance, mut conflicts) = (7_u64, 0);
        for now in 100..160 {
            // All of them look before any of them writes, and some die in between.
            let due: Vec<_> = stores.iter_mut().map(|store| store.due(minute(now), 10).unwrap()).collect();
            for (at, rows) in due.iter().enumerate() {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if chance >> 62 == 0 {
                    stores[at] = open();
                    continue;
                }
                for row in rows {
                    assert_eq!((row.id, row.payload.as_slice()), (id, &b"build"[..]));
                    let firing = row.firing(minute(now)).unwrap().unwrap();
                    conflicts += u32::from(!fire(stores[at].as_mut(), firing));
                }
            }
        }
        while let Some(row) = stores[0].due(minute(160), 1).unwrap().first() {
            let firing = row.firing(minute(160)).unwrap().unwrap();
            assert!(fire(stores[0].as_mut(), firing));
        }
        assert_eq!(fired(stores[0].as_mut()), (102..=160).step_by(2).collect::<Vec<u64>>(), "each once");
        assert!(conflicts > 20, "they met {conflicts} times");
    });
}

#[test]
fn what_was_missed_goes_by_the_schedules_policy_and_an_end_is_an_end() {
    on_each("what_was_missed_goes_by_the_schedules_policy_and_an_end_is_an_end", |open| {
        let mut store = open();
        for missed in [Missed::Skip, Missed::Once, Missed::All] {
            store.put_schedule(&schedule("0 * * * *", "UTC", missed), minute(0)).unwrap();
        }
        let now = minute(5 * 60 + 30);
        let mut rounds = 0;
        loop {
            let due = store.due(now, 2).unwrap();
            if due.is_empty() {
                break;
            }
            for row in due {
                let firing = row.firing(now).unwrap().unwrap();
                assert!(fire(store.as_mut(), firing));
            }
            rounds += 1;
        }
        assert!(rounds < 10);
        assert_eq!(fired(store.as_mut()), [60, 120, 180, 240, 300, 300]);
        let all = store.schedules().unwrap();
        assert_eq!(all.len(), 3);
        assert!(all.iter().all(|row| row.schedule.next == Some(minute(6 * 60)) && row.version > 1), "{all:?}");
        assert!(store.end_schedule(all[0].id).unwrap() && !store.end_schedule(all[0].id).unwrap());
        assert_eq!(store.due(minute(6 * 60), 10).unwrap().len(), 2);
    });
}

#[test]
fn a_line_or_a_zone_that_is_none_is_refused_with_what_is_wrong() {
    let mut store = SqliteStore::in_memory().unwrap();
    for (cron, zone, said) in
        [("* * * *", "UTC", "five fields"), ("61 * * * *", "UTC", "0 to 59"), ("* * * * *", "Mars/Base", "Mars/Base")]
    {
        let told = store.put_schedule(&schedule(cron, zone, Missed::Skip), minute(1)).unwrap_err();
        assert!(matches!(&told, Error::Schedule(why) if why.contains(said)), "{told}");
    }
    assert_eq!(store.schedules().unwrap(), []);
}

/// Real zones, over the changes of several years: a fixed hour fires once a day.
#[test]
fn in_real_zones_a_fixed_hour_fires_once_a_day() {
    let start = 1_704_067_200_000; // 2024-01-01 00:00 UTC
    for (zone, cron) in [
        ("Europe/Berlin", "30 2 * * *"),
        ("America/New_York", "30 2 * * *"),
        ("Australia/Lord_Howe", "45 1 * * *"),
        ("America/Santiago", "15 0 * * *"),
        ("Asia/Kolkata", "0 9 * * *"),
    ] {
        let new = schedule(cron, zone, Missed::All);
        let mut row = job_store::ScheduleRow {
            id: 1,
            version: 1,
            cron: new.cron.clone(),
            zone: new.zone.clone(),
            schedule: new.begin(Timestamp::from_millis(start)).unwrap(),
            payload: Vec::new(),
        };
        let end = Timestamp::from_millis(start + 366 * 24 * 60 * MINUTE);
        let mut count = 0;
        while let Some(firing) = row.firing(end).unwrap() {
            let Schedule { last, .. } = row.schedule;
            let apart = firing.decision.fire.unwrap().millis_since(last);
            assert!(count == 0 || (22..=26).contains(&(apart / (60 * MINUTE))), "{zone}: {apart} ms");
            row.schedule = firing.decision.schedule;
            count += 1;
        }
        assert_eq!(count, 366, "{zone}");
    }
}
