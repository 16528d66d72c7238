//! One file of one commit, for the router.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::git::admit;
use super::with;
use crate::git::{Git, GitError};
use crate::node::Shared;
use crate::node::replica::ReplicaError;
use crate::wire::{FileText, FileView};

/// The longest subject that is passed on, in characters.
const SUBJECT: usize = 200;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// A whole object id.
    object: String,
    path: String,
    most_bytes: usize,
}

pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u64>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let this = Arc::clone(&shared);
    with(shared, id, async move |replica| {
        admit(&replica, &headers).await?;
        if !asked.object.bytes().all(|b| b.is_ascii_hexdigit()) || asked.path.contains(['\0', '\n']) {
            return Err(ReplicaError::Refused("no object id, or no path".into()));
        }
        Ok(Json(look(&this.git, &replica.folder, &asked).await?).into_response())
    })
    .await
}

async fn look(git: &Git, folder: &std::path::Path, asked: &Asked) -> Result<FileView, GitError> {
    let commit = format!("{}^{{commit}}", asked.object);
    let found = git.within(folder, "log").args(["-1", "--format=%H%n%s%n%B", &commit, "--"]).run_to_end(&[]).await?;
    let text = String::from_utf8_lossy(&found.stdout);
    let mut lines = text.splitn(3, '\n');
    let (Some(commit), Some(subject), true) = (lines.next(), lines.next(), found.status.success()) else {
        return Ok(FileView { commit: None, subject: String::new(), skip_ci: false, file: None });
    };
    let message = lines.next().unwrap_or_default().to_lowercase();
    let skip_ci = ["[skip ci]", "[ci skip]"].iter().any(|said| message.contains(said));
    let subject = subject.trim().chars().filter(|c| !c.is_control()).take(SUBJECT).collect();
    let name = format!("{commit}:{}", asked.path);
    let size = git.within(folder, "cat-file").args(["-s", &name]).run_to_end(&[]).await?;
    let size: Option<usize> = String::from_utf8_lossy(&size.stdout).trim().parse().ok();
    let file = match size {
        None => None,
        Some(size) if size > asked.most_bytes => Some(FileText::TooLarge),
        Some(_) => {
            let blob = git.within(folder, "cat-file").args(["blob", &name]).run_to_end(&[]).await?;
            let text = String::from_utf8(blob.stdout).ok().filter(|_| blob.status.success());
            Some(text.map_or(FileText::NotText, FileText::Text))
        }
    };
    Ok(FileView { commit: Some(commit.to_owned()), subject, skip_ci, file })
}
