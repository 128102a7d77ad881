//! A ledger as a picture for a terminal: a bar for each attempt, the commit point beneath.
//!
//! ```text
//! openai/gpt-4o  |.x                                             |  503      41 ms
//! backup/gpt-4o  | .....----#####################################|   ok    1000 ms
//!                           ^ committed at 241 ms by first_content
//! ```
//!
//! Plain ASCII without colours or control characters, whatever a client named its model; no line is
//! longer than the width asked for, except the summary's words. The ledger does not say when a
//! connection was made, so connecting and waiting for the head are one phase here.

use std::fmt::Write as _;

use crate::base::tick::Tick;
use crate::exchange::ledger::{AttemptRecord, Ending, Ledger};

/// Columns below which a bar shows nothing; a narrower wish gets this many.
const WIDTH_MIN: usize = 72;
/// Columns above which a line is hard to follow; a wider wish gets this many.
const WIDTH_MAX: usize = 400;
/// Columns for names.
const NAME_MAX: usize = 24;
/// Columns for what stands behind the bar: outcome and milliseconds.
const BEHIND: usize = 34;

/// Connecting, sending, and waiting for the response head.
const WAITING: u8 = b'.';
/// The head is there, content is not.
const ANSWERING: u8 = b'-';
/// Content is held: not committed yet.
const HELD: u8 = b'=';
/// Committed: bytes go to the client as they come.
const STREAMING: u8 = b'#';
/// The attempt failed here.
const FAILED: u8 = b'x';

/// Draws the timeline of `ledger`, `width` columns wide (held to 72..=400); ends with a line end.
pub fn render(ledger: &Ledger, width: usize) -> String {
    let names: Vec<String> = ledger.attempts.iter().map(|row| plain(&row.name, NAME_MAX)).collect();
    let indent = names.iter().map(String::len).max().unwrap_or(0);
    let width = width.clamp(WIDTH_MIN, WIDTH_MAX);
    let outcomes: Vec<String> =
        ledger.attempts.iter().map(|row| outcome(row, ledger.ended)).collect();
    let behind = outcomes.iter().map(String::len).max().unwrap_or(0).min(BEHIND);
    let scale = Scale {
        began: ledger.began,
        span: ledger.ended.since(ledger.began).max(1),
        columns: width.saturating_sub(indent + behind + 6).max(8),
    };
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(out, "{}", title(ledger));
    for ((record, name), outcome) in ledger.attempts.iter().zip(&names).zip(&outcomes) {
        let bar = bar(record, ledger, &scale);
        let _ = writeln!(out, "{name:indent$}  |{bar}|  {outcome:>behind$}");
    }
    commit_line(ledger, &scale, [indent + 3, behind + 3], &mut out);
    if !ledger.attempts.is_empty() {
        out += LEGEND;
    }
    summary(ledger, &mut out);
    out
}

const LEGEND: &str =
    "\n. connecting, waiting   - head, no content yet   = held   # passed on   x failed\n";

/// Where a moment is on a bar.
struct Scale {
    began: Tick,
    /// Microseconds of the whole exchange, at least 1.
    span: u64,
    columns: usize,
}

impl Scale {
    /// The column of `at`, below `columns`.
    fn column(&self, at: Tick) -> usize {
        let since = u128::from(at.since(self.began).min(self.span));
        let column = since * self.columns as u128 / u128::from(self.span);
        (column as usize).min(self.columns - 1)
    }
}

fn title(ledger: &Ledger) -> String {
    let stream = if ledger.stream { "stream" } else { "whole answer" };
    let model = if ledger.model.is_empty() { String::from("-") } else { plain(&ledger.model, 40) };
    format!("{}  {}  model {model}  {stream}\n", plain(&ledger.id, 40), ledger.surface.name())
}

/// One attempt's bar, `scale.columns` characters.
fn bar(record: &AttemptRecord, ledger: &Ledger, scale: &Scale) -> String {
    let ended = record.ended.unwrap_or(ledger.ended);
    let (from, to) = (scale.column(record.began), scale.column(ended));
    let committed = ledger.committed.map_or(Tick::NEVER, |(at, _)| at);
    let after = |at: Option<Tick>, column: usize| at.is_some_and(|at| scale.column(at) <= column);
    let mut bar = vec![b' '; scale.columns];
    for (column, cell) in bar.iter_mut().enumerate().take(to + 1).skip(from) {
        *cell = if after(record.first, column) {
            // Content of an attempt that lost was never passed on.
            let passed_on = ledger.answered().is_some_and(|row| std::ptr::eq(row, record));
            if passed_on && scale.column(committed) <= column { STREAMING } else { HELD }
        } else if after(record.head, column) {
            ANSWERING
        } else {
            WAITING
        };
    }
    if record.failure.is_some() {
        bar[to] = FAILED;
    }
    bar.into_iter().map(char::from).collect()
}

/// `503    41 ms`, with what is special about the attempt.
fn outcome(record: &AttemptRecord, now: Tick) -> String {
    let ms = record.ended.unwrap_or(now).ms_since(record.began);
    let marks = [(record.hedge, " hedge"), (record.replayed, " replayed")];
    let marks: String = marks.iter().filter(|(on, _)| *on).map(|(_, mark)| *mark).collect();
    let outcome = record.outcome().to_string();
    format!("{}{marks}  {ms:>6} ms", plain(&outcome, BEHIND - 11 - marks.len()))
}

/// The mark beneath the bars, with its words on the side that has room.
fn commit_line(ledger: &Ledger, scale: &Scale, margins: [usize; 2], out: &mut String) {
    let [left, right] = margins;
    let Some((at, by)) = ledger.committed else { return };
    let ms = at.ms_since(ledger.began);
    let column = scale.column(at);
    let words = format!("committed at {ms} ms by {}", by.name());
    let before = left + column;
    let _ = if column + 2 + words.len() <= scale.columns + right {
        writeln!(out, "{:before$}^ {words}", "")
    } else {
        let room = before.saturating_sub(words.len() + 1);
        writeln!(out, "{:room$}{words} ^", "")
    };
}

/// What came of it, in a line or two.
fn summary(ledger: &Ledger, out: &mut String) {
    let ending = match ledger.ending {
        Ending::Good | Ending::Local => String::from("a whole answer"),
        Ending::Error => String::from("an error"),
        Ending::Cut(fault) => format!("cut: {}", fault.text()),
        Ending::Gone => String::from("the client went away"),
        Ending::Slow => String::from("the client read too slowly"),
    };
    let total = ledger.ended.ms_since(ledger.began);
    let _ = write!(out, "status {}, {ending}, after {total} ms", ledger.status);
    if let Some(winner) = ledger.answered() {
        let _ = write!(out, ", from {}", plain(&winner.name, NAME_MAX));
    }
    let _ = write!(
        out,
        "\n{} events, {} bytes in, {} bytes out",
        ledger.events, ledger.bytes_in, ledger.bytes_out
    );
    if ledger.wasted > 0 {
        let _ = write!(out, ", {} bytes wasted", ledger.wasted);
    }
    if let Some(usage) = ledger.usage {
        let _ = write!(out, ", tokens {} + {}", usage.prompt, usage.completion);
    }
    if ledger.budget_spent {
        out.push_str("\nan extra attempt was refused by the retry budget");
    }
    if ledger.opened {
        out.push_str("\nthe status went out before the commit (open_after)");
    }
    out.push('\n');
}

/// Printable ASCII only, at most `max` columns; what is cut off is a `~`.
fn plain(text: &str, max: usize) -> String {
    let mut plain: String = text
        .chars()
        .take(max + 1)
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .collect();
    if plain.len() > max {
        plain.truncate(max.saturating_sub(1));
        plain.push('~');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::ledger_log::tests::two_attempts;
    use crate::base::fail::{Failure, Fault};
    use crate::exchange::ledger::CommittedBy;
    use std::sync::Arc;

    const GOLDEN: &str = "\
r1  chat  model gpt-4o  stream

openai/gpt-4o  |.x                                             |  503      41 ms
backup/gpt-4o  | .....----#####################################|   ok    1000 ms
                          ^ committed at 241 ms by first_content

. connecting, waiting   - head, no content yet   = held   # passed on   x failed
status 200, a whole answer, after 1041 ms, from backup/gpt-4o
42 events, 120 bytes in, 4100 bytes out, 17 bytes wasted, tokens 10 + 20
";

    #[test]
    fn two_attempts_look_like_this() {
        let drawn = render(&two_attempts(Failure::status(Fault::Unavailable, 503)), 80);
        assert_eq!(drawn, GOLDEN);
        assert!(GOLDEN.lines().all(|line| line.len() <= 80));
    }

    #[test]
    fn no_bar_leaves_the_width_and_no_name_the_terminal() {
        let mut ledger = two_attempts(Failure::of(Fault::ContentTimeout));
        ledger.attempts[0].hedge = true;
        ledger.attempts[0].replayed = true;
        ledger.attempts[1].name = Arc::from("x/\u{1b}[2J\r\n\u{e9}".repeat(40));
        ledger.model = Arc::from("\u{1b}]0;title\u{7}".repeat(40));
        for width in [0, 1, 72, 80, 133, 400, usize::MAX] {
            for committed in [0, 241, 1041, 5_000_000] {
                ledger.committed = Some((Tick(1_000_000 + committed * 1000), CommittedBy::Head));
                let drawn = render(&ledger, width);
                let most = width.clamp(WIDTH_MIN, WIDTH_MAX);
                assert!(drawn.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)), "{drawn}");
                for line in drawn.lines().filter(|line| line.contains('|')) {
                    assert!(line.len() <= most, "{} > {most}: {line}", line.len());
                }
                assert!(drawn.contains("hedge replayed"), "{drawn}");
            }
        }
    }

    #[test]
    fn an_exchange_without_attempts_has_only_words() {
        let mut ledger = two_attempts(Failure::of(Fault::Dns));
        ledger.attempts.clear();
        ledger.winner = None;
        ledger.committed = None;
        ledger.ended = ledger.began;
        ledger.ending = Ending::Error;
        ledger.status = 404;
        let drawn = render(&ledger, 80);
        assert!(!drawn.contains('|'), "{drawn}");
        assert!(drawn.contains("status 404, an error, after 0 ms"), "{drawn}");
    }

    #[test]
    fn what_lost_was_never_passed_on() {
        let mut ledger = two_attempts(Failure::of(Fault::LostRace));
        ledger.attempts[0].first = Some(Tick(1_010_000));
        ledger.attempts[0].ended = Some(Tick(1_500_000));
        let drawn = render(&ledger, 80);
        let lost = drawn.lines().find(|line| line.contains("lost_race")).unwrap();
        assert!(lost.contains("=x") && !lost.contains('#'), "{drawn}");
    }
}
