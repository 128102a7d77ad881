//! The log with a sink in memory: shape, names, drops, warnings.

use std::sync::mpsc::channel;

use serde_json::{Value, json};

use super::*;
use crate::base::fail::Failure;
use crate::base::tick::UnixMs;
use crate::exchange::ledger::{CommittedBy, Ending};
use crate::llm::event::Usage;
use crate::llm::request::Surface;

/// A ledger whose first attempt failed with `failure` after 41 ms and whose second answered.
pub(crate) fn two_attempts(failure: Failure) -> Ledger {
    let ms = |ms: u64| Tick(1_000_000 + ms * 1000);
    let attempt = |target, name: &str| AttemptRecord {
        target: TargetId(target),
        name: Arc::from(name),
        began: ms(0),
        head: None,
        first: None,
        ended: None,
        status: 0,
        failure: None,
        reused: false,
        replayed: false,
        hedge: false,
        bytes: 0,
    };
    let first = AttemptRecord {
        head: (failure.status != 0).then(|| ms(40)),
        ended: Some(ms(41)),
        status: failure.status,
        failure: Some(failure),
        reused: true,
        bytes: 17,
        ..attempt(0, "openai/gpt-4o")
    };
    let second = AttemptRecord {
        began: ms(41),
        head: Some(ms(141)),
        first: Some(ms(241)),
        ended: Some(ms(1041)),
        status: 200,
        bytes: 4000,
        ..attempt(1, "backup/gpt-4o")
    };
    Ledger {
        id: Arc::from("r1"),
        caller: Some(Arc::from("two")),
        surface: Surface::Chat,
        stream: true,
        model: Arc::from("gpt-4o"),
        wall: UnixMs(1_769_853_600_041),
        began: ms(0),
        committed: Some((ms(241), CommittedBy::FirstContent)),
        ended: ms(1041),
        status: 200,
        ending: Ending::Good,
        attempts: [first, second].into_iter().collect(),
        winner: Some(1),
        events: 42,
        bytes_in: 120,
        bytes_out: 4100,
        usage: Some(Usage { prompt: 10, completion: 20, cached: 4, cache_write: 0, reasoning: 5 }),
        cost_nanos: Some(1_250),
        wasted: 17,
        budget_spent: false,
        opened: false,
    }
}

fn unavailable() -> Ledger {
    two_attempts(Failure::status(Fault::Unavailable, 503))
}

/// A sink and what it was given.
/// The line of a ledger, read again.
fn to_json(ledger: &Ledger) -> Value {
    let mut lines = Vec::new();
    line::write(ledger, &mut lines);
    assert_eq!(lines.pop(), Some(b'\n'));
    serde_json::from_slice(&lines).unwrap()
}

fn memory() -> (Sink, Arc<Mutex<String>>) {
    let text = Arc::new(Mutex::new(String::new()));
    let into = text.clone();
    let sink = Box::new(move |lines: &[u8]| {
        into.lock().unwrap().push_str(std::str::from_utf8(lines).unwrap());
        Ok(())
    });
    (sink, text)
}

#[test]
fn a_ledger_reads_like_this() {
    let shown = to_json(&unavailable());
    let expected = json!({
        "ts": "2026-01-31T10:00:00.041Z",
        "id": "r1", "key": "two", "surface": "chat", "stream": true, "model": "gpt-4o",
        "status": 200, "ending": "good", "fault": null,
        "committed_by": "first_content", "commit_ms": 241,
        "attempts": [
            { "target": "openai/gpt-4o", "outcome": "503", "fault": "unavailable", "status": 503,
              "ms": 41, "head_ms": 40, "first_ms": null, "reused": true, "replayed": false,
              "hedge": false, "bytes": 17 },
            { "target": "backup/gpt-4o", "outcome": "ok", "fault": null, "status": 200,
              "ms": 1000, "head_ms": 100, "first_ms": 200, "reused": false, "replayed": false,
              "hedge": false, "bytes": 4000 },
        ],
        "provider": "backup/gpt-4o", "events": 42, "bytes_in": 120, "bytes_out": 4100,
        "usage": { "prompt": 10, "completion": 20, "cached": 4, "cache_write": 0, "reasoning": 5 },
        "cost_usd": 0.00000125,
        "wasted_bytes": 17, "budget_spent": false, "opened": false, "total_ms": 1041,
    });
    assert_eq!(shown, expected);
}

#[test]
fn what_did_not_happen_is_null() {
    let mut ledger = unavailable();
    ledger.attempts.clear();
    ledger.winner = None;
    ledger.caller = None;
    ledger.committed = None;
    ledger.usage = None;
    ledger.ending = Ending::Cut(Fault::Reset);
    let shown = to_json(&ledger);
    for field in ["key", "committed_by", "commit_ms", "provider", "usage"] {
        assert!(shown[field].is_null(), "{field}");
    }
    assert_eq!((&shown["ending"], &shown["fault"]), (&json!("cut"), &json!("reset")));
    assert_eq!(shown["attempts"], json!([]));
}

#[test]
fn each_ledger_is_a_line_and_the_drop_writes_the_last() {
    let (sink, text) = memory();
    let log = Log::with(Some(sink), Box::new(|_| ()), 64).unwrap();
    for count in 0..20 {
        let mut ledger = unavailable();
        ledger.id = Arc::from(format!("r{count}\n\"\u{1b}"));
        log.put(ledger);
    }
    drop(log);
    let text = text.lock().unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 20);
    assert!(text.ends_with('\n'));
    for (count, line) in lines.iter().enumerate() {
        assert_eq!(line["id"], format!("r{count}\n\"\u{1b}"));
        assert_eq!(line["key"], "two");
    }
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    let (entered, inside) = channel();
    let (leave, left) = channel::<()>();
    let stalled: Sink = Box::new(move |_| {
        entered.send(()).unwrap();
        let _ = left.recv();
        Ok(())
    });
    let log = Log::with(Some(stalled), Box::new(|_| ()), 2).unwrap();
    log.put(unavailable());
    inside.recv().unwrap();
    // The writer is inside the sink: two fit, three do not.
    for _ in 0..5 {
        log.put(unavailable());
    }
    assert_eq!(log.dropped(), 3);
    drop(leave);
    assert!(log.flush());
    assert_eq!(log.dropped(), 3);
}

#[test]
fn a_sink_that_refuses_is_counted_and_told_once() {
    let (told, tellings) = channel();
    let full: Sink = Box::new(|_| Err(io::Error::from(io::ErrorKind::StorageFull)));
    let warn = Box::new(move |line: &str| told.send(line.to_owned()).unwrap());
    let log = Log::with(Some(full), warn, 8).unwrap();
    for _ in 0..3 {
        log.put(unavailable());
        assert!(log.flush());
    }
    assert_eq!(log.dropped(), 3);
    drop(log);
    let told: Vec<String> = tellings.iter().collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("can't be written"), "{told:?}");
}

#[test]
fn our_own_faults_are_warned_about_once_a_minute_for_each_target() {
    let (told, tellings) = channel();
    let warn = Box::new(move |line: &str| told.send(line.to_owned()).unwrap());
    let mut warnings = Warnings { warn, last: BTreeMap::new() };
    let mut look = |fault, status, target, at_ms: u64| {
        let mut ledger = two_attempts(Failure::status(fault, status));
        ledger.attempts[0].target = TargetId(target);
        ledger.attempts[0].name = Arc::from("openai/x\n\u{1b}[2J");
        ledger.ended = Tick(at_ms * 1000);
        warnings.look(&ledger);
        tellings.try_iter().collect::<Vec<_>>()
    };
    let first = look(Fault::Credential, 401, 0, 5_000);
    assert_eq!(first.len(), 1);
    assert!(first[0].starts_with("warning: openai/x\\n\\u{1b}[2J: status 401: "), "{first:?}");
    assert!(first[0].contains("check the provider's key"), "{first:?}");
    assert_eq!(look(Fault::NotFound, 404, 0, 64_999).len(), 0);
    let other = look(Fault::NotFound, 404, 1, 64_999);
    assert!(other[0].contains("check the target's model name"), "{other:?}");
    assert_eq!(look(Fault::Credential, 401, 0, 65_000).len(), 1);
    assert_eq!(look(Fault::Unavailable, 503, 7, 65_000).len(), 0);
}

#[test]
fn without_a_sink_the_last_ledger_is_kept_all_the_same() {
    let log = Log::start(&LedgerTo::Off).unwrap();
    assert!(log.last(Duration::ZERO).is_none());
    log.put(unavailable());
    assert_eq!(&*log.last(Duration::from_secs(30)).unwrap().id, "r1");
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_file_is_appended_to() {
    let path = std::env::temp_dir().join(format!("firstbyte-ledger-{}", std::process::id()));
    let to = LedgerTo::File(path.to_str().unwrap().to_owned());
    for _ in 0..2 {
        let log = Log::start(&to).unwrap();
        log.put(unavailable());
    }
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(text.lines().count(), 2);
    let Err(why) = Log::start(&LedgerTo::File(String::from("/nowhere/at/all"))) else {
        panic!("it was opened")
    };
    assert!(why.contains("/nowhere/at/all"), "{why}");
}

#[test]
fn dates_are_those_of_the_calendar() {
    // Another implementation as the oracle: a day apart and then some, over five centuries.
    for day in 0..190_000u64 {
        let at = UnixMs((day * 86_400 + day % 86_400) * 1000 + 7);
        let theirs = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_millis(at.0));
        let ours = line::Rfc3339(at).to_string();
        let month = "JanFebMarAprMayJunJulAugSepOctNovDec".find(&theirs[8..11]).unwrap() / 3 + 1;
        let again =
            format!("{}-{month:02}-{}T{}.007Z", &theirs[12..16], &theirs[5..7], &theirs[17..25]);
        assert_eq!(ours, again);
    }
}

#[test]
fn names_are_cut_between_characters() {
    assert_eq!(line::clip("short"), "short");
    let long = format!("{}é{}", "a".repeat(256 - 1), "b".repeat(50));
    assert_eq!(line::clip(&long), "a".repeat(256 - 1));
    let mut ledger = unavailable();
    ledger.model = Arc::from("m".repeat(1 << 20));
    assert!(to_json(&ledger).to_string().len() < 2_000);
}
