//! Where requests wait that a late core can't even refuse.
//!
//! To refuse costs a read, an answer and the waking of who reads it: nearly as much as a small request that is
//! served. A core that refused all that is too much for it would do little else, so refusals may take a
//! share of its CPU time and no more. Who is neither served nor refused at once waits, unread, and costs
//! nothing meanwhile; the one that has waited for longest is refused when there is time for it, and served
//! when the core is calm.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::base::tick::Tick;
use crate::config::Server;
use crate::net::load::Lateness;

/// The gate of one core.
pub struct Gate {
    places: RefCell<VecDeque<Rc<Place>>>,
    /// CPU time that refusals may take, in microseconds.
    purse: Cell<u64>,
    /// How much CPU time the core had used when the purse was filled last.
    used: Cell<Tick>,
    /// Requests that were let in since then.
    let_in: Cell<usize>,
    /// Nobody waits any more: the core drains.
    is_open: Cell<bool>,
}

/// A request that waits.
#[derive(Default)]
struct Place {
    verdict: Cell<Option<Verdict>>,
    waker: RefCell<Option<Waker>>,
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is served.
    Serve,
    /// It is refused.
    Shed,
}

impl Gate {
    /// An empty one.
    pub(super) fn new() -> Gate {
        let purse = Cell::new(PURSE_MAX);
        Gate {
            places: RefCell::default(),
            purse,
            used: Cell::new(Tick(0)),
            let_in: Cell::new(0),
            is_open: Cell::new(false),
        }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.places.borrow().len()
    }

    /// Judges a request that has come, before any of it is read. `None`: it has to wait.
    pub(super) fn judge(
        &self,
        (lateness, now): (&Lateness, Tick),
        server: &Server,
    ) -> Option<Verdict> {
        lateness.miss(now, server.lag_max);
        if !lateness.sheds() {
            self.let_in.set(self.let_in.get() + 1);
            return Some(Verdict::Serve);
        }
        if self.is_open.get() {
            return Some(Verdict::Shed);
        }
        // Nobody overtakes those that wait.
        (self.places.borrow().is_empty() && self.pay()).then_some(Verdict::Shed)
    }

    /// Waits for the verdict. Droppable.
    pub(super) async fn wait(&self) -> Verdict {
        let place = Rc::new(Place::default());
        self.places.borrow_mut().push_back(place.clone());
        poll_fn(|cx| match place.verdict.get() {
            Some(verdict) => Poll::Ready(verdict),
            None => {
                *place.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// A tick: the core's thread has used so much CPU time. A calm core has time for refusals, and serves some
    /// of those that wait; one that is not refuses them, as many as it can.
    pub(super) fn tick(&self, used: Tick, is_calm: bool) {
        let had = used.since(self.used.replace(used));
        let let_in = self.let_in.take();
        self.purse.set((self.purse.get() + had / SHARE).min(PURSE_MAX));
        if is_calm && self.waiting() == 0 {
            self.purse.set(PURSE_MAX);
        } else if is_calm {
            // What waits is let in as quickly as it has come, or a part of it: all at once would be too much.
            let count = (self.waiting() / PARTS).max(let_in / PARTS) + 1;
            for _ in 0..count {
                self.release(Verdict::Serve);
            }
        } else {
            while self.waiting() > 0 && self.pay() {
                self.release(Verdict::Shed);
            }
        }
    }

    /// The core drains: what has come by now is served, and what comes is judged at once.
    pub(super) fn open(&self) {
        self.is_open.set(true);
        while self.release(Verdict::Serve) {}
    }

    /// The first that waits has its verdict; whether there was one. Those whose connection is gone have given
    /// up their place.
    fn release(&self, verdict: Verdict) -> bool {
        loop {
            let Some(place) = self.places.borrow_mut().pop_front() else { return false };
            if Rc::strong_count(&place) == 1 {
                continue;
            }
            place.verdict.set(Some(verdict));
            if let Some(waker) = place.waker.take() {
                waker.wake();
            }
            return true;
        }
    }

    /// Takes what a refusal costs out of the purse, if it holds as much.
    pub(super) fn pay(&self) -> bool {
        let left = self.purse.get().checked_sub(COST);
        left.inspect(|left| self.purse.set(*left)).is_some()
    }
}

/// What a refusal costs, in microseconds of CPU time: about what was measured, with caches that are cold.
const COST: u64 = 25;
/// Refusals may take the twentieth part of a core's time.
const SHARE: u64 = 20;
/// So much of it can be saved up: for what comes at once after a quiet time.
const PURSE_MAX: u64 = 512 * COST;
/// A calm core serves this part of those that wait at each tick.
const PARTS: usize = 16;

#[cfg(test)]
mod tests;
