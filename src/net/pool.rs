//! Idle connections to providers, per core and endpoint, newest first. No locks: a core has its own.
//!
//! Each idle connection keeps one pending `ready`: when it fires, the provider has closed or said
//! something that nobody asked for, and the connection is dropped. What slips through is replaced by
//! the exchange's replay. A pool belongs to one snapshot; another snapshot starts an empty one.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::base::ids::{EndpointId, Id as _};
use crate::base::limits;
use crate::base::tick::{Ms, Tick};
use crate::net::dial::Conn;
use crate::rt::{Reader as _, Rt};

type Ready = Pin<Box<dyn Future<Output = io::Result<()>>>>;

struct Idle<R: Rt> {
    /// Dropped before the connection: it shares the socket.
    ready: Ready,
    conn: Conn<R>,
    since: Tick,
}

/// One core's idle connections.
pub struct Pool<R: Rt> {
    rows: RefCell<Vec<Vec<Idle<R>>>>,
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
    /// Takes the newest idle connection to `endpoint`.
    pub fn take(&self, generation: u64, endpoint: EndpointId) -> Option<Conn<R>> {
        self.turn_to(generation);
        if generation != self.generation.get() {
            return None;
        }
        let mut rows = self.rows.borrow_mut();
        let row = rows.get_mut(endpoint.index())?;
        while let Some(mut idle) = row.pop() {
            // What came since the keeper last looked is no answer to what will be asked.
            let mut cx = Context::from_waker(Waker::noop());
            if idle.ready.as_mut().poll(&mut cx).is_pending() {
                drop(idle.ready);
                return Some(idle.conn);
            }
        }
        None
    }

    /// Keeps a connection whose last exchange came to a clean end.
    pub fn put(&self, generation: u64, endpoint: EndpointId, conn: Conn<R>, now: Tick) {
        self.turn_to(generation);
        if generation != self.generation.get() {
            return;
        }
        let mut ready: Ready = Box::pin(conn.reader.ready());
        let waker = self.keeper.borrow().clone();
        let mut cx = Context::from_waker(waker.as_ref().unwrap_or(Waker::noop()));
        if ready.as_mut().poll(&mut cx).is_ready() {
            return;
        }
        let mut rows = self.rows.borrow_mut();
        if rows.len() <= endpoint.index() {
            rows.resize_with(endpoint.index() + 1, Vec::new);
        }
        let row = &mut rows[endpoint.index()];
        if row.len() >= limits::POOL_IDLE_MAX {
            row.remove(0);
        }
        row.push(Idle { ready, conn, since: now });
    }

    /// How many are idle.
    pub fn idle(&self) -> usize {
        self.rows.borrow().iter().map(Vec::len).sum()
    }

    /// Drops what has been idle for too long.
    pub fn trim(&self, now: Tick) {
        for row in self.rows.borrow_mut().iter_mut() {
            row.retain(|idle| idle.since + Ms(limits::POOL_IDLE_MS) > now);
        }
    }

    /// Drops the one that has been idle for longest.
    pub fn give_up_one(&self) {
        let mut rows = self.rows.borrow_mut();
        // Each row has its oldest first.
        let oldest = rows.iter_mut().filter(|row| !row.is_empty()).min_by_key(|row| row[0].since);
        if let Some(row) = oldest {
            row.remove(0);
        }
    }

    /// Drops all of them.
    pub fn clear(&self) {
        self.rows.borrow_mut().clear();
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
                row.retain_mut(|idle| idle.ready.as_mut().poll(cx).is_pending());
            }
            Poll::<()>::Pending
        })
    }

    fn turn_to(&self, generation: u64) {
        if generation > self.generation.get() {
            self.generation.set(generation);
            self.clear();
        }
    }
}
