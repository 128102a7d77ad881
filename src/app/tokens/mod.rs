//! Access tokens of service accounts, fetched on a thread that may block: a core never asks for one.
//!
//! A token is replaced at four fifths of its life, so that one failure is no gap; a fetch that fails is
//! tried again after a pause that doubles, and the old token stays in use as long as it is good. A
//! provider that does not accept a token has the next one fetched at once, but not over and over: an
//! account without the right to ask is told the same each time. What a core finds is in `route/token`.
//!
//! The log says when fetching begins to fail and when it works again, never what was sent or received.

mod jwt;
mod post;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::base::secret::Secret;
use crate::base::tick::Ms;
use crate::config::{Config, Problem, ServiceAccount};
use crate::net::core::Shared;
use crate::route::Table;
use crate::route::token::Token;
use crate::rt::uring;

/// How often the thread looks whether a token is due.
const LOOK: Duration = Duration::from_millis(100);
/// How long one fetch may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause after a fetch that failed, doubled each time up to the limit.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Between two fetches because a provider did not accept a token.
const FORCE_PAUSE: Duration = Duration::from_secs(10);
/// What the tokens are for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The life of a token whose answer does not say it, and the longest that is believed, in seconds.
const LIFE: u64 = 3_600;
const LIFE_MAX: u64 = 86_400;

struct Row {
    token: Arc<Token>,
    due: Instant,
    failures: u32,
    forced: Option<Instant>,
}

/// Whether a config has an account whose tokens must be fetched.
pub fn are_needed(config: &Config) -> bool {
    config.providers.iter().any(|(_, provider)| provider.account.is_some())
}

/// Checks that each account of a config can sign.
///
/// # Errors
/// Those that can't, and why.
pub fn check(config: &Config) -> Result<(), Vec<Problem>> {
    let wrong = config.providers.iter().filter_map(|(_, provider)| {
        let what = jwt::check(provider.account.as_ref()?).err()?;
        let path = format!("providers.{}.service_account", provider.name);
        let hint = String::from("create a new JSON key for the account");
        Some(Problem { line: None, path, what, hint })
    });
    let wrong: Vec<_> = wrong.collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Fetches tokens for what the snapshots name until `quit` is dropped. The first round is over when
/// `ready` has been called.
pub fn run(shared: &Arc<Shared>, quit: &Receiver<()>, ready: impl FnOnce(), say: fn(&str)) {
    let mut rows: BTreeMap<Arc<str>, Row> = BTreeMap::new();
    let mut ready = Some(ready);
    loop {
        take_in(shared, &mut rows);
        for (name, row) in &mut rows {
            if row.is_due(Instant::now()) {
                row.fetch(name, say);
            }
        }
        if let Some(ready) = ready.take() {
            ready();
        }
        match quit.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Fetches the tokens of a table that has none yet, before requests need them.
pub fn prime(table: &Table, say: fn(&str)) {
    for (_, provider) in table.providers.iter() {
        if let Some(token) = provider.token.as_ref().filter(|token| !token.is_good(uring::now())) {
            Row::new(token).fetch(&provider.name, say);
        }
    }
}

/// Follows the current snapshot: new accounts come, old ones go, a token that was carried over is known.
fn take_in(shared: &Shared, rows: &mut BTreeMap<Arc<str>, Row>) {
    let snapshot = shared.snapshot();
    let providers = &snapshot.table.providers;
    rows.retain(|name, row| {
        let same = |token: &Arc<Token>| Arc::ptr_eq(token, &row.token);
        providers.iter().any(|(_, p)| p.name == *name && p.token.as_ref().is_some_and(same))
    });
    for (_, provider) in providers.iter() {
        if let Some(token) = &provider.token {
            rows.entry(provider.name.clone()).or_insert_with(|| Row::new(token));
        }
    }
}

impl Row {
    fn new(token: &Arc<Token>) -> Row {
        Row { token: token.clone(), due: Instant::now(), failures: 0, forced: None }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        if self.due <= now {
            return true;
        }
        let rested = self.forced.is_none_or(|at| now.saturating_duration_since(at) >= FORCE_PAUSE);
        // While fetching fails, its own pauses are kept.
        if self.failures > 0 || !rested || !self.token.is_refused() {
            return false;
        }
        self.forced = Some(now);
        true
    }

    fn fetch(&mut self, name: &str, say: fn(&str)) {
        match fetch(self.token.account()) {
            Ok((token, life)) => {
                if self.failures > 0 {
                    say(&format!("{name}: access tokens are given again"));
                }
                self.failures = 0;
                self.due = Instant::now() + life.mul_f64(0.8);
                let life = Ms(u32::try_from(life.as_millis()).unwrap_or(u32::MAX - 1));
                self.token.publish(token, uring::now() + life);
            }
            Err(why) => {
                if self.failures == 0 {
                    let has_one = self.token.is_good(uring::now());
                    let last =
                        if has_one { "; the last one stays in use while it is good" } else { "" };
                    say(&format!("{name}: no access token could be fetched: {why}{last}"));
                }
                self.token.note_failure();
                self.failures = self.failures.saturating_add(1);
                let pause = RETRY.saturating_mul(1 << (self.failures - 1).min(7)).min(RETRY_MAX);
                self.due = Instant::now() + pause;
            }
        }
    }
}

/// What a token server answers (RFC 6749 sections 5.1 and 5.2).
#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    expires_in: Option<u64>,
    error: Option<String>,
}

/// A token and how long it is good for.
fn fetch(account: &ServiceAccount) -> Result<(Secret, Duration), String> {
    let form = jwt::form(account, SCOPE, uring::wall())?;
    let url = &account.token_url;
    let reply =
        post::form(url, &form, PATIENCE).map_err(|why| format!("{}: {why}", url.authority()))?;
    let answer: Option<Answer> = serde_json::from_slice(reply.body.expose()).ok();
    let refused = |what: &str| format!("{} answered {what}", url.authority());
    let Some(answer) = answer.filter(|answer| reply.status == 200 || answer.error.is_some()) else {
        return Err(refused(&format!("with status {}", reply.status)));
    };
    if let Some(error) = answer.error {
        // One of a few known words; anything else might say too much.
        let word = error.len() <= 32 && error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let why = if word { error.as_str() } else { "an error" };
        return Err(refused(&format!("{why} (status {})", reply.status)));
    }
    let token = Secret::new(answer.access_token.unwrap_or_default());
    if token.is_empty() || !token.expose().iter().all(u8::is_ascii_graphic) {
        return Err(refused("without a token"));
    }
    let life = answer.expires_in.unwrap_or(LIFE).min(LIFE_MAX);
    if life == 0 {
        return Err(refused("with a token that is over"));
    }
    Ok((token, Duration::from_secs(life)))
}
