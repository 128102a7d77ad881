//! The signals of a process, counted: of those that end it the first one drains and a second one hurries;
//! SIGHUP reloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Incoming;

/// How often waiting loops look.
const LOOK: Duration = Duration::from_millis(20);

/// How often this process was asked to end, and to reload.
#[derive(Clone, Default)]
pub struct Signals {
    ends: Arc<AtomicUsize>,
    reloads: Arc<AtomicUsize>,
}

impl Signals {
    /// Begins to count SIGTERM, SIGINT and SIGHUP, on a thread of its own.
    ///
    /// # Errors
    /// The kernel's refusal, in words.
    pub fn watch() -> Result<Signals, String> {
        let refused = |error: std::io::Error| format!("signals can't be handled: {error}");
        let mut incoming = Incoming::new([SIGTERM, SIGINT, SIGHUP]).map_err(refused)?;
        let signals = Signals::default();
        let (ends, reloads) = (signals.ends.clone(), signals.reloads.clone());
        let count = move || {
            for signal in incoming.forever() {
                let count = if signal == SIGHUP { &reloads } else { &ends };
                count.fetch_add(1, Ordering::SeqCst);
            }
        };
        let thread = std::thread::Builder::new().name(String::from("signals")).spawn(count);
        thread.map(|_| signals).map_err(refused)
    }

    /// How often the process was asked to end.
    pub fn ends(&self) -> usize {
        self.ends.load(Ordering::SeqCst)
    }

    /// How often the process was asked to reload.
    pub fn reloads(&self) -> usize {
        self.reloads.load(Ordering::SeqCst)
    }

    /// Waits until the process is asked to end.
    pub fn wait(&self) {
        self.wait_while(|| true);
    }

    /// As `wait`, for as long as `go_on` says yes; it is asked all the time.
    pub fn wait_while(&self, mut go_on: impl FnMut() -> bool) {
        while self.ends() == 0 && go_on() {
            std::thread::sleep(LOOK);
        }
    }
}
