//! The pages of a repository, as a browser gets them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::Forge;

fn page(forge: &Forge, path: &str) -> String {
    common::http_with(&forge.url, "GET", path, "accept: text/html\r\n", "")
}

#[test]
fn a_repository_has_a_page_and_its_files_are_clicked_through() {
    let forge = Forge::start();
    let ann = forge.client("ann");
    ann.init("work", &forge.repo_url("team/demo"));
    let home = ann.home.join("work");
    std::fs::write(home.join("README.md"), "# Demo\n<script>alert(1)</script>\n").unwrap();
    std::fs::create_dir_all(home.join("a folder/deep")).unwrap();
    std::fs::write(home.join("a folder/deep/ü & <b>.txt"), "one\n<i>two</i>\n").unwrap();
    std::fs::write(home.join("a folder/binary"), [0, 1, 2, 255]).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", home.join("link")).unwrap();
    let id = ann.commit("work", "second");
    ann.ok("work", &["tag", "-a", "-m", "one", "v1"]);
    ann.ok("work", &["push", "-q", "origin", "main", "main:refs/heads/topic/one", "v1"]);

    assert!(page(&forge, "/").contains("<a href=\"/team/demo\">"), "the first page leads there");
    let first = page(&forge, "/team/demo");
    assert!(first.starts_with("HTTP/1.1 200 "), "{first}");
    for wanted in ["git clone http", "/team/demo.git", "topic/one", ">v1<", "second", "# Demo", "&lt;script&gt;"] {
        assert!(first.contains(wanted), "{wanted}: {first}");
    }
    assert!(!first.contains("<script>alert"), "{first}");
    assert_eq!(page(&forge, "/team/demo.git").lines().next(), first.lines().next(), "as it is typed from a clone line");
    let root = page(&forge, &format!("/team/demo/-/tree/{id}"));
    for wanted in ["a%20folder", "link</a><small", "README.md", "second.txt"] {
        assert!(root.contains(wanted), "{wanted}: {root}");
    }
    assert!(root.find("a%20folder").unwrap() < root.find("README.md").unwrap(), "folders first");
    let file = page(&forge, &format!("/team/demo/-/tree/{id}/a%20folder/deep/%C3%BC%20%26%20%3Cb%3E.txt"));
    assert!(file.contains("&lt;i&gt;two&lt;/i&gt;") && !file.contains("<i>two"), "{file}");
    let binary = page(&forge, &format!("/team/demo/-/tree/{id}/a%20folder/binary"));
    assert!(binary.contains("No text to show: 4 bytes"), "{binary}");
    // A link is shown, never followed.
    let link = page(&forge, &format!("/team/demo/-/tree/{id}/link"));
    assert!(link.contains("/etc/passwd") && !link.contains("root:"), "{link}");

    // What is not there, or not reached by any ref, has a page that helps.
    ann.ok("work", &["checkout", "-q", "--orphan", "apart"]);
    let apart = ann.commit("work", "apart");
    ann.ok("work", &["push", "-q", "origin", "apart"]);
    ann.ok("work", &["push", "-q", "origin", ":apart"]);
    for wrong in [
        "/nowhere".to_owned(),
        "/team/demo/-/tree/main".to_owned(),
        format!("/team/demo/-/tree/{apart}"),
        format!("/team/demo/-/tree/{id}/nothing"),
        format!("/team/demo/-/tree/{id}/../../etc/passwd"),
        "/-/nothing".to_owned(),
    ] {
        let said = page(&forge, &wrong);
        assert!(said.starts_with("HTTP/1.1 404 ") && said.contains("first page"), "{wrong}: {said}");
    }
    let empty = page(&forge, "/demo");
    assert!(empty.contains("Nothing has been pushed yet"), "{empty}");
}
