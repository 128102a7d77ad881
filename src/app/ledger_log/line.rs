//! One line of the log, written straight into the batch: no tree and no strings on the way, since a busy
//! gateway writes tens of thousands a second.

use std::fmt::{self, Display};

use serde::{Serialize, Serializer};

use crate::base::tick::{Tick, UnixMs};
use crate::exchange::ledger::{AttemptRecord, Ending, Ledger};

/// Bytes of a name that are written; a client may choose names as long as its body.
const NAME_BYTES_MAX: usize = 256;

/// Appends the ledger as the log has it, with its line end.
pub(super) fn write(ledger: &Ledger, lines: &mut Vec<u8>) {
    let before = lines.len();
    match serde_json::to_writer(&mut *lines, &Line::of(ledger)) {
        Ok(()) => lines.push(b'\n'),
        // Nothing in a line can be refused, and half a line must not be written.
        Err(_) => lines.truncate(before),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    ts: Shown<Rfc3339>,
    id: &'a str,
    key: Option<&'a str>,
    surface: &'a str,
    stream: bool,
    model: &'a str,
    status: u16,
    ending: &'a str,
    fault: Option<&'a str>,
    committed_by: Option<&'a str>,
    commit_ms: Option<u32>,
    attempts: Attempts<'a>,
    provider: Option<&'a str>,
    events: u32,
    bytes_in: u64,
    bytes_out: u64,
    usage: Option<Counts>,
    cost_usd: Option<f64>,
    wasted_bytes: u64,
    budget_spent: bool,
    opened: bool,
    total_ms: u32,
}

#[derive(Serialize)]
struct Counts {
    prompt: u64,
    completion: u64,
    cached: u64,
    cache_write: u64,
    reasoning: u64,
}

struct Attempts<'a>(&'a Ledger);

/// One attempt; its times count from its own start.
#[derive(Serialize)]
struct AttemptLine<'a> {
    target: &'a str,
    outcome: Shown<crate::exchange::ledger::Outcome>,
    fault: Option<&'a str>,
    status: u16,
    ms: u32,
    head_ms: Option<u32>,
    first_ms: Option<u32>,
    reused: bool,
    replayed: bool,
    hedge: bool,
    bytes: u64,
}

impl<'a> Line<'a> {
    fn of(ledger: &'a Ledger) -> Line<'a> {
        Line {
            ts: Shown(Rfc3339(ledger.wall)),
            id: &ledger.id,
            key: ledger.caller.as_deref(),
            surface: ledger.surface.name(),
            stream: ledger.stream,
            model: clip(&ledger.model),
            status: ledger.status,
            ending: ledger.ending.name(),
            fault: match ledger.ending {
                Ending::Cut(fault) => Some(fault.name()),
                Ending::Good | Ending::Local | Ending::Error | Ending::Gone | Ending::Slow => None,
            },
            committed_by: ledger.committed.map(|(_, by)| by.name()),
            commit_ms: ledger.committed.map(|(at, _)| at.ms_since(ledger.began)),
            attempts: Attempts(ledger),
            provider: ledger.answered().map(|attempt| clip(&attempt.name)),
            events: ledger.events,
            bytes_in: ledger.bytes_in,
            bytes_out: ledger.bytes_out,
            usage: ledger.usage.map(|usage| Counts {
                prompt: usage.prompt,
                completion: usage.completion,
                cached: usage.cached,
                cache_write: usage.cache_write,
                reasoning: usage.reasoning,
            }),
            cost_usd: ledger.cost_nanos.map(|nanos| nanos as f64 / 1e9),
            wasted_bytes: ledger.wasted,
            budget_spent: ledger.budget_spent,
            opened: ledger.opened,
            total_ms: ledger.ended.ms_since(ledger.began),
        }
    }
}

impl<'a> AttemptLine<'a> {
    fn of(attempt: &'a AttemptRecord, now: Tick) -> AttemptLine<'a> {
        let ms = |at: Tick| at.ms_since(attempt.began);
        AttemptLine {
            target: clip(&attempt.name),
            outcome: Shown(attempt.outcome()),
            fault: attempt.failure.map(|failure| failure.fault.name()),
            status: attempt.status,
            ms: ms(attempt.ended.unwrap_or(now)),
            head_ms: attempt.head.map(ms),
            first_ms: attempt.first.map(ms),
            reused: attempt.reused,
            replayed: attempt.replayed,
            hedge: attempt.hedge,
            bytes: attempt.bytes,
        }
    }
}

impl Serialize for Attempts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let lines = self.0.attempts.iter().map(|attempt| AttemptLine::of(attempt, self.0.ended));
        serializer.collect_seq(lines)
    }
}

/// Written as its text.
struct Shown<T>(T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The beginning of a name, at most `NAME_BYTES_MAX` bytes of it, whole characters.
pub(super) fn clip(name: &str) -> &str {
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let end = (0..=NAME_BYTES_MAX).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    &name[..end]
}

/// A moment as RFC 3339 has it, in UTC with milliseconds: `2026-01-31T10:00:00.041Z`.
pub(super) struct Rfc3339(pub(super) UnixMs);

impl Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.0.0 / 1000, self.0.0 % 1000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// Year, month and day of a count of days since 1970-01-01. Years begin in March here, so that the leap
/// day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    const DAYS_FROM_0000_03_01_TO_1970: u64 = 719_468;
    let days = days + DAYS_FROM_0000_03_01_TO_1970;
    let (era, of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}
