//! Browsers that were let in: a link that works once, then a cookie.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, header};

use crate::secret::Secret;

/// How long a login link works.
const LINK: Duration = Duration::from_mins(10);
/// How long a browser stays logged in, in seconds.
const STAY: u64 = 30 * 24 * 3600;
/// Links that wait to be used.
const LINKS: usize = 16;
const CONTEXT: &str = "tenon door 2026 session cookie";

/// The sessions of one server's browsers. Nothing about them is stored: a cookie is proven by the server's secret, and
/// ends with it.
#[derive(Debug)]
pub struct Sessions {
    cookie: String,
    links: Mutex<Vec<(Secret, Instant)>>,
}

impl Sessions {
    /// Sessions of a server; `name` tells its cookie from those of other servers on the same machine, which browsers send
    /// to every port.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { cookie: name.to_owned(), links: Mutex::default() }
    }

    /// The key of a login link that works once, within ten minutes. Too many that wait: the oldest goes.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn link(&self) -> std::io::Result<String> {
        let key = Secret::random()?;
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.len() == LINKS {
            links.remove(0);
        }
        links.push((key.clone(), Instant::now()));
        Ok(key.expose().to_owned())
    }

    /// Whether a login link may be used; from now on it may not.
    #[must_use]
    pub fn redeem(&self, key: &str) -> bool {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|(_, made)| made.elapsed() < LINK);
        let found = links.iter().position(|(link, _)| link.is(key));
        found.map(|at| links.remove(at)).is_some()
    }

    /// The cookie of a browser that was let in just now.
    #[must_use]
    pub fn set_cookie(&self, secret: &Secret) -> Option<HeaderValue> {
        let ends = now() + STAY;
        let name = &self.cookie;
        let text = format!("{name}={ends}.{}; Path=/; Max-Age={STAY}; HttpOnly; SameSite=Strict", proof(secret, ends));
        HeaderValue::from_str(&text).ok()
    }

    /// The cookie that ends a browser's session.
    #[must_use]
    pub fn clear_cookie(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&format!("{}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict", self.cookie)).ok()
    }

    /// Whether a request comes from a browser that was let in.
    #[must_use]
    pub fn is_in(&self, headers: &HeaderMap, secret: &Secret) -> bool {
        self.is_in_at(headers, secret, now())
    }

    fn is_in_at(&self, headers: &HeaderMap, secret: &Secret, now: u64) -> bool {
        let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies = all.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
        cookies.any(|(name, value)| {
            let Some((ends, given)) = value.split_once('.') else { return false };
            let Ok(ends) = ends.parse::<u64>() else { return false };
            // Compared like every secret, by somebody who does not know it.
            let wanted = Secret::new(&proof(secret, ends));
            name == self.cookie && ends > now && ends <= now + STAY && wanted.is_ok_and(|wanted| wanted.is(given))
        })
    }
}

fn proof(secret: &Secret, ends: u64) -> String {
    let key = blake3::derive_key(CONTEXT, secret.expose().as_bytes());
    blake3::keyed_hash(&key, &ends.to_le_bytes()).to_hex().to_string()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cookie: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_str(cookie).unwrap());
        headers
    }

    #[test]
    fn a_cookie_is_good_for_its_time_its_server_and_its_secret() {
        let sessions = Sessions::new("forge-7420");
        let (secret, other) = (Secret::random().unwrap(), Secret::random().unwrap());
        let set = sessions.set_cookie(&secret).unwrap().to_str().unwrap().to_owned();
        assert!(set.contains("; HttpOnly; SameSite=Strict") && !set.contains(secret.expose()), "{set}");
        let pair = set.split(';').next().unwrap();
        let headers = with(&format!("a=b; {pair}; c=d"));
        assert!(sessions.is_in(&headers, &secret));
        assert!(!sessions.is_in(&headers, &other), "the secret was changed");
        assert!(!Sessions::new("forge-7421").is_in(&headers, &secret), "another server's");
        assert!(!sessions.is_in_at(&headers, &secret, now() + STAY + 1), "its time is over");
        let (name, value) = pair.split_once('=').unwrap();
        let (ends, proof) = value.split_once('.').unwrap();
        let later = ends.parse::<u64>().unwrap() - 1;
        for forged in
            [format!("{name}={later}.{proof}"), format!("{name}={ends}."), format!("{name}="), format!("{name}=x.y")]
        {
            assert!(!sessions.is_in(&with(&forged), &secret), "{forged}");
        }
        assert!(!sessions.is_in(&HeaderMap::new(), &secret));
    }

    #[test]
    fn a_link_works_once_and_the_oldest_give_way() {
        let sessions = Sessions::new("forge");
        let first = sessions.link().unwrap();
        assert!(!sessions.redeem("") && !sessions.redeem(&first[1..]));
        assert!(sessions.redeem(&first) && !sessions.redeem(&first));
        let oldest = sessions.link().unwrap();
        let all: Vec<_> = (0..LINKS).map(|_| sessions.link().unwrap()).collect();
        assert!(!sessions.redeem(&oldest) && all.iter().all(|key| sessions.redeem(key)));
    }
}
