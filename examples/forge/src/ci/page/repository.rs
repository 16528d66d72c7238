//! The pages of one repository: what it is, and the files of a commit.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::text::{ago, count, short};
use super::{frame, len, part, pipeline_line};
use crate::ci::view::PipelineLine;
use crate::wire::browse::{CommitLine, Content, Entry, EntryKind, Look, LookAt, Readme, RefLine, Summary};

/// The first page of a repository.
pub(crate) fn summary(url: &str, name: &str, summary: &Summary, pipelines: &[PipelineLine]) -> Markup {
    let now = crate::ci::centre::now().as_millis();
    let trail = html! { a href={ "/" (name) } { (name) } };
    let tip = summary.commits.first();
    let body = html! {
        section.head data-part="head" {
            h1 { (name) @if !summary.head.is_empty() { " " span.ref { (summary.head) } } }
            p { code { "git clone " (url) "/" (name) ".git" } }
            @if let Some(tip) = tip {
                p { a href={ "/" (name) "/-/tree/" (tip.id) } { "Files" } span.muted { " at " (short(&tip.id)) } }
            } @else {
                p.empty { "Nothing has been pushed yet: " code { "git push " (url) "/" (name) ".git HEAD:main" } }
            }
        }
        div.columns {
            div {
                @if let Some(readme) = &summary.readme { (readme_card(readme)) }
                (part("commits", "card", "Latest commits", "", &commits(name, &summary.commits, now)))
                (part("pipelines", "card", "Pipelines", "", &pipeline_list(pipelines, now)))
            }
            div {
                (part("branches", "card", "Branches", &count(as_u64(summary.branch_count), "branch"), &refs(name, &summary.branches, summary.branch_count, now)))
                (part("tags", "card", "Tags", &count(as_u64(summary.tag_count), "tag"), &refs(name, &summary.tags, summary.tag_count, now)))
            }
        }
    };
    frame(name, &trail, &body)
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn seconds(at: i64) -> u64 {
    u64::try_from(at).unwrap_or_default().saturating_mul(1000)
}

fn readme_card(readme: &Readme) -> Markup {
    html! { section.card { h2 { (readme.name) } pre.file { (readme.text) } } }
}

fn commits(name: &str, commits: &[CommitLine], now: u64) -> Markup {
    html! {
        @if commits.is_empty() { p.empty { "No commit." } }
        table {
            @for commit in commits {
                tr {
                    td { a href={ "/" (name) "/-/tree/" (commit.id) } { code { (short(&commit.id)) } } }
                    td.wide { (commit.subject) }
                    td.muted { (commit.author) }
                    td.end.muted { (ago(now, seconds(commit.at))) }
                }
            }
        }
    }
}

fn pipeline_list(pipelines: &[PipelineLine], now: u64) -> Markup {
    html! {
        @if pipelines.is_empty() { p.empty { "No pipeline: a push with a " code { ".gitlab-ci.yml" } " starts one." } }
        ol.lines { @for line in pipelines { li { (pipeline_line(line, now)) } } }
    }
}

fn refs(name: &str, lines: &[RefLine], all: usize, now: u64) -> Markup {
    html! {
        @if lines.is_empty() { p.empty { "None." } }
        table {
            @for line in lines {
                tr {
                    td {
                        @if let Some(commit) = &line.commit { a href={ "/" (name) "/-/tree/" (commit) } { (line.name) } }
                        @else { (line.name) }
                    }
                    td.end.muted { (ago(now, seconds(line.at))) }
                }
            }
        }
        @if all > lines.len() { p.muted { "and " (as_u64(all) - len(lines)) " older ones" } }
    }
}

/// What a commit has at a path.
pub(crate) fn look(name: &str, at: &LookAt, look: &Look) -> Markup {
    let now = crate::ci::centre::now().as_millis();
    let root = format!("/{name}/-/tree/{}", at.commit);
    let trail = html! { a href={ "/" (name) } { (name) } " " a href=(root) { code { (short(&at.commit)) } } };
    let body = html! {
        section.head {
            h1 { (path_trail(&root, at)) }
            p.muted {
                code { (short(&look.commit.id)) } " " (look.commit.subject) " · " (look.commit.author) " · "
                (ago(now, seconds(look.commit.at)))
                @for parent in &look.parents {
                    " · " a href={ "/" (name) "/-/tree/" (parent) } { "parent " code { (short(parent)) } }
                }
            }
            @if look.message.trim().lines().count() > 1 {
                details.card { summary { "Message" } pre { (look.message.trim()) } }
            }
        }
        @match &look.content {
            Content::Folder { entries, readme } => {
                section.card { (folder(&root, at, entries)) }
                @if let Some(readme) = readme { (readme_card(readme)) }
            }
            Content::Text { text, bytes } => {
                section.card { h2 { "File" small { (bytes) " bytes" } } (numbered(text)) }
            }
            Content::Other { bytes } => {
                section.card { p.empty { "No text to show: " (bytes) " bytes. Clone the repository to have it." } }
            }
        }
    };
    frame(&format!("{name} · {}", short(&at.commit)), &trail, &body)
}

fn path_trail(root: &str, at: &LookAt) -> Markup {
    let parts: Vec<&[u8]> = at.path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    html! {
        a href=(root) { "/" }
        @for (n, part) in parts.iter().enumerate() {
            " "
            a href={ (root) "/" (encode(&parts[..=n].join(&b'/'))) } { (String::from_utf8_lossy(part)) }
            @if n + 1 < parts.len() { " /" }
        }
    }
}

fn folder(root: &str, at: &LookAt, entries: &[Entry]) -> Markup {
    let path = |entry: &Entry| {
        let base = at.path.strip_suffix(b"/").unwrap_or(&at.path);
        let whole = if base.is_empty() { entry.name.clone() } else { [base, b"/", &entry.name].concat() };
        format!("{root}/{}", encode(&whole))
    };
    html! {
        @if entries.is_empty() { p.empty { "Nothing is in it." } }
        table {
            @for entry in entries {
                @let name = String::from_utf8_lossy(&entry.name);
                tr {
                    td.wide {
                        @match entry.kind {
                            EntryKind::Folder => a href=(path(entry)) { strong { (name) "/" } },
                            EntryKind::File => a href=(path(entry)) { (name) },
                            EntryKind::Link => { a href=(path(entry)) { (name) } small.muted { " link" } },
                            EntryKind::Submodule => { (name) small.muted { " another repository" } },
                        }
                    }
                    td.end.muted { @if let Some(bytes) = entry.bytes { (bytes) " bytes" } }
                }
            }
        }
    }
}

fn numbered(text: &str) -> Markup {
    let lines = text.lines().count();
    let numbers = (1..=lines).fold(String::new(), |mut all, n| {
        // Writing to a string cannot fail.
        let _ = writeln!(all, "{n}");
        all
    });
    html! { div.numbered { pre.numbers aria-hidden="true" { (numbers) } pre.file { (text) } } }
}

/// A path as it stands in an address.
fn encode(path: &[u8]) -> String {
    path.iter().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_repository_holds_is_text_on_its_page() {
        let evil = "<script>alert(1)</script>\"'&";
        let commit = CommitLine { id: "a".repeat(40), author: evil.into(), at: 1_700_000_000, subject: evil.into() };
        let line = RefLine { name: evil.into(), commit: Some("b".repeat(40)), subject: evil.into(), at: 0 };
        let readme = Readme { name: "README".into(), text: evil.into() };
        let shown = Summary {
            head: evil.into(),
            branches: vec![line.clone()],
            branch_count: 60,
            tags: vec![line],
            tag_count: 1,
            commits: vec![commit.clone()],
            readme: Some(readme.clone()),
        };
        let entries = vec![Entry { name: evil.as_bytes().to_vec(), kind: EntryKind::File, bytes: Some(1) }];
        let at = LookAt { commit: "a".repeat(40), path: format!("x y/{evil}").into_bytes() };
        let content = [
            Content::Folder { entries, readme: Some(readme) },
            Content::Text { text: evil.into(), bytes: 9 },
            Content::Other { bytes: 9 },
        ];
        let mut pages = vec![summary("http://h", "demo", &shown, &[]).into_string()];
        for content in content {
            let parents = vec!["c".repeat(40)];
            let view = Look { commit: commit.clone(), message: format!("{evil}\n\n{evil}"), parents, content };
            pages.push(look("demo", &at, &view).into_string());
        }
        for page in &pages {
            assert!(!page.contains("<script>alert") && !page.contains("\"'&"), "{page}");
        }
        assert!(pages[0].contains("git clone http://h/demo.git") && pages[0].contains("and 59 older ones"));
        assert!(pages[1].contains("/x%20y/%3Cscript%3E"), "{}", pages[1]);
    }
}
