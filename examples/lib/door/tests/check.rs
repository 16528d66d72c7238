//! What the door lets in: one table of requests, as browsers and programs send them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use door::{Door, Hosts, Refusal, Route};
use http::{HeaderValue, Request};

const GIT: &str = "application/x-git-receive-pack-request";

fn door() -> Door {
    Door::new(Hosts::new().named("forge.example").unwrap(), |_, uri| match uri.path() {
        "/git" => Route::Program(Some(GIT)),
        "/api" => Route::Api,
        _ => Route::Page,
    })
}

/// `METHOD PATH`, then headers; `Host` is ours unless given.
fn asked(line: &str, headers: &[(&'static str, &str)]) -> Result<(), Refusal> {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "127.0.0.1:7420");
    }
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_str(value).unwrap());
    }
    door().check(&request.body(()).unwrap().into_parts().0, Some("127.0.0.1".parse().unwrap()))
}

fn fetched<'a>(site: &'a str, mode: &'a str, dest: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)]
}

#[test]
fn a_foreign_or_doubled_or_missing_host_is_refused_on_every_route() {
    for path in ["GET /", "GET /api", "GET /git", "POST /", "POST /api", "POST /git", "OPTIONS /git"] {
        for host in ["evil.example", "evil.example:7420", "localhost.evil.example", ""] {
            assert!(matches!(asked(path, &[("host", host)]), Err(Refusal::Host(_))), "{path} {host}");
        }
        let twice = asked(path, &[("host", "localhost"), ("host", "evil.example")]);
        assert!(matches!(twice, Err(Refusal::Host(_))), "{path}");
    }
    assert!(matches!(asked("GET http://evil.example/", &[("host", "localhost")]), Err(Refusal::Host(_))));
    assert_eq!(asked("GET http://localhost/", &[("host", "localhost")]), Ok(()));
    assert_eq!(asked("GET /", &[("host", "forge.example:80")]), Ok(()));
}

#[test]
fn what_a_browser_sends_for_another_site_is_refused() {
    for site in ["cross-site", "same-site", "new-word"] {
        for (mode, dest) in [
            ("no-cors", "image"),
            ("no-cors", "empty"),
            ("cors", "empty"),
            ("navigate", "iframe"),
            ("websocket", "empty"),
        ] {
            for line in ["GET /", "GET /api", "GET /git", "POST /", "POST /api", "POST /git"] {
                assert!(asked(line, &fetched(site, mode, dest)).is_err(), "{line} {site} {mode} {dest}");
            }
        }
        // A form that becomes the whole page.
        for line in ["POST /", "POST /api", "POST /git"] {
            assert!(asked(line, &fetched(site, "navigate", "document")).is_err(), "{line}");
        }
    }
    for origin in ["http://evil.example", "null", "http://127.0.0.1:3000", "http://localhost:7420", "127.0.0.1:7420"] {
        for line in ["GET /", "POST /", "GET /api", "POST /api", "GET /git", "POST /git", "OPTIONS /api"] {
            let mut headers = fetched("same-origin", "cors", "empty");
            headers.push(("origin", origin));
            assert!(asked(line, &headers).is_err(), "{line} {origin}");
            assert!(asked(line, &[("origin", origin)]).is_err(), "{line} {origin}, an old browser");
        }
    }
}

#[test]
fn a_link_may_lead_to_a_page_and_nowhere_else() {
    for site in ["none", "cross-site", "same-site"] {
        let link = fetched(site, "navigate", "document");
        assert_eq!(asked("GET /", &link), Ok(()));
        assert_eq!(asked("HEAD /", &link), Ok(()));
        assert_eq!(asked("GET /git", &link), Err(Refusal::Browser));
    }
    assert_eq!(asked("GET /api", &fetched("cross-site", "navigate", "document")), Err(Refusal::OtherSite));
    assert_eq!(asked("GET /api", &fetched("none", "navigate", "document")), Ok(()), "a person typed it");
    assert_eq!(asked("POST /api", &fetched("none", "navigate", "document")), Err(Refusal::OtherSite));
}

#[test]
fn our_own_pages_use_forms_and_the_api_but_not_what_programs_use() {
    let mut form = fetched("same-origin", "navigate", "document");
    form.push(("origin", "http://127.0.0.1:7420"));
    form.push(("content-type", "application/x-www-form-urlencoded"));
    assert_eq!(asked("POST /", &form), Ok(()));
    assert_eq!(asked("GET /api", &fetched("same-origin", "cors", "empty")), Ok(()));
    assert_eq!(asked("GET /git", &fetched("same-origin", "cors", "empty")), Err(Refusal::Browser));
    // An old browser: `Origin` alone.
    assert_eq!(asked("POST /", &form[3..]), Ok(()));
    assert_eq!(asked("POST /", &[]), Err(Refusal::OtherSite), "nobody says who sent the form");
}

#[test]
fn programs_send_what_programs_send() {
    assert_eq!(asked("GET /git", &[("user-agent", "git/2.47.3")]), Ok(()));
    assert_eq!(asked("POST /git", &[("content-type", GIT)]), Ok(()));
    assert_eq!(asked("POST /git", &[("content-type", "text/plain")]), Err(Refusal::ContentType(GIT)));
    assert_eq!(asked("POST /git", &[]), Err(Refusal::ContentType(GIT)));
    assert_eq!(
        asked("POST /git", &[("content-type", GIT), ("content-type", "text/plain")]),
        Err(Refusal::ContentType(GIT))
    );
    // On plain HTTP beyond loopback a browser says nothing of the page that asks, but who it is.
    for mark in [("user-agent", "Mozilla/5.0 (X11)"), ("referer", "http://127.0.0.1:7420/"), ("cookie", "a=b")] {
        assert_eq!(asked("GET /git", &[mark]), Err(Refusal::Browser));
    }
    assert_eq!(asked("POST /api", &[]), Ok(()));
    assert_eq!(asked("POST /api", &[("content-type", "application/json; charset=utf-8")]), Ok(()));
    for form in ["text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        assert!(matches!(asked("POST /api", &[("content-type", form)]), Err(Refusal::ContentType(_))), "{form}");
    }
}

#[test]
fn cookies_and_passwords_change_nothing() {
    for secret in
        [("cookie", "forge=1"), ("authorization", "Basic Zm9yZ2U6c2VjcmV0"), ("authorization", "Bearer secret")]
    {
        for line in ["GET /api", "POST /api", "POST /", "GET /git", "POST /git"] {
            let mut headers = fetched("cross-site", "no-cors", "empty");
            headers.push(secret);
            assert!(asked(line, &headers).is_err(), "{line} {secret:?}");
            assert!(matches!(asked(line, &[("host", "evil.example"), secret]), Err(Refusal::Host(_))), "{line}");
        }
    }
}
