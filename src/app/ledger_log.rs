//! The ledger as a log: one JSON line for each exchange, made and written on a thread of its own.
//!
//! A core hands its ledger over and goes on: the queue is bounded, and what does not fit is dropped and
//! counted, never waited for. The writer takes what waits in one go and writes it in one piece, so a
//! busy gateway costs few system calls. It warns, at most once a minute for each target, about attempts
//! that failed because of the gateway's own credential or mapping.
//!
//! It never holds a credential, a prompt or an answer: the ledger has none. Names that a client chose
//! are cut and escaped.
//!
//! ```text
//! {"id":"r1","ts":"2026-01-31T10:00:00.041Z","status":200,"ending":"good","attempts":[{..},{..}],..}
//! ```

mod line;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::app::say;
use crate::base::fail::Fault;
use crate::base::ids::TargetId;
use crate::base::tick::{Ms, Tick};
use crate::config::LedgerTo;
use crate::exchange::ledger::{AttemptRecord, Ledger};

/// Ledgers that may wait for the writer: a tenth of a second of several busy cores.
const QUEUE: usize = 4096;
/// What a full queue may take; the texts of the ledgers come on top.
const QUEUE_BYTES_MAX: usize = 4 << 20;
const _: () = assert!(QUEUE * std::mem::size_of::<Ledger>() <= QUEUE_BYTES_MAX);
/// Lines that are written in one piece.
const BATCH: usize = 512;
/// How long the writer lets lines gather after each piece, so that cores seldom have to wake it.
const GATHER: Duration = Duration::from_millis(2);
/// How long `flush` waits for a stalled sink.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// How often the same target is warned about.
const WARN_EVERY: Ms = Ms(60_000);

/// Takes the lines of a batch.
type Sink = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send>;
/// Takes a warning.
type Warn = Box<dyn FnMut(&str) + Send>;

/// The log's near end: what the cores hand ledgers to.
pub struct Log {
    /// `None` only while it is dropped.
    queue: Option<SyncSender<Ledger>>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

/// What both ends share.
#[derive(Default)]
struct State {
    sent: AtomicU64,
    dropped: AtomicU64,
    progress: Mutex<Progress>,
    moved: Condvar,
}

#[derive(Default)]
struct Progress {
    done: u64,
    last: Option<Ledger>,
}

impl State {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until `ready` or until `patience` is over.
    fn wait(
        &self,
        patience: Duration,
        ready: impl Fn(&Progress) -> bool,
    ) -> MutexGuard<'_, Progress> {
        let waited = self.moved.wait_timeout_while(self.progress(), patience, |now| !ready(now));
        waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0
    }
}

impl Log {
    /// Opens the log and starts its writer.
    ///
    /// # Errors
    /// The file can't be opened for appending, or the thread can't be started.
    pub fn start(to: &LedgerTo) -> Result<Log, String> {
        let sink: Option<Sink> = match to {
            LedgerTo::Off => None,
            LedgerTo::Stdout => Some(Box::new(|lines| {
                say::bytes(lines);
                Ok(())
            })),
            LedgerTo::File(path) => {
                let mut file = append_to(path)
                    .map_err(|error| format!("log.ledger: {path} can't be opened: {error}"))?;
                Some(Box::new(move |lines| file.write_all(lines)))
            }
        };
        Log::with(sink, Box::new(say::log), QUEUE)
    }

    /// A log with other ends than the process's own. No sink: lines are not even made.
    fn with(sink: Option<Sink>, warn: Warn, queue: usize) -> Result<Log, String> {
        let (sender, receiver) = sync_channel(queue);
        let state = Arc::new(State::default());
        let writer = Writer {
            sink,
            warnings: Warnings { warn, last: BTreeMap::new() },
            state: state.clone(),
            failed: None,
        };
        let thread = std::thread::Builder::new()
            .name(String::from("ledger-log"))
            .spawn(move || writer.run(&receiver))
            .map_err(|error| format!("the ledger's writer can't be started: {error}"))?;
        Ok(Log { queue: Some(sender), state, thread: Some(thread) })
    }

    /// Hands a ledger to the writer. Never blocks: a full queue drops it and counts that.
    pub fn put(&self, ledger: Ledger) {
        let taken = self.queue.as_ref().is_some_and(|queue| queue.try_send(ledger).is_ok());
        let count = if taken { &self.state.sent } else { &self.state.dropped };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Ledgers whose line was not written: the queue was full, or the file refused it.
    pub fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all that was put is written, at most two seconds; says whether it is.
    pub fn flush(&self) -> bool {
        let sent = self.state.sent.load(Ordering::Relaxed);
        self.state.wait(FLUSH_MAX, |progress| progress.done >= sent).done >= sent
    }

    /// The last ledger; waits at most `patience` for a first one.
    pub fn last(&self, patience: Duration) -> Option<Ledger> {
        self.state.wait(patience, |progress| progress.last.is_some()).last.clone()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // The writer writes what is left in the queue, then ends.
        self.queue = None;
        let flushed = self.flush();
        if let Some(thread) = self.thread.take().filter(|_| flushed) {
            // A writer that panicked has said so already; a stalled one is left behind.
            let _ = thread.join();
        }
    }
}

fn append_to(path: &str) -> io::Result<File> {
    // Not for everybody: models and key names are in it.
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// The log's far end.
struct Writer {
    sink: Option<Sink>,
    warnings: Warnings,
    state: Arc<State>,
    /// When the sink last refused.
    failed: Option<Instant>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Ledger>) {
        let mut lines = Vec::new();
        while let Ok(first) = queue.recv() {
            lines.clear();
            let mut count = 1;
            self.note(&first, &mut lines);
            let mut last = first;
            while count < BATCH {
                let Ok(next) = queue.try_recv() else { break };
                self.note(&next, &mut lines);
                last = next;
                count += 1;
            }
            self.write(&lines, count as u64);
            let mut progress = self.state.progress();
            progress.done += count as u64;
            progress.last = Some(last);
            drop(progress);
            self.state.moved.notify_all();
            std::thread::sleep(GATHER);
        }
    }

    fn note(&mut self, ledger: &Ledger, lines: &mut Vec<u8>) {
        self.warnings.look(ledger);
        if self.sink.is_some() {
            line::write(ledger, lines);
        }
    }

    fn write(&mut self, lines: &[u8], count: u64) {
        let Some(sink) = &mut self.sink else { return };
        let Err(error) = sink(lines) else { return };
        self.state.dropped.fetch_add(count, Ordering::Relaxed);
        let every = Duration::from_micros(WARN_EVERY.micros());
        if self.failed.is_none_or(|at| at.elapsed() >= every) {
            self.failed = Some(Instant::now());
            (self.warnings.warn)(&format!("the ledger can't be written: {error}"));
        }
    }
}

/// Says when our own side is at fault: the client is served by another target, so nobody else would.
struct Warnings {
    warn: Warn,
    /// When each target was last warned about; bounded by the number of targets.
    last: BTreeMap<TargetId, Tick>,
}

impl Warnings {
    fn look(&mut self, ledger: &Ledger) {
        for attempt in &ledger.attempts {
            let Some(check) = what_to_check(attempt) else { continue };
            let due =
                self.last.get(&attempt.target).is_none_or(|at| *at + WARN_EVERY <= ledger.ended);
            if due {
                self.last.insert(attempt.target, ledger.ended);
                let name = line::clip(&attempt.name).escape_debug();
                (self.warn)(&format!("warning: {name}: status {}: {check}", attempt.status));
            }
        }
    }
}

/// For an attempt that failed by our own fault: what a person should look at.
fn what_to_check(attempt: &AttemptRecord) -> Option<&'static str> {
    match attempt.failure?.fault {
        Fault::Credential => Some(
            "the provider did not accept the gateway's credential; check the provider's key, its \
             rights and its quota",
        ),
        Fault::NotFound => Some(
            "the provider does not know the model or path; check the target's model name and the \
             provider's base_url",
        ),
        _ => None,
    }
}

/// Whether an attempt failed because of the gateway's own credential or mapping.
pub fn is_our_fault(attempt: &AttemptRecord) -> bool {
    what_to_check(attempt).is_some()
}

#[cfg(test)]
pub(crate) mod tests;
