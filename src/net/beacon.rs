//! A level that a core's tasks wait on: it only rises, from running over draining to stopping. Local
//! to the core; what other threads want is looked up by the core's ticker and raised here. The ticker
//! also ends waits that have a time: an idle connection then needs no timer of its own.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::base::tick::Tick;

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
    /// As the ticker told it last.
    now: Cell<Tick>,
    waiting: RefCell<Vec<Option<(Waker, Tick)>>>,
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
        self.wake(|_| true);
    }

    /// Tells the time: wakes whose waits are over.
    pub fn tick(&self, now: Tick) {
        self.inner.now.set(now);
        self.wake(|until| until <= now);
    }

    fn wake(&self, is_over: impl Fn(Tick) -> bool) {
        let mut waiting = self.inner.waiting.borrow_mut();
        let over = |seat: &mut Option<(Waker, Tick)>| {
            seat.take_if(|(_, until)| is_over(*until)).map(|(waker, _)| waker)
        };
        let wakers: Vec<Waker> = waiting.iter_mut().filter_map(over).collect();
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Completes once the level is at least `level`. Droppable.
    pub fn reached(&self, level: Level) -> Reached {
        self.reached_or(level, Tick::NEVER)
    }

    /// As `reached`, or once the ticker has told `until`.
    pub fn reached_or(&self, level: Level, until: Tick) -> Reached {
        Reached { beacon: self.clone(), level, until, seat: None }
    }
}

/// See [`Beacon::reached`].
pub struct Reached {
    beacon: Beacon,
    level: Level,
    until: Tick,
    seat: Option<usize>,
}

impl Future for Reached {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.beacon.level() >= self.level || self.beacon.inner.now.get() >= self.until {
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
            Some((waker, _)) if waker.will_wake(cx.waker()) => {}
            other => *other = Some((cx.waker().clone(), self.until)),
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
        let mut timed = beacon.reached_or(Level::Stopping, Tick(7));
        assert!(Pin::new(&mut timed).poll(&mut cx).is_pending());
        beacon.tick(Tick(6));
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        beacon.tick(Tick(7));
        assert_eq!(count.0.load(Ordering::Relaxed), 3);
        assert!(Pin::new(&mut timed).poll(&mut cx).is_ready());
        beacon.raise(Level::Running);
        assert_eq!(beacon.level(), Level::Draining);
    }
}
