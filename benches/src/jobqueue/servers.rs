//! Whole lives of jobs with every step durable: the engine over `PostgreSQL`, beside a `FOR UPDATE SKIP LOCKED` queue on
//! the same server, job by job and in batches, and beside `beanstalkd` with its log synced. Each server is started in a temporary folder on a free
//! loopback port; one that is not installed is a row that says so.

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postgres::types::ToSql;
use postgres::{Client, NoTls, Statement};
use tenon_jobqueue::{
    Act, Assignment, Change, Class, Config, Effect, Engine, Incarnation, JobId, JobSpec, NewJob, Outcome, PipelineId,
    PoolId, PoolKind, PoolSpec, PullRequest, Row as DbRow, RowKey, Service, Submission, Tag, Ticket, Timestamp, Worker,
    WorkerName,
};

use crate::{Bound, Pair, Row, Scale, interleave};

/// Workers, each with a job; a queue in a database lets them share connections, as a pool does.
const WORKERS: usize = 256;
const CONNECTIONS: usize = 32;
/// Jobs a statement, of a peer that gathers.
const BATCH: usize = 16;
const NAME: &str = "whole life of a job, durable";

type Fails<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Every figure that needs a server.
pub(super) fn rows(scale: Scale) -> Vec<Row> {
    let lives = scale.pick(16 * WORKERS, 4 * WORKERS);
    let postgres =
        beside_postgres(lives).unwrap_or_else(|why| vec![Row::absent(NAME, "jobs/s", format!("PostgreSQL: {why}"))]);
    let beanstalk = beanstalkd_lives(lives).map_or_else(
        |why| Row::absent("beanstalkd, its log synced", "jobs/s", why.to_string()),
        |rate| {
            Row::new("beanstalkd, its log synced", rate, "jobs/s", Bound::None)
                .note(format!("{CONNECTIONS} connections, a sync each write"))
        },
    );
    postgres.into_iter().chain([beanstalk]).collect()
}

// ---- servers ------------------------------------------------------------------------------------------------------

/// A server process and its folder; both go when this does.
struct Server {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _told = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        // A shell's background job ignores that signal, and so do its children.
        let told = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && told.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn free_port() -> Fails<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> Fails<T> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        if let Some(done) = attempt() {
            return Ok(done);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("{what} does not answer").into())
}

fn postgres_folder() -> Fails<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map_err(|_| "not installed (apt-get install postgresql)")?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().ok_or_else(|| "not installed (apt-get install postgresql)".into())
}

fn number(program: &str, arguments: &[&str]) -> Fails<u32> {
    let output = Command::new(program).args(arguments).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// `PostgreSQL` refuses to run as root; then it runs as the user that its package made.
fn as_postgres(program: &Path) -> Fails<(Command, Option<u32>)> {
    let mut command = Command::new(program);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    if number("id", &["-u"])? != 0 {
        return Ok((command, None));
    }
    let (user, group) = (number("id", &["-u", "postgres"])?, number("id", &["-g", "postgres"])?);
    command.uid(user).gid(group).current_dir("/");
    Ok((command, Some(user)))
}

/// A server as it comes: every commit is on disk before it is answered.
fn start_postgres() -> Fails<Server> {
    let (bin, folder, port) = (postgres_folder()?, tempfile::tempdir()?, free_port()?);
    let data = folder.path().join("data");
    let (mut initdb, user) = as_postgres(&bin.join("initdb"))?;
    if let Some(user) = user {
        std::os::unix::fs::chown(folder.path(), Some(user), None)?;
    }
    if !initdb.arg("-D").arg(&data).args(["-A", "trust", "-U", "bench"]).status()?.success() {
        return Err("initdb failed".into());
    }
    let (mut server, _) = as_postgres(&bin.join("postgres"))?;
    let child = server.arg("-D").arg(&data).arg("-k").arg(folder.path()).arg("-p").arg(port.to_string()).spawn()?;
    let server = Server { child, port, _folder: folder };
    wait_for("PostgreSQL", || connect(port).ok()).map(|_| server)
}

fn connect(port: u16) -> Fails<Client> {
    Ok(Client::connect(&format!("host=127.0.0.1 port={port} user=bench dbname=postgres"), NoTls)?)
}

// ---- the engine over PostgreSQL -----------------------------------------------------------------------------------

const TABLES: &str = "
CREATE TABLE jobs(id bigint, attempt int, version int NOT NULL, open bool NOT NULL, row text NOT NULL, PRIMARY KEY(id, attempt));
CREATE TABLE pipelines(id bigint, attempt int, version int NOT NULL, open bool NOT NULL, row text NOT NULL, PRIMARY KEY(id, attempt));
CREATE TABLE plain(id bigserial PRIMARY KEY, state int NOT NULL, payload text NOT NULL);
CREATE INDEX plain_waiting ON plain(id) WHERE state = 0;";

/// The columns of rows of one table, side by side, as one statement takes them.
#[derive(Default)]
struct Columns {
    id: Vec<i64>,
    attempt: Vec<i32>,
    version: Vec<i32>,
    open: Vec<bool>,
    row: Vec<String>,
    expect: Vec<i32>,
}

impl Columns {
    fn push(&mut self, change: &Change) -> Fails<()> {
        let (id, attempt) = match change.row.key() {
            RowKey::Job(key) => (key.job.get(), key.attempt.get()),
            RowKey::Pipeline(id) => (id.get(), 0),
            other @ (RowKey::Key(_) | RowKey::Plan(_) | RowKey::Pool(_) | RowKey::Life(_)) => {
                return Err(format!("no such row is here: {other:?}").into());
            }
        };
        let (version, open) = (change.row.version(), change.row.is_open());
        self.id.push(id.cast_signed());
        self.attempt.push(attempt.cast_signed());
        self.version.push(version.get().cast_signed());
        self.open.push(open);
        self.row.push(serde_json::to_string(&change.row)?);
        self.expect.extend(change.expect.map(|version| version.get().cast_signed()));
        Ok(())
    }
}

fn statements(client: &mut Client) -> Fails<Vec<Statement>> {
    let mut all = Vec::new();
    for table in ["jobs", "pipelines"] {
        all.push(client.prepare(&format!(
            "INSERT INTO {table} SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::bool[], $5::text[])
             ON CONFLICT DO NOTHING"
        ))?);
        all.push(client.prepare(&format!(
            "UPDATE {table} AS t SET version = n.version, open = n.open, row = n.row
             FROM unnest($1::bigint[], $2::int[], $3::int[], $4::bool[], $5::text[], $6::int[])
               AS n(id, attempt, version, open, row, expect)
             WHERE t.id = n.id AND t.attempt = n.attempt AND t.version = n.expect"
        ))?);
    }
    Ok(all)
}

/// The task centre of a host: whatever has gathered is written with one commit.
struct Centre {
    client: Client,
    /// For each table: rows that are new, rows that are there.
    statements: Vec<Statement>,
    engine: Engine,
    now: Timestamp,
    next: u64,
    assigned: Vec<Assignment>,
    /// Time spent in the crate.
    inside: Duration,
}

impl Centre {
    fn new(mut client: Client) -> Fails<Self> {
        let statements = statements(&mut client)?;
        let now = Timestamp::from_millis(1);
        let mut engine = Engine::new(Config::builder(Incarnation::new(1)).seed(1).build()?);
        let (id, kind, service) = (PoolId::new(1), PoolKind::Preset, Service::Open);
        engine.put_pool(
            now,
            PoolSpec { id, kind, tags: vec![Tag::OTHER], max_leases: u32::MAX, service, ..PoolSpec::default() },
        )?;
        Ok(Self { client, statements, engine, now, next: 1, assigned: Vec::new(), inside: Duration::ZERO })
    }

    fn within<T>(&mut self, act: impl FnOnce(&mut Engine, Timestamp) -> T) -> T {
        let start = Instant::now();
        let told = act(&mut self.engine, self.now);
        self.inside += start.elapsed();
        told
    }

    fn settle(&mut self) -> Fails<()> {
        loop {
            let mut tickets = Vec::new();
            while let Some(effect) = self.within(|engine, _| engine.poll_effect()) {
                match effect {
                    Effect::Persist { ticket } => tickets.push(ticket),
                    Effect::Assign { assignment, .. } => self.assigned.push(assignment),
                    Effect::Fetch { .. } => return Err("a row was doubted".into()),
                    Effect::Abort { .. }
                    | Effect::Poll { .. }
                    | Effect::Judge { .. }
                    | Effect::Answer { .. }
                    | Effect::Closed { .. } => {}
                }
            }
            if tickets.is_empty() {
                return Ok(());
            }
            self.write(&tickets)?;
            for ticket in tickets {
                self.within(|engine, now| engine.handle_committed(now, ticket));
            }
        }
    }

    fn write(&mut self, tickets: &[Ticket]) -> Fails<()> {
        let mut tables = [(Columns::default(), Columns::default()), (Columns::default(), Columns::default())];
        for change in tickets.iter().flat_map(|ticket| self.engine.changes(*ticket)) {
            let (new, old) = &mut tables[usize::from(matches!(change.row, DbRow::Pipeline(_)))];
            if change.expect.is_none() { new.push(change)? } else { old.push(change)? }
        }
        let mut tx = self.client.transaction()?;
        let rows = tables.iter().flat_map(|(new, old)| [new, old]);
        for (statement, rows) in self.statements.iter().zip(rows).filter(|(_, rows)| !rows.id.is_empty()) {
            let mut columns: Vec<&(dyn ToSql + Sync)> =
                vec![&rows.id, &rows.attempt, &rows.version, &rows.open, &rows.row];
            if !rows.expect.is_empty() {
                columns.push(&rows.expect);
            }
            // One host alone: were there others, each write would be made again by itself now.
            if tx.execute(statement, &columns)? != rows.id.len() as u64 {
                return Err("a write met another".into());
            }
        }
        Ok(tx.commit()?)
    }

    /// Enqueue, pull, acknowledge, finish, for as many jobs as there are workers.
    fn lives(&mut self) -> Fails<()> {
        let worker = Worker { name: WorkerName::new(1), incarnation: Incarnation::new(1) };
        for _ in 0..WORKERS {
            let number = self.next;
            self.next += 1;
            let job = NewJob { id: JobId::new(number), spec: JobSpec::default(), tag: None };
            let new =
                Submission { id: PipelineId::new(number), class: Class::new(0), priority: 0, jobs: &[job], needs: &[] };
            self.within(|engine, now| engine.submit(now, &new))?;
        }
        self.settle()?;
        for _ in 0..WORKERS {
            let pull = PullRequest { pool: PoolId::new(1), worker, want: 1, wait_ms: 0, previous: None };
            self.within(|engine, now| engine.pull(now, &pull))?;
        }
        self.settle()?;
        let assigned = std::mem::take(&mut self.assigned);
        if assigned.len() != WORKERS {
            return Err("a pull found nothing".into());
        }
        for act in [Act::Ack, Act::Report(Outcome::Succeeded)] {
            for job in &assigned {
                self.within(|engine, now| engine.work(now, worker, job.token, act))?;
            }
            self.settle()?;
        }
        Ok(())
    }
}

// ---- the peers ----------------------------------------------------------------------------------------------------

/// What is usually written: one statement puts, one takes with `SKIP LOCKED`, one ends; each is a commit, of one job or of
/// a batch.
struct Plain {
    client: Client,
    put: Statement,
    take: Statement,
    end: Statement,
    batch: usize,
}

impl Plain {
    fn new(mut client: Client, batch: usize) -> Fails<Self> {
        let put = client
            .prepare(&format!("INSERT INTO plain(state, payload) SELECT 0, 'x' FROM generate_series(1, {batch})"))?;
        let take = client.prepare(&format!(
            "UPDATE plain SET state = 1 WHERE id = ANY(ARRAY
               (SELECT id FROM plain WHERE state = 0 ORDER BY id FOR UPDATE SKIP LOCKED LIMIT {batch})) RETURNING id",
        ))?;
        let end = client.prepare("UPDATE plain SET state = 2 WHERE id = ANY($1)")?;
        Ok(Self { client, put, take, end, batch })
    }

    /// The lives of a batch of jobs, from the first statement to the last.
    fn lives(&mut self) -> Fails<()> {
        self.client.execute(&self.put, &[])?;
        let taken: Vec<i64> = self.client.query(&self.take, &[])?.iter().map(|row| row.get(0)).collect();
        self.client.execute(&self.end, &[&taken])?;
        Ok(())
    }
}

/// Each client on a thread and a connection of its own.
fn by_clients<C: Send>(clients: &mut [C], lives: usize, life: fn(&mut C) -> Fails<()>) -> Fails<()> {
    let each = lives / clients.len();
    std::thread::scope(|scope| {
        let run = |client: &mut C| (0..each).try_for_each(|_| life(client));
        let threads: Vec<_> = clients.iter_mut().map(|client| scope.spawn(move || run(client))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a client died".into())))
    })
}

fn beside_postgres(lives: usize) -> Fails<Vec<Row>> {
    let server = start_postgres()?;
    let mut client = connect(server.port)?;
    client.batch_execute(TABLES)?;
    let mut centre = Centre::new(client)?;
    let mut spent = Duration::ZERO;
    let mut rows = Vec::new();
    for (name, bound, batch, peer) in [
        (NAME, Bound::RatioAtLeast(1.0), 1, "FOR UPDATE SKIP LOCKED, 32 connections"),
        ("the same beside batches", Bound::None, BATCH, "FOR UPDATE SKIP LOCKED, 32 connections, 16 jobs a statement"),
    ] {
        let connect = |_| connect(server.port).and_then(|client| Plain::new(client, batch));
        let mut clients: Vec<Plain> = (0..CONNECTIONS).map(connect).collect::<Fails<_>>()?;
        let pair = side_by_side(&mut centre, &mut spent, &mut clients, lives)?;
        let what = format!("PostgreSQL, {WORKERS} workers; the engine's host writes what gathered with one commit");
        let (ours, theirs) = (1e9 / pair.subject_ns, 1e9 / pair.peer_ns);
        rows.push(Row::new(name, ours, "jobs/s", bound).note(what).beside(peer, theirs, 1.0 / pair.ratio));
    }
    let share = 100.0 * centre.inside.as_secs_f64() / spent.as_secs_f64();
    rows.push(Row::new("of that, time in the crate", share, "%", Bound::AtMost(2.0)));
    Ok(rows)
}

/// As many lives on both sides, in turns.
fn side_by_side(centre: &mut Centre, spent: &mut Duration, clients: &mut [Plain], lives: usize) -> Fails<Pair> {
    let mut failed = [None, None];
    let [our_failure, their_failure] = &mut failed;
    let pair = interleave(
        5,
        || {
            let start = Instant::now();
            let ours = (0..lives / WORKERS).try_for_each(|_| centre.lives());
            *spent += start.elapsed();
            *our_failure = our_failure.take().or(ours.err());
            lives
        },
        || {
            let batches = lives / clients.first().map_or(1, |client| client.batch);
            let theirs = by_clients(clients, batches, Plain::lives);
            *their_failure = their_failure.take().or(theirs.err());
            lives
        },
    );
    failed.into_iter().flatten().next().map_or(Ok(pair), Err)
}

/// One connection to `beanstalkd`.
struct Beanstalk(BufReader<TcpStream>);

impl Beanstalk {
    fn say(&mut self, command: &str, wanted: &str) -> Fails<String> {
        self.0.get_mut().write_all(command.as_bytes())?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        if line.starts_with(wanted) { Ok(line) } else { Err(format!("beanstalkd said {line}").into()) }
    }

    fn life(&mut self) -> Fails<()> {
        self.say("put 0 0 60 1\r\nx\r\n", "INSERTED")?;
        let told = self.say("reserve\r\n", "RESERVED")?;
        self.0.read_exact(&mut [0; 3])?;
        let id = told.split(' ').nth(1).ok_or("a reservation without an id")?;
        self.say(&format!("delete {id}\r\n"), "DELETED").map(drop)
    }
}

fn beanstalkd_lives(lives: usize) -> Fails<f64> {
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    let mut command = Command::new("beanstalkd");
    command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-f", "0", "-b"]).arg(folder.path());
    let child = command.spawn().map_err(|_| "not installed (apt-get install beanstalkd)")?;
    let server = Server { child, port, _folder: folder };
    let open = || TcpStream::connect(("127.0.0.1", server.port)).ok();
    wait_for("beanstalkd", open)?;
    let connect = |_| {
        let stream = open().ok_or("beanstalkd hung up")?;
        stream.set_nodelay(true)?;
        Ok(Beanstalk(BufReader::new(stream)))
    };
    let mut clients: Vec<Beanstalk> = (0..CONNECTIONS).map(connect).collect::<Fails<_>>()?;
    let mut rates = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        by_clients(&mut clients, lives, Beanstalk::life)?;
        #[allow(clippy::cast_precision_loss, reason = "a count for a table")]
        rates.push(lives as f64 / start.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[rates.len() / 2])
}
