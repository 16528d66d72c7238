//! Checks in front of every route of an HTTP server that people run on their own machines and networks.
//!
//! A server on loopback is not alone with its user: every page that the user's browser shows can send it requests. The
//! [`Door`] stands before all routes and lets through what programs and the server's own pages send:
//!
//! - `Host` names this server ([`Hosts`]). A name that an attacker's DNS points here (*DNS rebinding*) is refused.
//! - What a browser marks as sent from another origin (`Sec-Fetch-Site`, `Origin`) is refused; the one exception is a
//!   link that a person follows to a [`Route::Page`].
//! - A [`Route::Program`] is closed to browsers altogether, and takes a body only with the one content type that its
//!   programs send.
//! - A [`Route::Api`] takes no body with a content type that a form can send.
//!
//! Beside it stand what such a server needs next: a token in a file ([`SecretFile`]), browsers that showed it once
//! ([`Sessions`]), and an accept loop that slow and idle clients cannot hold ([`serve`]).
//!
//! Cookies and passwords play no part in the door: a browser sends them along with a hostile page's requests too.
//!
//! ```
//! use door::{Door, Hosts, Route};
//!
//! let hosts = Hosts::new().named("forge.example.org")?;
//! let door = Door::new(hosts, |_method, uri| match uri.path() {
//!     path if path.ends_with("/git-upload-pack") => Route::Program(Some("application/x-git-upload-pack-request")),
//!     path if path.starts_with("/api/") => Route::Api,
//!     _ => Route::Page,
//! });
//! let app: axum::Router = axum::Router::new().route("/", axum::routing::get(async || "hello"));
//! let app = tower_layer::Layer::layer(&door, app);
//! # drop(app);
//! # Ok::<(), door::BadHost>(())
//! ```

mod check;
mod crowd;
mod hosts;
mod layer;
mod pace;
mod secret;
mod serve;
mod session;

pub use check::{Door, Refusal, Route};
pub use hosts::{BadHost, Hosts};
pub use layer::{Guarded, Peer};
pub use secret::{BadSecret, Secret, SecretError, SecretFile};
pub use serve::{Limits, raise_descriptor_limit, serve};
pub use session::Sessions;
