//! Reads: every one is linearizable. Its place in the router's order is taken first, the row is
//! fetched after that, and only a node that has applied it serves.

use std::sync::Arc;
use std::time::Duration;

use tenon_quorum::{First, ReadRequest, ReadStep, Reason, Refusal, RepoId, RequestId, Route, Row};

use super::driver::{Driver, now};
use super::http::Failure;

/// The longest that a read waits for a copy that makes a node current.
const LONGEST: Duration = Duration::from_secs(20);

/// Where a read goes. The parts of one request, by its name, go to one node as long as that is current.
pub(crate) async fn route(driver: &Arc<Driver>, repo: RepoId, via: Option<RequestId>) -> Result<Route, Failure> {
    let ask = driver.ask(|core, _| core.router.begin_read());
    let plain = ReadRequest::linearizable(repo, ask);
    let request = via.map_or(plain, |via| plain.via(via));
    let end = tokio::time::Instant::now() + LONGEST;
    loop {
        let mut turns = driver.turns();
        match driver.ask(|core, now| core.router.route_read(now, &request)) {
            Ok(ReadStep::Serve(route)) => return Ok(route),
            Ok(ReadStep::First(First::FetchRow(ask))) => driver.fetch_row(ask, repo).await,
            Ok(ReadStep::First(First::Wait { until })) => {
                let wait = Duration::from_millis(until.millis_since(now())).max(Duration::from_millis(1));
                tokio::select! {
                    _ = turns.changed() => {}
                    () = tokio::time::sleep(wait) => {}
                    () = tokio::time::sleep_until(end) => {
                        return Err(Failure::unavailable("no node became current in time"));
                    }
                }
            }
            Err(refusal) => return Err(failure(&refusal)),
        }
    }
}

/// The row as it is known here, or else as the store has it: good enough to say who the members are.
pub(crate) async fn row(driver: &Arc<Driver>, repo: RepoId) -> Result<Row, Failure> {
    if let Some(row) = driver.view(|core| core.router.row_of(repo)) {
        return Ok(row);
    }
    let ask = driver.ask(|core, _| core.router.begin_read());
    driver.fetch_row(ask, repo).await;
    let row = driver.view(|core| core.router.row_of(repo));
    row.ok_or_else(|| Failure::unavailable("the repository's row cannot be read"))
}

fn failure(refusal: &Refusal) -> Failure {
    if matches!(refusal.reason, Reason::NoSuchRepository { .. } | Reason::Deleted { .. }) {
        Failure::not_found(refusal)
    } else {
        Failure::unavailable(refusal)
    }
}
