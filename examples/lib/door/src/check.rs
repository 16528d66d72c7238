//! The checks themselves: a pure function of a request's head.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};

use crate::hosts::Hosts;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
/// What a page's form can send without asking first.
const OF_FORMS: [&str; 3] = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];

/// Who a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A page that people open: a link elsewhere may lead to it. Its forms are taken from the server's own pages only.
    Page,
    /// For programs, and for scripts of the server's own pages. A body never has a content type that a form can send.
    Api,
    /// For programs: no browser, not even with a page of the server's own. A body must have this content type, if one is
    /// named.
    Program(Option<&'static str>),
}

/// Why a request was not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// `Host` is missing, there twice, or not one of ours.
    #[error("this server is not called {0}; whoever runs it can add the name with --host")]
    Host(String),
    /// A browser says that another site's page sent it.
    #[error("requests from the pages of other sites are not taken")]
    OtherSite,
    /// A browser asks where only programs have business.
    #[error("this address is for programs, not for browsers")]
    Browser,
    /// The body has another content type than the route takes.
    #[error("the body must have the content type {0}")]
    ContentType(&'static str),
}

impl Refusal {
    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Host(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::OtherSite | Self::Browser => StatusCode::FORBIDDEN,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

/// The checks before all routes. As a [`tower_layer::Layer`] it wraps a whole server; cloning it is cheap.
#[derive(Clone)]
pub struct Door {
    inner: Arc<Inner>,
}

struct Inner {
    hosts: Hosts,
    route: Box<WhoseRoute>,
}

type WhoseRoute = dyn Fn(&Method, &Uri) -> Route + Send + Sync;

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("hosts", &self.inner.hosts).finish_non_exhaustive()
    }
}

impl Door {
    /// A door of a server that is called by these names; `route` says who each of its routes is for.
    pub fn new(hosts: Hosts, route: impl Fn(&Method, &Uri) -> Route + Send + Sync + 'static) -> Self {
        Self { inner: Arc::new(Inner { hosts, route: Box::new(route) }) }
    }

    /// Judges a request by its head. `local` is the address that its connection came in on, if it is known.
    ///
    /// # Errors
    /// The request must not reach any route.
    pub fn check(&self, head: &Parts, local: Option<IpAddr>) -> Result<(), Refusal> {
        let called = self.called(head, local)?;
        let route = (self.inner.route)(&head.method, &head.uri);
        let sender = Sender::of(&head.headers, &called);
        let reads = head.method == Method::GET || head.method == Method::HEAD;
        match route {
            Route::Page => match sender {
                Sender::OwnPage => Ok(()),
                Sender::Person | Sender::Link | Sender::Program if reads => Ok(()),
                Sender::Person | Sender::Link | Sender::Program | Sender::OtherSite => Err(Refusal::OtherSite),
            },
            Route::Api => {
                match sender {
                    Sender::OwnPage | Sender::Program => {}
                    Sender::Person if reads => {}
                    Sender::Person | Sender::Link | Sender::OtherSite => return Err(Refusal::OtherSite),
                }
                match content_type(&head.headers) {
                    Some(given) if !reads && OF_FORMS.contains(&given) => Err(Refusal::ContentType("application/json")),
                    _ => Ok(()),
                }
            }
            Route::Program(wanted) => {
                if sender != Sender::Program || is_browser(&head.headers) {
                    return Err(Refusal::Browser);
                }
                match wanted {
                    Some(wanted) if !reads && content_type(&head.headers) != Some(wanted) => {
                        Err(Refusal::ContentType(wanted))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// What the request calls the server, if that is one of its names.
    fn called(&self, head: &Parts, local: Option<IpAddr>) -> Result<Authority, Refusal> {
        let mut given = head.headers.get_all(header::HOST).iter();
        let (first, second) = (given.next(), given.next());
        let text = first.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let refused = || Refusal::Host(if text.is_empty() { "so".to_owned() } else { format!("`{text}`") });
        let authority: Authority = text.parse().map_err(|_| refused())?;
        let in_uri = head.uri.authority().is_none_or(|uri| self.inner.hosts.is_ours(uri, local));
        if second.is_some() || !in_uri || !self.inner.hosts.is_ours(&authority, local) {
            return Err(refused());
        }
        Ok(authority)
    }
}

/// Who sent a request, by what no page can forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// Nothing says that it was a browser. Old browsers, and all on plain HTTP beyond loopback, say nothing with a `GET`.
    Program,
    /// A page of this server.
    OwnPage,
    /// A person who typed the address.
    Person,
    /// A person who followed a link from anywhere: it becomes the whole page.
    Link,
    /// A page of another origin, of the same machine or not.
    OtherSite,
}

impl Sender {
    fn of(headers: &HeaderMap, called: &Authority) -> Self {
        let from_origin = match one(headers, &header::ORIGIN) {
            None => None,
            Some(origin) => {
                let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
                Some(authority.is_some_and(|given| given.eq_ignore_ascii_case(called.as_str())))
            }
        };
        if from_origin == Some(false) {
            return Self::OtherSite;
        }
        let Some(site) = one(headers, &SEC_FETCH_SITE) else {
            return if from_origin == Some(true) { Self::OwnPage } else { Self::Program };
        };
        let opens =
            one(headers, &SEC_FETCH_MODE) == Some("navigate") && one(headers, &SEC_FETCH_DEST) == Some("document");
        match site {
            "same-origin" => Self::OwnPage,
            // Another port of this machine is the same site, and somebody else's server.
            "none" if opens => Self::Person,
            "same-site" | "cross-site" if opens => Self::Link,
            _ => Self::OtherSite,
        }
    }
}

/// What marks a browser where it says nothing about the page that asks. No page can take it off a request that needs no
/// leave first.
fn is_browser(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).map_or(&b""[..], |agent| agent.as_bytes());
    agent.starts_with(b"Mozilla/") || headers.contains_key(header::REFERER) || headers.contains_key(header::COOKIE)
}

/// The header's value; one that is there twice, or is no text, is as good as a foreign one.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    Some(if all.next().is_some() { "" } else { first.to_str().unwrap_or_default() })
}

/// The content type without its parameters. Several are none of ours.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let given = one(headers, &header::CONTENT_TYPE)?;
    Some(given.split(';').next().unwrap_or_default().trim())
}
