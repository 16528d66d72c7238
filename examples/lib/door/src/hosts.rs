//! The names that a server is called by.

use std::net::IpAddr;

use http::uri::Authority;

/// The names that requests may call the server by, in their `Host` header.
///
/// Always among them are `localhost`, the loopback addresses on a loopback connection, and the address that a
/// connection came in on ([`Peer`](crate::Peer)): no page of another origin can be called like that. Any port is
/// accepted with these, since a tunnel may change it.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    named: Vec<Named>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    name: String,
    /// Any, if absent.
    port: Option<u16>,
}

/// A text that is no host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a host name: give a name or an address, perhaps with a port, as in forge.example.org:8443")]
pub struct BadHost(String);

impl Hosts {
    /// This machine only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more name, as people type it into a browser's address bar: `forge.example.org`, or with a port,
    /// `forge.example.org:8443`. Without a port any port is accepted.
    ///
    /// # Errors
    /// The text is no name.
    pub fn named(mut self, name: &str) -> Result<Self, BadHost> {
        let bad = || BadHost(name.to_owned());
        let authority: Authority = name.parse().map_err(|_| bad())?;
        let plain = authority.host().bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
        if name.contains('@') || authority.host().is_empty() || !plain || has_bad_port(&authority) {
            return Err(bad());
        }
        self.named.push(Named { name: authority.host().to_ascii_lowercase(), port: authority.port_u16() });
        Ok(self)
    }

    /// Whether a request that came in on `local` may call the server this.
    pub(crate) fn is_ours(&self, authority: &Authority, local: Option<IpAddr>) -> bool {
        if authority.as_str().contains('@') || has_bad_port(authority) {
            return false;
        }
        let host = authority.host().to_ascii_lowercase();
        if host == "localhost" {
            return true;
        }
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            let address = address.to_canonical();
            let local = local.map(|local| local.to_canonical());
            let on_loopback = local.is_none_or(|local| local.is_loopback());
            if local == Some(address) || (address.is_loopback() && on_loopback) {
                return true;
            }
        }
        let port = authority.port_u16();
        self.named.iter().any(|named| named.name == host && named.port.is_none_or(|wanted| Some(wanted) == port))
    }
}

/// `name:` and `name:99999` are taken by the parser, and are no port.
fn has_bad_port(authority: &Authority) -> bool {
    let after_host =
        &authority.as_str()[authority.as_str().rfind(authority.host()).unwrap_or(0) + authority.host().len()..];
    !after_host.is_empty() && authority.port_u16().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(hosts: &Hosts, authority: &str, local: Option<&str>) -> bool {
        let local = local.map(|text| text.parse().unwrap());
        authority.parse().is_ok_and(|authority| hosts.is_ours(&authority, local))
    }

    #[test]
    fn this_machine_is_ours_and_no_other_name() {
        let hosts = Hosts::new();
        for name in ["localhost", "LOCALHOST:80", "127.0.0.1:7420", "[::1]", "[::1]:9", "127.9.9.9"] {
            assert!(ours(&hosts, name, Some("127.0.0.1")), "{name}");
            assert!(ours(&hosts, name, None), "{name}");
        }
        for name in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost.",
            "0.0.0.0",
            "93.184.216.34",
            "user@localhost",
            "localhost:x",
            "localhost:99999",
            "localhost:",
            "",
        ] {
            assert!(!ours(&hosts, name, Some("127.0.0.1")), "{name}");
        }
    }

    #[test]
    fn an_address_is_ours_on_the_connections_that_it_leads_to() {
        let hosts = Hosts::new();
        assert!(ours(&hosts, "192.168.1.7:7420", Some("192.168.1.7")));
        assert!(ours(&hosts, "192.168.1.7:7420", Some("::ffff:192.168.1.7")));
        assert!(!ours(&hosts, "192.168.1.8:7420", Some("192.168.1.7")));
        assert!(!ours(&hosts, "127.0.0.1:7420", Some("192.168.1.7")));
    }

    #[test]
    fn a_name_is_ours_when_it_is_given() {
        let hosts = Hosts::new().named("Forge.Example.org").unwrap().named("other:8443").unwrap();
        for name in ["forge.example.org", "FORGE.example.ORG:1", "other:8443"] {
            assert!(ours(&hosts, name, Some("10.0.0.1")), "{name}");
        }
        for name in ["example.org", "a.forge.example.org", "other", "other:80"] {
            assert!(!ours(&hosts, name, Some("10.0.0.1")), "{name}");
        }
        for bad in ["", "a b", "http://x", "x/y", "u@x", "x:", "x:99999", "x?y"] {
            assert!(Hosts::new().named(bad).is_err(), "{bad}");
        }
    }
}
