//! A level that a core's tasks wait on: it only rises, from running over draining to stopping. Local
//! to the core; what other threads want is looked up by the core's ticker and raised here.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How far the end has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum Level {
    /// Everything is served.
    #[default]
    Running = 0,
    /// No new connections, idle ones close, exchanges go on.
    Draining = 1,
    /// Exchanges end now.
    Stopping = 2,
}

impl Level {
    /// From the number that other threads store.
    pub const fn from_u8(level: u8) -> Level {
        match level {
            0 => Level::Running,
            1 => Level::Draining,
            _ => Level::Stopping,
        }
    }
}

#[derive(Default)]
struct Inner {
    level: Cell<Level>,
    waiting: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

/// The level and who waits for it.
#[derive(Clone, Default)]
pub struct Beacon {
    inner: Rc<Inner>,
}

impl Beacon {
    /// A beacon at `Running`.
    pub fn new() -> Beacon {
        Beacon::default()
    }

    /// The level now.
    pub fn level(&self) -> Level {
        self.inner.level.get()
    }

    /// Raises the level and wakes all who wait. A lower level is ignored.
    pub fn raise(&self, level: Level) {
        if level <= self.level() {
            return;
        }
        self.inner.level.set(level);
        let wakers: Vec<Waker> =
            self.inner.waiting.borrow_mut().iter_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Completes once the level is at least `level`. Droppable.
    pub fn reached(&self, level: Level) -> Reached {
        Reached { beacon: self.clone(), level, seat: None }
    }
}

/// See [`Beacon::reached`].
pub struct Reached {
    beacon: Beacon,
    level: Level,
    seat: Option<usize>,
}

impl Future for Reached {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.beacon.level() >= self.level {
            return Poll::Ready(());
        }
        let inner = self.beacon.inner.clone();
        let mut waiting = inner.waiting.borrow_mut();
        let seat = match self.seat {
            Some(seat) => seat,
            None => {
                let seat = inner.free.borrow_mut().pop().unwrap_or_else(|| {
                    waiting.push(None);
                    waiting.len() - 1
                });
                self.seat = Some(seat);
                seat
            }
        };
        match &mut waiting[seat] {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            other => *other = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        if let Some(seat) = self.seat {
            self.beacon.inner.waiting.borrow_mut()[seat] = None;
            self.beacon.inner.free.borrow_mut().push(seat);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn waiters_are_woken_once_and_seats_are_reused() {
        let (beacon, count) = (Beacon::new(), Arc::new(Count::default()));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        for _ in 0..10 {
            let mut dropped = beacon.reached(Level::Draining);
            assert!(Pin::new(&mut dropped).poll(&mut cx).is_pending());
        }
        let mut drain = beacon.reached(Level::Draining);
        let mut stop = beacon.reached(Level::Stopping);
        assert!(Pin::new(&mut drain).poll(&mut cx).is_pending());
        assert!(Pin::new(&mut stop).poll(&mut cx).is_pending());
        assert_eq!(beacon.inner.waiting.borrow().len(), 2);
        beacon.raise(Level::Draining);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(Pin::new(&mut drain).poll(&mut cx).is_ready());
        assert!(Pin::new(&mut stop).poll(&mut cx).is_pending());
        beacon.raise(Level::Running);
        assert_eq!(beacon.level(), Level::Draining);
    }
}
