//! The pages of the admin listener: from a method and a target to a status and a text.
//!
//! | path | says |
//! | --- | --- |
//! | `/metrics` | all series, text exposition 0.0.4 |
//! | `/livez` | 200 while the process answers |
//! | `/readyz` | 200 while every core serves and nothing drains; else 503 and why |
//! | `/status` | JSON: version, cores, drivers, addresses, standing of each target |
//! | `POST /reload` | 200 and the new generation, or 400 and everything that is wrong with the config file |
//! | `/plan?model=NAME` | JSON: who would be asked, in what order, and why; `&stream=false` for a whole answer |

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::View;
use crate::app::metrics::Extra;
use crate::net::beacon::Level;
use crate::route::health::Standing;
use crate::route::{self, Table, Wish};
use crate::rt::uring::{self, Engine};
use crate::wire::http1::head::{Method, Refusal};

const PLAIN: &str = "text/plain; charset=utf-8";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

/// An answer.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) status: u16,
    /// The content type.
    pub(super) kind: &'static str,
    pub(super) body: String,
    /// The methods that would be, if this one is not.
    pub(super) allow: Option<&'static str>,
}

impl Page {
    fn text(status: u16, text: &str) -> Page {
        Page { status, kind: PLAIN, body: format!("{text}\n"), allow: None }
    }

    fn json(value: &Value) -> Page {
        Page { status: 200, kind: JSON, body: format!("{value:#}\n"), allow: None }
    }

    fn not_allowed(allow: &'static str) -> Page {
        Page { allow: Some(allow), ..Page::text(405, &format!("only {allow} here")) }
    }

    /// For a head that is not HTTP, or not one that is served.
    pub(super) fn refusal(refusal: Refusal) -> Page {
        Page::text(refusal.status(), refusal.text())
    }

    /// For a head that did not come in time.
    pub(super) fn late() -> Page {
        Page::text(408, "the request did not come in time")
    }
}

/// The page of a request.
pub(super) fn page(view: &View, method: Method, target: &[u8]) -> Page {
    let at = target.iter().position(|byte| *byte == b'?');
    let (path, query) = match at {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &b""[..]),
    };
    let show: fn(&View, &[u8]) -> Page = match path {
        b"/metrics" => |view, _| metrics(view),
        b"/livez" => |_, _| Page::text(200, "ok"),
        b"/readyz" => |view, _| ready(view),
        b"/status" => |view, _| Page::json(&status(view)),
        b"/plan" => plan,
        b"/reload" if method == Method::Post => return reload(view),
        b"/reload" => return Page::not_allowed("POST"),
        _ => {
            let pages = "/metrics, /livez, /readyz, /status, /plan?model=NAME or POST /reload";
            return Page::text(404, &format!("try {pages}"));
        }
    };
    match method {
        Method::Get | Method::Head => show(view, query),
        Method::Post
        | Method::Put
        | Method::Patch
        | Method::Delete
        | Method::Options
        | Method::Other => Page::not_allowed("GET, HEAD"),
    }
}

fn metrics(view: &View) -> Page {
    let extra = Extra { health: &view.health, cores: view.engines.len() };
    let body = view.metrics.render(&view.shared, &extra);
    Page { status: 200, kind: EXPOSITION, body, allow: None }
}

fn reload(view: &View) -> Page {
    match (view.reload)() {
        Ok(done) => Page::json(&json!({
            "generation": done.generation,
            "needs_restart": done.needs_restart,
        })),
        Err(problems) => {
            let problems = problems.iter().map(|problem| {
                json!({ "line": problem.line, "key": problem.path, "what": problem.what, "hint": problem.hint })
            });
            let generation = view.shared.snapshot().generation;
            let value = json!({
                "generation": generation,
                "problems": problems.collect::<Vec<_>>(),
            });
            Page { status: 400, ..Page::json(&value) }
        }
    }
}

/// Why the gateway should get no new connections, if so.
fn unready(view: &View) -> Option<String> {
    match view.shared.level() {
        Level::Running if view.health.leaving.load(Ordering::SeqCst) => {
            return Some(String::from("draining"));
        }
        Level::Running => {}
        Level::Draining => return Some(String::from("draining")),
        Level::Stopping => return Some(String::from("stopping")),
    }
    let (serving, cores) = (view.health.serving.load(Ordering::SeqCst), view.engines.len());
    (serving != cores).then(|| format!("{serving} of {cores} cores serve"))
}

fn ready(view: &View) -> Page {
    match unready(view) {
        None => Page::text(200, "ready"),
        Some(why) => Page::text(503, &why),
    }
}

fn status(view: &View) -> Value {
    let snapshot = view.shared.snapshot();
    let drivers: Vec<String> = view.engines.iter().map(driver).collect();
    let unready = unready(view);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": view.started.elapsed().as_secs(),
        "config": view.origin,
        "generation": snapshot.generation,
        "addresses": view.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "ready": unready.is_none(),
        "unready_because": unready,
        "draining": view.shared.level() != Level::Running,
        "cores": view.engines.len(),
        "cores_serving": view.health.serving.load(Ordering::SeqCst),
        "drivers": drivers,
        "panics": view.health.panics.load(Ordering::Relaxed),
        "restarts": view.health.restarts.load(Ordering::Relaxed),
        "ledger_lines_dropped": view.metrics.lines_dropped(),
        "targets": targets(&snapshot.table),
    })
}

fn driver(engine: &Engine) -> String {
    match engine {
        Engine::IoUring { flags } => format!("io_uring ({flags})"),
        Engine::Epoll => String::from("epoll"),
    }
}

/// Each target's standing, and when it ends.
fn targets(table: &Table) -> Vec<Value> {
    let now = uring::now();
    let shown = table.targets.iter().map(|(_, target)| {
        let standing = target.breaker.standing(now);
        let (ends, status) = match standing {
            Standing::Ready | Standing::HalfOpen => (None, None),
            Standing::Open { until } => (Some(until), None),
            Standing::Cooling { until, status } => (Some(until), Some(status)),
        };
        json!({
            "target": &*target.name,
            "standing": standing.name(),
            "ends_in_ms": ends.map(|until| (until - now).0),
            "asked_with_status": status,
            "opened": target.breaker.counts().opened,
        })
    });
    shown.collect()
}

fn plan(view: &View, query: &[u8]) -> Page {
    let mut wish = Wish { stream: true, ..Wish::default() };
    let mut models = 0;
    for pair in query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let Some(value) = decode(pair.get(at + 1..).unwrap_or_default()) else {
            return Page::text(400, "a value of the query is not percent-encoded UTF-8");
        };
        match (&pair[..at], value.as_str()) {
            (b"model", _) => {
                wish.model = value.into();
                models += 1;
            }
            (b"stream", "true") => wish.stream = true,
            (b"stream", "false") => wish.stream = false,
            (b"stream", _) => return Page::text(400, "stream is true or false"),
            _ => return Page::text(400, "the query may hold model and stream"),
        }
    }
    if models != 1 || wish.model.is_empty() {
        return Page::text(400, "name one model: /plan?model=NAME");
    }
    let snapshot = view.shared.snapshot();
    // The turn is a core's own count; 0 shows the first key of each provider.
    Page::json(&route::explain(&snapshot.table, &wish, 0, uring::now()).to_json())
}

/// Percent-decoding (RFC 3986, 2.1); `+` stands for itself. `None`: a bad triplet, or no UTF-8.
fn decode(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn percent_triplets_are_decoded_and_nothing_else() {
        let cases: [(&str, Option<&str>); 10] = [
            ("", Some("")),
            ("gpt-4o", Some("gpt-4o")),
            ("openai%2Fgpt-4o", Some("openai/gpt-4o")),
            ("a+b%2b%20%25", Some("a+b+ %")),
            ("%c3%A9", Some("\u{e9}")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%+4", None),
            ("%ff", None),
        ];
        for (text, decoded) in cases {
            assert_eq!(decode(text.as_bytes()).as_deref(), decoded, "{text}");
        }
    }
}
