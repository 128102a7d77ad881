//! Access tokens of providers that take no lasting key: fetched by a thread that may block, read by the
//! cores at each attempt without a lock.
//!
//! What is here keeps a token and what was said of it. Who fetches one, when, and how, is the app's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use crate::base::secret::Secret;
use crate::base::tick::Tick;
use crate::config::ServiceAccount;

/// A token for a while.
#[derive(Debug)]
pub struct Lease {
    /// The token.
    pub token: Secret,
    /// It is good before that.
    pub until: Tick,
    /// Which of this provider's tokens it is, from 1.
    pub serial: u64,
}

/// Where one provider's token is published.
pub struct Token {
    account: ServiceAccount,
    lease: ArcSwapOption<Lease>,
    /// Tokens so far.
    fetched: AtomicU64,
    /// Fetches that failed.
    failed: AtomicU64,
    /// The latest token that the provider did not accept, by its serial.
    refused: AtomicU64,
}

impl Token {
    /// Without a token yet.
    pub fn new(account: ServiceAccount) -> Token {
        Token {
            account,
            lease: ArcSwapOption::empty(),
            fetched: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Who asks for it.
    pub fn account(&self) -> &ServiceAccount {
        &self.account
    }

    /// The token of now, if there is one that is still good.
    pub fn current(&self, now: Tick) -> Option<Arc<Lease>> {
        self.lease.load_full().filter(|lease| lease.until > now)
    }

    /// Whether there is a token that is still good.
    pub fn is_good(&self, now: Tick) -> bool {
        self.lease.load().as_ref().is_some_and(|lease| lease.until > now)
    }

    /// A new token, good until then. Only one thread publishes.
    pub fn publish(&self, token: Secret, until: Tick) {
        let serial = self.fetched.fetch_add(1, Ordering::Relaxed) + 1;
        self.lease.store(Some(Arc::new(Lease { token, until, serial })));
    }

    /// A fetch failed; the token stays in use as long as it is good.
    pub fn note_failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// The provider did not accept this token.
    pub fn refuse(&self, serial: u64) {
        self.refused.fetch_max(serial, Ordering::Relaxed);
    }

    /// Whether the token of now was refused: the next one is wanted before its time.
    pub fn is_refused(&self) -> bool {
        let serial = self.lease.load().as_ref().map_or(0, |lease| lease.serial);
        serial > 0 && self.refused.load(Ordering::Relaxed) >= serial
    }

    /// Tokens so far, and fetches that failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.fetched.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BaseUrl;

    #[test]
    fn a_token_is_good_for_its_time_and_refused_once() {
        let token_url = BaseUrl { tls: true, host: "h".into(), port: 443, path: String::new() };
        let (email, key) = (String::from("a@b"), Secret::new("pem"));
        let token = Token::new(ServiceAccount { email, key_id: None, key, token_url });
        assert!(token.current(Tick(0)).is_none() && !token.is_refused());
        token.publish(Secret::new("one"), Tick(10));
        let first = token.current(Tick(9)).unwrap();
        assert_eq!((first.token.expose(), first.serial), (&b"one"[..], 1));
        assert!(token.current(Tick(10)).is_none());
        assert_eq!([token.is_good(Tick(9)), token.is_good(Tick(10))], [true, false]);
        token.refuse(first.serial);
        assert!(token.is_refused());
        token.publish(Secret::new("two"), Tick(20));
        // What is said late of the old one says nothing of the new one.
        token.refuse(first.serial);
        assert!(!token.is_refused());
        token.note_failure();
        assert_eq!(token.counts(), (2, 1));
        let shown = format!("{token:?}");
        assert!(!shown.contains("two") && !shown.contains("pem"), "{shown}");
    }
}
