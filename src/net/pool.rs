//! Idle connections to providers, per core and endpoint, newest first. No locks: a core has its own.
//!
//! Each idle connection keeps one pending `ready`: when it fires, the provider has closed or said
//! something that nobody asked for, and the connection is dropped. What slips through is replaced by
//! the exchange's replay. A pool follows the snapshots: connections to endpoints that are the same in the
//! next one go on, those to others are dropped.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::task::{Context, Poll, Waker};

use crate::base::ids::{EndpointId, Id as _};
use crate::base::limits;
use crate::base::tick::{Ms, Tick};
use crate::net::core::Snapshot;
use crate::net::dial::Conn;
use crate::route::Endpoint;
use crate::rt::Rt;

struct Idle<R: Rt> {
    /// Watched by its `watch`.
    conn: Conn<R>,
    since: Tick,
}

/// The idle connections to one endpoint.
struct Row<R: Rt> {
    endpoint: Endpoint,
    idle: Vec<Idle<R>>,
}

/// One core's idle connections.
pub struct Pool<R: Rt> {
    rows: RefCell<Vec<Row<R>>>,
    /// Of which snapshot.
    generation: Cell<u64>,
    /// The keeper's, so that a new `ready` wakes it.
    keeper: RefCell<Option<Waker>>,
}

impl<R: Rt> Default for Pool<R> {
    fn default() -> Self {
        Pool {
            rows: RefCell::new(Vec::new()),
            generation: Cell::new(0),
            keeper: RefCell::new(None),
        }
    }
}

impl<R: Rt> Pool<R> {
    /// Takes the newest idle connection to an endpoint of this snapshot.
    pub fn take(&self, snapshot: &Snapshot, endpoint: EndpointId) -> Option<Conn<R>> {
        self.turn_to(snapshot);
        let index = self.row(snapshot, endpoint)?;
        let mut rows = self.rows.borrow_mut();
        while let Some(mut idle) = rows[index].idle.pop() {
            // What came since the keeper last looked is no answer to what will be asked.
            let mut cx = Context::from_waker(Waker::noop());
            if idle.conn.poll_readable(&mut cx).is_pending() {
                return Some(idle.conn);
            }
        }
        None
    }

    /// Keeps a connection whose last exchange came to a clean end.
    pub fn put(&self, snapshot: &Snapshot, endpoint: EndpointId, mut conn: Conn<R>, now: Tick) {
        self.turn_to(snapshot);
        let Some(index) = self.row(snapshot, endpoint) else { return };
        let waker = self.keeper.borrow().clone();
        let mut cx = Context::from_waker(waker.as_ref().unwrap_or(Waker::noop()));
        if conn.poll_readable(&mut cx).is_ready() {
            return;
        }
        let row = &mut self.rows.borrow_mut()[index].idle;
        if row.len() >= limits::POOL_IDLE_MAX {
            row.remove(0);
        }
        row.push(Idle { conn, since: now });
    }

    /// How many are idle.
    pub fn idle(&self) -> usize {
        self.rows.borrow().iter().map(|row| row.idle.len()).sum()
    }

    /// Drops what has been idle for too long.
    pub fn trim(&self, now: Tick) {
        for row in self.rows.borrow_mut().iter_mut() {
            row.idle.retain(|idle| idle.since + Ms(limits::POOL_IDLE_MS) > now);
        }
    }

    /// Drops the one that has been idle for longest.
    pub fn give_up_one(&self) {
        let mut rows = self.rows.borrow_mut();
        // Each row has its oldest first.
        let used = rows.iter_mut().map(|row| &mut row.idle).filter(|idle| !idle.is_empty());
        if let Some(idle) = used.min_by_key(|idle| idle[0].since) {
            idle.remove(0);
        }
    }

    /// Drops all of them.
    pub fn clear(&self) {
        self.rows.borrow_mut().iter_mut().for_each(|row| row.idle.clear());
    }

    /// Watches the idle connections; never completes. One task per core runs it.
    pub fn keep(&self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(|cx| {
            let mut keeper = self.keeper.borrow_mut();
            if !keeper.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *keeper = Some(cx.waker().clone());
            }
            drop(keeper);
            for row in self.rows.borrow_mut().iter_mut() {
                row.idle.retain_mut(|idle| idle.conn.poll_readable(cx).is_pending());
            }
            Poll::<()>::Pending
        })
    }

    /// The row of an endpoint, which an exchange of an older snapshot may know by another id; `None`:
    /// the pool's snapshot has no such endpoint.
    fn row(&self, snapshot: &Snapshot, endpoint: EndpointId) -> Option<usize> {
        if snapshot.generation == self.generation.get() {
            return Some(endpoint.index());
        }
        let wanted = &snapshot.table.endpoints[endpoint];
        self.rows.borrow().iter().position(|row| row.endpoint == *wanted)
    }

    /// Follows a newer snapshot.
    fn turn_to(&self, snapshot: &Snapshot) {
        if snapshot.generation <= self.generation.get() {
            return;
        }
        self.generation.set(snapshot.generation);
        let mut rows = self.rows.borrow_mut();
        let mut old = std::mem::take(&mut *rows);
        for (_, endpoint) in snapshot.table.endpoints.iter() {
            let kept = old.iter().position(|row| row.endpoint == *endpoint);
            let kept = kept.map(|index| old.swap_remove(index));
            let new = || Row { endpoint: endpoint.clone(), idle: Vec::new() };
            rows.push(kept.unwrap_or_else(new));
        }
        // The others close here.
        drop(old);
    }
}
