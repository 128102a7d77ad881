//! What a sandbox provider saw, with the times at which it saw it: for tests, in the process by
//! `Sandbox` and from outside by `GET /_sandbox/log`. Bounded: the oldest records go first.
//!
//! Times are microseconds of the runtime's clock, which all threads of a process share.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::ask::Ask;
use super::http::Request;
use super::script::Script;
use crate::base::tick::Tick;

/// Records kept of each kind.
const RECORDS_MAX: usize = 32 * 1024;
/// Bytes kept of the last request's body.
const BODY_KEPT_MAX: usize = 64 * 1024;

/// One connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Its number at this provider, from 0.
    pub id: u64,
    /// It was accepted.
    pub accepted: Tick,
    /// The peer's end was seen (its FIN or reset), if it came first.
    pub peer_closed: Option<Tick>,
    /// It is over on our side.
    pub closed: Option<Tick>,
    /// Complete requests.
    pub requests: u32,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its number at this provider, from 0.
    pub id: u64,
    /// The connection's number.
    pub connection: u64,
    /// It was complete.
    pub at: Tick,
    /// Method and path.
    pub line: String,
    /// The model as it came, which is the script unless it was overridden.
    pub model: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The names of its header fields, in order, lower case.
    pub fields: Vec<String>,
    /// SHA-256 of the `authorization` value in hex: tells credentials apart and shows none.
    pub authorization: Option<String>,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// SHA-256 of its body in hex.
    pub body_sha256: String,
    /// Bytes of the answer sent so far.
    pub sent: u64,
    /// The peer's end was seen before the answer was over.
    pub peer_closed: Option<Tick>,
    /// The answer was over, one way or another.
    pub ended: Option<Tick>,
}

/// Everything that a provider saw.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Connections, oldest first.
    pub connections: VecDeque<Connection>,
    /// Requests, oldest first.
    pub requests: VecDeque<Entry>,
    /// The last request's body, up to 64 KiB.
    pub last_body: Vec<u8>,
    accepted: u64,
    asked: u64,
}

/// A provider as its connections and its observers share it.
pub struct Provider {
    name: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    over: Option<Script>,
    log: Log,
    /// How many wait for the log to change: waking nobody costs a system call all the same.
    waiting: u32,
}

impl Provider {
    /// A provider that has seen nothing; `name` is `a`, `b`, ...
    pub fn new(name: &str) -> Provider {
        Provider { name: name.to_owned(), state: Mutex::default(), changed: Condvar::new() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A copy of what it saw.
    pub fn log(&self) -> Log {
        self.state().log.clone()
    }

    /// Forgets what it saw. Connections that are open stay unknown from then on.
    pub fn forget(&self) {
        let log = &mut self.state().log;
        log.connections.clear();
        log.requests.clear();
        log.last_body.clear();
    }

    /// What plain model names do from now on; `None`: a whole answer.
    pub fn set_script(&self, over: Option<Script>) {
        self.state().over = over;
    }

    /// What plain model names do.
    pub fn script(&self) -> Option<Script> {
        self.state().over.clone()
    }

    /// Waits until `seen` holds of the log; false after `patience`. For tests: no sleeping, no polling.
    pub fn wait(&self, patience: Duration, mut seen: impl FnMut(&Log) -> bool) -> bool {
        let end = Instant::now() + patience;
        let mut state = self.state();
        loop {
            if seen(&state.log) {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state.waiting += 1;
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
            state.waiting -= 1;
        }
    }

    /// A connection was accepted; its number.
    pub(super) fn accepted(&self, now: Tick) -> u64 {
        self.change(|log| {
            let id = log.accepted;
            log.accepted += 1;
            if log.connections.len() == RECORDS_MAX {
                log.connections.pop_front();
            }
            let connection = Connection { id, accepted: now, ..Connection::default() };
            log.connections.push_back(connection);
            id
        })
    }

    /// A request was complete; its number.
    pub(super) fn asked(&self, now: Tick, connection: u64, request: &Request, ask: &Ask) -> u64 {
        let sha = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
        let mut entry = Entry {
            id: 0,
            connection,
            at: now,
            line: format!("{} {}", request.method, request.path),
            model: ask.model.clone(),
            stream: ask.stream,
            fields: request.fields.iter().map(|(name, _)| name.clone()).collect(),
            authorization: request.field("authorization").map(|value| sha(value.as_bytes())),
            body_bytes: request.body.len() as u64,
            body_sha256: sha(&request.body),
            ..Entry::default()
        };
        self.change(|log| {
            entry.id = log.asked;
            log.asked += 1;
            if log.requests.len() == RECORDS_MAX {
                log.requests.pop_front();
            }
            let id = entry.id;
            log.requests.push_back(entry);
            let kept = request.body.len().min(BODY_KEPT_MAX);
            log.last_body = request.body[..kept].to_vec();
            if let Some(connection) = log.connection(connection) {
                connection.requests += 1;
            }
            id
        })
    }

    /// Bytes were sent on a connection, of the answer to `entry` if there is one.
    pub(super) fn sent(&self, connection: u64, entry: Option<u64>, count: u64) {
        self.change(|log| {
            if let Some(connection) = log.connection(connection) {
                connection.bytes_out += count;
            }
            if let Some(entry) = entry.and_then(|entry| log.request(entry)) {
                entry.sent += count;
            }
        });
    }

    /// Changes a connection's record, if it is still kept.
    pub(super) fn connection(&self, id: u64, change: impl FnOnce(&mut Connection)) {
        self.change(|log| log.connection(id).map(change));
    }

    /// Changes a request's record, if it is still kept.
    pub(super) fn request(&self, id: u64, change: impl FnOnce(&mut Entry)) {
        self.change(|log| log.request(id).map(change));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let mut state = self.state();
        let done = change(&mut state.log);
        if state.waiting > 0 {
            self.changed.notify_all();
        }
        done
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Connections accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Requests since the start.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        let first = self.connections.front()?.id;
        self.connections.get_mut(usize::try_from(id.checked_sub(first)?).ok()?)
    }

    fn request(&mut self, id: u64) -> Option<&mut Entry> {
        let first = self.requests.front()?.id;
        self.requests.get_mut(usize::try_from(id.checked_sub(first)?).ok()?)
    }

    /// As `GET /_sandbox/log` gives it; `now` lets an observer relate the times to its own clock.
    pub fn to_json(&self, provider: &str, now: Tick) -> Value {
        let at = |tick: Option<Tick>| tick.map(|tick| tick.0);
        json!({
            "provider": provider, "now_us": now.0, "accepted": self.accepted, "asked": self.asked,
            "connections": self.connections.iter().map(|c| json!({
                "id": c.id, "accepted_us": c.accepted.0, "peer_closed_us": at(c.peer_closed),
                "closed_us": at(c.closed), "requests": c.requests,
                "bytes_in": c.bytes_in, "bytes_out": c.bytes_out,
            })).collect::<Vec<_>>(),
            "requests": self.requests.iter().map(|r| json!({
                "id": r.id, "connection": r.connection, "at_us": r.at.0, "line": r.line,
                "model": r.model, "stream": r.stream, "fields": r.fields,
                "authorization_sha256": r.authorization, "body_bytes": r.body_bytes,
                "body_sha256": r.body_sha256, "sent": r.sent,
                "peer_closed_us": at(r.peer_closed), "ended_us": at(r.ended),
            })).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_bounded_and_found_by_number() {
        let provider = Provider::new("a");
        for i in 0..RECORDS_MAX as u64 + 10 {
            assert_eq!(provider.accepted(Tick(i)), i);
        }
        provider.connection(3, |_| panic!("it is gone"));
        let last = RECORDS_MAX as u64 + 9;
        provider.connection(last, |c| c.bytes_in = 7);
        let log = provider.log();
        assert_eq!(log.connections.len(), RECORDS_MAX);
        assert_eq!(log.connections.back().map(|c| (c.id, c.bytes_in)), Some((last, 7)));
        assert_eq!(log.accepted(), last + 1);
    }

    #[test]
    fn no_credential_is_kept() {
        let provider = Provider::new("a");
        let request = Request {
            method: "POST".into(),
            path: "/v1/x".into(),
            query: String::new(),
            fields: vec![("authorization".into(), "Bearer sk-secret".into())],
            body: b"{}".to_vec(),
        };
        let ask = Ask::read(&request).expect("an ask");
        provider.asked(Tick(1), 0, &request, &ask);
        let log = provider.log();
        assert!(!format!("{log:?}{}", log.to_json("a", Tick(2))).contains("sk-secret"));
        let hex = log.requests[0].authorization.clone().expect("a hash");
        assert_eq!(hex, format!("{:x}", Sha256::digest(b"Bearer sk-secret")));
    }

    #[test]
    fn waiting_ends_when_it_is_seen_or_too_late() {
        let provider = Provider::new("a");
        assert!(!provider.wait(Duration::from_millis(1), |log| log.accepted() == 1));
        std::thread::scope(|scope| {
            scope.spawn(|| provider.accepted(Tick(1)));
            assert!(provider.wait(Duration::from_secs(60), |log| log.accepted() == 1));
        });
    }
}
