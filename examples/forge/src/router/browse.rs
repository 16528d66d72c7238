//! The pages of one repository: which of them an address means, and what is read for it.

use axum::response::{IntoResponse as _, Response};
use serde::de::DeserializeOwned;
use tenon_quorum::{RepoId, Route};

use super::http::Failure;
use super::name::RepoName;
use super::nodes::Answer;
use super::{Host, reads};
use crate::ci::page::{self, repository};
use crate::wire::browse::{Look, LookAt, Summary};

/// How often a read is routed again when nodes fail it.
const ATTEMPTS: usize = 4;
/// Pipelines that are shown.
const PIPELINES: u32 = 10;

/// What an address below a repository's name means.
#[derive(Debug, PartialEq, Eq)]
enum Page {
    Summary,
    /// A commit by its whole id, and a path in it.
    Look(String, Vec<u8>),
}

/// The page at `path`, which is no route of the program and no service of Git.
pub(super) async fn serve(host: &Host, path: &str) -> Response {
    let Some((name, page)) = parse(path) else { return page::not_here(path) };
    match draw(host, &name, page).await {
        Ok(Some(page)) => page,
        Ok(None) => page::not_here(path),
        Err(failure) => (failure.status, page::html(page::sorry(&failure.message))).into_response(),
    }
}

fn parse(path: &str) -> Option<(RepoName, Page)> {
    let path = path.trim_matches('/');
    let (name, rest) = match path.split_once("/-/") {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let name = RepoName::parse(name.strip_suffix(".git").unwrap_or(name)).ok()?;
    let Some(rest) = rest else { return Some((name, Page::Summary)) };
    let rest = rest.strip_prefix("tree/")?;
    let (commit, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_id = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| Some((name, Page::Look(commit.to_owned(), decode(path)?))))?
}

/// Percent signs taken back.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            out.push(digit(bytes.next()?)? << 4 | digit(bytes.next()?)?);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

async fn draw(host: &Host, name: &RepoName, page: Page) -> Result<Option<Response>, Failure> {
    let Some(repo) = host.repos.find(name).await? else { return Ok(None) };
    let (url, name) = (host.url().to_owned(), name.to_string());
    match page {
        Page::Summary => {
            let summary: Summary = read(host, repo, None).await?;
            let pipelines = crate::ci::show::of_repository(host, repo.0, &name, PIPELINES).await?;
            Ok(Some(page::html(repository::summary(&url, &name, &summary, &pipelines))))
        }
        Page::Look(commit, path) => {
            let at = LookAt { commit, path };
            let look: Option<Look> = read(host, repo, Some(&at)).await?;
            Ok(look.map(|look| page::html(repository::look(&name, &at, &look))))
        }
    }
}

/// A summary, or what is at a path, from a node that is current.
async fn read<T: DeserializeOwned>(host: &Host, repo: RepoId, at: Option<&LookAt>) -> Result<T, Failure> {
    let mut last = Failure::unavailable("no node could serve the read");
    for _ in 0..ATTEMPTS {
        let route: Route = reads::route(&host.driver, repo, None).await?;
        match host.driver.nodes.browse(&route, at).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(refused)) => {
                last = Failure::unavailable(format!("{} refused the read: {}", route.node, refused.reason));
                host.driver.tell_answer(route.node, None, Ok(Answer::Refused(refused))).await;
            }
            Err(e) => {
                host.driver.node_failed(route.node, &e).await;
                last = Failure::unavailable(format!("{} failed: {e:#}", route.node));
            }
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let page = |path: &str| parse(path).map(|(name, page)| (name.to_string(), page));
        assert_eq!(page("/team/demo"), Some(("team/demo".into(), Page::Summary)));
        assert_eq!(page("/demo.git/"), Some(("demo".into(), Page::Summary)));
        let id = "a".repeat(40);
        let look = |path: &[u8]| Some(("demo".to_owned(), Page::Look(id.clone(), path.to_vec())));
        assert_eq!(page(&format!("/demo/-/tree/{id}")), look(b""));
        assert_eq!(page(&format!("/demo/-/tree/{id}/a/b%20c%ff")), look(b"a/b c\xff"));
        for none in
            ["/", "/demo/-/tree/main", "/demo/-/x", "/a..b", "/demo/-/tree/-o/x", &format!("/demo/-/tree/{id}/%f")]
        {
            assert_eq!(page(none), None, "{none}");
        }
    }
}
