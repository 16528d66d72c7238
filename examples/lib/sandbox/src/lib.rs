//! Runs a job apart from the machine, with [bubblewrap](https://github.com/containers/bubblewrap).
//!
//! A [`Sandbox`] turns a [`Job`] into a command. Whoever spawns that command decides about its output and its end:
//! **killing the process that was spawned ends everything that the job started**, `setsid` or not.
//!
//! ```no_run
//! use sandbox::{Job, Network, Sandbox};
//!
//! let sandbox = Sandbox::new("/var/lib/ci/sandbox")?.network(Network::None).hide("/var/lib/ci");
//! sandbox.probe()?; // what is in the way is said here, before any job is taken
//! let place = std::path::Path::new("/var/lib/ci/build/17"); // with the folder `checkout` in it
//! sandbox.give(&place.join("checkout"))?;
//! let job = Job::new(place, ["sh", "-c", "make test"]).env("CI", "true");
//! let status = sandbox.command(&job)?.status()?;
//! # drop(status);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a job gets:
//!
//! | | |
//! |---|---|
//! | identity | uid and gid 1000 (`job`) in a user namespace, without any capability; outside it is the user that runs the sandbox, or, where that is root, [`JOB_ID`], which owns nothing |
//! | files | `/usr`, `/bin`, `/sbin`, `/lib*` and a few files of `/etc`, read-only; the folders of `PATH` outside of home folders; Rust's toolchains. Nothing else of the machine: no `/run`, no `/var`, no home, no `/etc/shadow`, no socket |
//! | its own | `/tmp`, `/var/tmp`, its home (`/home/job`) and `/dev/shm`, in memory; `/dev` without devices; `/proc` of its own processes |
//! | to write to | its checkout, at [`CHECKOUT`] |
//! | processes | a pid and an ipc namespace, a session and a host name of its own |
//! | network | none, or the machine's ([`Network`]) |
//! | environment | what the [`Job`] says, and nothing else |
//!
//! What it does not do: it sets no limit on processor time, memory or disk, and it is as strong as the kernel's
//! namespaces are. A job with [`Network::Host`] reaches what listens on loopback, and abstract Unix sockets.

mod mounts;
mod sandbox;

pub use sandbox::{CHECKOUT, HOME, JOB_ID, Job, Network, Sandbox, Unavailable};
