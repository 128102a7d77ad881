//! The executor of a world: one thread, one queue, virtual time. It runs tasks until none can, then
//! lets the next event happen. Which task is next, and whether an event slips in between, is drawn
//! from the seed where `Faults::shuffle` says so.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::state::State;

/// The task that `block_on` was given.
const MAIN: u64 = 0;

/// What a world's handles share.
pub struct Shared {
    pub(super) state: RefCell<State>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    ready: Arc<Ready>,
    pub(super) step_max: Cell<u64>,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    wake: Arc<TaskWake>,
}

/// Tasks that can run. A waker must be `Send`, hence the lock; there is one thread.
#[derive(Default)]
struct Ready(Mutex<VecDeque<u64>>);

impl Ready {
    fn push(&self, task: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(task);
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self, index: usize) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(index)
    }
}

struct TaskWake {
    task: u64,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.push(self.task);
        }
    }
}

/// Steps of one run, unless the world says otherwise: far above any test's, far below patience.
const STEP_MAX: u64 = 2_000_000;

impl Shared {
    pub(super) fn new(state: State) -> Shared {
        Shared {
            state: RefCell::new(state),
            tasks: RefCell::new(BTreeMap::new()),
            ready: Arc::new(Ready::default()),
            step_max: Cell::new(STEP_MAX),
        }
    }

    pub(super) fn live_tasks(&self) -> usize {
        self.tasks.borrow().len()
    }

    pub(super) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let task = self.state.borrow_mut().id();
        let wake = self.waker(task);
        self.tasks.borrow_mut().insert(task, Task { future: Box::pin(future), wake });
    }

    /// A waker whose task is in the queue.
    fn waker(&self, task: u64) -> Arc<TaskWake> {
        let ready = self.ready.clone();
        let wake = Arc::new(TaskWake { task, queued: AtomicBool::new(false), ready });
        wake.wake_by_ref();
        wake
    }

    /// Runs the world until `main` is done.
    pub(super) fn block_on<F: Future>(&self, main: F) -> F::Output {
        let mut main = std::pin::pin!(main);
        let wake = self.waker(MAIN);
        let waker = Waker::from(wake.clone());
        loop {
            match self.next() {
                Next::Task(MAIN) => {
                    wake.queued.store(false, Ordering::Relaxed);
                    let polled =
                        self.guarded(|| main.as_mut().poll(&mut Context::from_waker(&waker)));
                    if let Poll::Ready(output) = polled {
                        return output;
                    }
                }
                Next::Task(task) => self.run(task),
                Next::Event => {}
                Next::Nothing => self.fail("nothing can ever happen again, and main is not done"),
            }
        }
    }

    /// Runs the world until nothing can happen.
    pub(super) fn settle(&self) {
        loop {
            match self.next() {
                Next::Task(task) => self.run(task),
                Next::Event => {}
                Next::Nothing => return,
            }
        }
    }

    /// Draws what is next; an event has then happened already.
    fn next(&self) -> Next {
        let mut state = self.state.borrow_mut();
        let waiting = self.ready.len();
        let shuffle = state.faults.shuffle;
        let slips_in = shuffle && state.is_due() && state.rng.one_in(4);
        if waiting > 0 && !slips_in {
            let bound = if shuffle { u32::try_from(waiting).unwrap_or(u32::MAX) } else { 1 };
            let index = state.rng.below(bound) as usize;
            if let Some(task) = self.ready.take(index) {
                state.note("task", task, 0);
                drop(state);
                self.check_steps();
                return Next::Task(task);
            }
        }
        let happened = state.advance();
        drop(state);
        self.check_steps();
        if happened { Next::Event } else { Next::Nothing }
    }

    fn run(&self, id: u64) {
        // Out of the table while it runs: it may spawn.
        let Some(mut task) = self.tasks.borrow_mut().remove(&id) else { return };
        task.wake.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(task.wake.clone());
        let polled = self.guarded(|| task.future.as_mut().poll(&mut Context::from_waker(&waker)));
        if polled.is_pending() {
            self.tasks.borrow_mut().insert(id, task);
        }
    }

    fn check_steps(&self) {
        if self.state.borrow().steps > self.step_max.get() {
            self.fail("too many steps");
        }
    }

    /// Runs code of a task; a panic in it goes on with seed and step.
    fn guarded<T>(&self, code: impl FnOnce() -> T) -> T {
        std::panic::catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            self.fail(&format!("a task panicked: {}", text.unwrap_or_default()))
        })
    }

    /// Ends the test with what is known of the world.
    #[allow(clippy::panic)] // A world exists in tests alone, and this is how a test fails.
    pub(super) fn fail(&self, why: &str) -> ! {
        let report = self.state.borrow().report(why, self.live_tasks());
        panic!("{report}")
    }

    /// Drops all tasks. They hold handles to this, so nothing else would.
    pub(super) fn drop_tasks(&self) {
        while let Some((_, task)) = self.pop_task() {
            drop(task);
        }
    }

    fn pop_task(&self) -> Option<(u64, Task)> {
        self.tasks.borrow_mut().pop_first()
    }
}

enum Next {
    Task(u64),
    Event,
    Nothing,
}
