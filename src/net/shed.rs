//! The answer to a request that is shed: ready-made, and written at once. Where there is more to do than
//! can be done, all that a refusal costs is taken from those who are served. It runs no exchange, builds no
//! JSON, and has nothing of the request but its ledger.

use std::rc::Rc;
use std::sync::OnceLock;

use crate::base::buf::Buf;
use crate::base::limits;
use crate::base::tick::Ms;
use crate::exchange::answer::{Answer, Client};
use crate::exchange::ledger::{CommittedBy, Ending, Ledger};
use crate::llm::dialects::{Dialect, ErrorText};
use crate::net::core::Core;
use crate::net::down::Down;
use crate::net::load::Shed;
use crate::rt::Rt;
use crate::wire::http1::emit;

/// Answers a request that is shed; `keep` says that its connection can go on, and so does what is given.
pub(super) async fn tell<R: Rt>(
    core: &Rc<Core<R>>,
    down: &mut Down<R>,
    why: Shed,
    keep: bool,
    client: Client,
    mut ledger: Ledger,
) -> bool {
    core.shared.watch.shed(core.id, why);
    let ready = Ready::of(why);
    let (now, keep) = (core.rt.now(), keep && client.keep_alive);
    let mut out = Buf::with_capacity(ANSWER_BYTES);
    ready.answer.write_head(&ledger, keep, &client, now, &mut out);
    let (before, after) = &ready.bodies[ledger.surface.dialect() as usize];
    let id: &[u8] = if after.is_empty() { b"" } else { ledger.id.as_bytes() };
    let length = before.len() + id.len() + after.len();
    emit::content_length(&mut out, length as u64);
    out.extend(b"\r\n");
    if !client.to_head {
        [before, id, after].into_iter().for_each(|part| out.extend(part));
        ledger.bytes_out = length as u64;
    }
    let said = down.say(core, out, now + client.patience.timeout).await;
    ledger.committed = Some((now, CommittedBy::Error));
    (ledger.status, ledger.ending) = (ready.answer.status, Ending::Error);
    ledger.ended = core.rt.now();
    core.shared.watch.ended(core.id, ledger);
    said && keep
}

/// An answer, and its body in each dialect: what stands before and after the request's id, where it has one.
struct Ready {
    answer: Answer,
    bodies: [(Vec<u8>, Vec<u8>); Dialect::ALL.len()],
}

impl Ready {
    /// The one for this reason.
    fn of(why: Shed) -> &'static Ready {
        static READY: OnceLock<[Ready; 2]> = OnceLock::new();
        let [all, key] = READY.get_or_init(|| [Ready::new(BUSY), Ready::new(KEY)]);
        match why {
            Shed::Key => key,
            Shed::Connections | Shed::Client | Shed::InFlight | Shed::Memory | Shed::Lag => all,
        }
    }

    fn new((status, message, kind, code): (u16, &str, &str, &str)) -> Ready {
        let text = ErrorText { message, kind, param: None, code: Some(code) };
        let answer = Answer::error(status, &text).retry_after(Ms(limits::SHED_RETRY_MS));
        let bodies = Dialect::ALL.map(|dialect| {
            let body = String::from_utf8(answer.body(dialect, MARK)).unwrap_or_default();
            let (before, after) = body.split_once(MARK).unwrap_or((&body, ""));
            (before.into(), after.into())
        });
        Ready { answer, bodies }
    }
}

const BUSY: (u16, &str, &str, &str) = (
    503,
    "the gateway has more to do than it can; try again in a moment",
    "server_error",
    "overloaded",
);
const KEY: (u16, &str, &str, &str) =
    (429, "too many requests of this key are under way", "rate_limit_error", "rate_limit_exceeded");
/// Stands for a request's id, which is of plain characters: none of them is escaped in JSON.
const MARK: &str = "ID-OF-THE-REQUEST";
/// Room for a whole answer.
const ANSWER_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_made_answers_are_those_that_would_be_made() {
        for (why, status) in [(Shed::Lag, 503), (Shed::InFlight, 503), (Shed::Key, 429)] {
            let ready = Ready::of(why);
            assert_eq!(ready.answer.status, status);
            for dialect in Dialect::ALL {
                let (before, after) = &ready.bodies[dialect as usize];
                let id = if after.is_empty() { "" } else { "fb-1:2/3=" };
                let made = [before, id.as_bytes(), after].concat();
                assert_eq!(made, ready.answer.body(dialect, "fb-1:2/3="), "{dialect:?}");
                serde_json::from_slice::<serde_json::Value>(&made).unwrap();
            }
        }
    }
}
