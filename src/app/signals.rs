//! The signals that end a process, counted: the first one drains, a second one hurries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Incoming;

use crate::app::say;

/// How often waiting loops look.
const LOOK: Duration = Duration::from_millis(20);

/// How often this process was asked to end.
#[derive(Clone, Default)]
pub struct Signals {
    ends: Arc<AtomicUsize>,
}

impl Signals {
    /// Begins to count SIGTERM and SIGINT, on a thread of its own.
    ///
    /// # Errors
    /// The kernel's refusal, in words.
    pub fn watch() -> Result<Signals, String> {
        let refused = |error: std::io::Error| format!("signals can't be handled: {error}");
        let mut incoming = Incoming::new([SIGTERM, SIGINT, SIGHUP]).map_err(refused)?;
        let signals = Signals::default();
        let ends = signals.ends.clone();
        let count = move || {
            for signal in incoming.forever() {
                if signal == SIGHUP {
                    say::log("SIGHUP is ignored: this version does not reload; restart it instead");
                } else {
                    ends.fetch_add(1, Ordering::SeqCst);
                }
            }
        };
        let thread = std::thread::Builder::new().name(String::from("signals")).spawn(count);
        thread.map(|_| signals).map_err(refused)
    }

    /// How often the process was asked to end.
    pub fn ends(&self) -> usize {
        self.ends.load(Ordering::SeqCst)
    }

    /// Waits until the process is asked to end.
    pub fn wait(&self) {
        while self.ends() == 0 {
            std::thread::sleep(LOOK);
        }
    }
}
