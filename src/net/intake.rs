//! From a request's bytes to an exchange: who calls, which surface, what is asked, who will be tried.
//! Whatever is wrong here is answered without touching an upstream.

use std::borrow::Cow;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;
use subtle::ConstantTimeEq as _;

use crate::base::buf::Buf;
use crate::base::ids::{Id as _, KeyId};
use crate::base::tick::Ms;
use crate::config::catalog::Use;
use crate::config::{Commit, Demand, Fates};
use crate::exchange::answer::{Answer, Client};
use crate::exchange::ledger::{Ending, Ledger};
use crate::exchange::{Cx, Exchange, Job};
use crate::llm::dialects::{ErrorText, messages_prompt};
use crate::llm::parameters::Parameters;
use crate::llm::prompt::Unreadable;
use crate::llm::providers::Kind;
use crate::llm::request::{Ask, AskFault, Envelope, Sort, Surface};
use crate::net::core::{Core, Snapshot};
use crate::route::{self, By, Judge, MaxPrice, Refusal, Wish};
use crate::rt::Rt;
use crate::wire::http1::head::{self, Method, RequestHead};

/// What the head of a request says.
pub(super) struct Intake {
    /// It goes no further.
    pub refused: Option<Answer>,
    /// Its ledger, begun.
    pub ledger: Ledger,
    /// Who calls, where keys are asked for.
    pub key: Option<KeyId>,
    envelope: Envelope,
    commit: Option<Commit>,
    deadline: Option<Ms>,
    dry_run: bool,
    /// The body may name a model.
    json: bool,
    /// The body has a content coding.
    is_coded: bool,
    /// `/v1/models/NAME`.
    single: Option<String>,
}

/// A ledger for a request whose head could not be read.
pub(super) fn blank_ledger<R: Rt>(core: &Core<R>) -> Ledger {
    let now = core.rt.now();
    Ledger {
        id: new_id(core),
        caller: None,
        surface: Surface::None,
        stream: false,
        model: Arc::default(),
        wall: core.wall(now),
        began: now,
        committed: None,
        ended: now,
        status: 0,
        ending: Ending::Error,
        attempts: SmallVec::new(),
        winner: None,
        events: 0,
        bytes_in: 0,
        bytes_out: 0,
        usage: None,
        cost_nanos: None,
        wasted: 0,
        budget_spent: false,
        opened: false,
    }
}

/// Reads a head: surface, caller, overrides.
pub(super) fn open<R: Rt>(
    core: &Core<R>,
    snapshot: &Snapshot,
    head: &RequestHead,
    bytes: &[u8],
) -> Box<Intake> {
    let mut ledger = blank_ledger(core);
    if let Some(id) = head.field(bytes, b"x-request-id").and_then(sane_id) {
        ledger.id = Arc::from(id);
    }
    let mut intake = Box::new(Intake {
        refused: None,
        ledger,
        key: None,
        envelope: Envelope::default(),
        commit: None,
        deadline: None,
        dry_run: head.field(bytes, b"x-firstbyte-dry-run").is_some_and(|value| value == b"1"),
        json: true,
        is_coded: false,
        single: None,
    });
    intake.refused = intake.fill(snapshot, head, bytes).err();
    intake
}

impl Intake {
    fn fill(
        &mut self,
        snapshot: &Snapshot,
        head: &RequestHead,
        bytes: &[u8],
    ) -> Result<(), Answer> {
        let path = normal(std::str::from_utf8(head.path(bytes)).unwrap_or_default());
        let surface = self.surface(head.method, &path);
        // Known before anything is refused: a refusal is told in the client's dialect.
        self.ledger.surface = surface.as_ref().copied().unwrap_or_default();
        self.key = caller(snapshot, head, bytes)?;
        self.ledger.caller = self.key.map(|id| snapshot.keys[id.index()].name.clone());
        let surface = surface?;
        // What is read has to be plain; what is passed on unread keeps its coding, and the field that says so.
        let coding = head.field(bytes, b"content-encoding").unwrap_or_default();
        let is_plain = coding.is_empty() || coding.eq_ignore_ascii_case(b"identity");
        if !is_plain && surface != Surface::Other {
            let message = "the request body has a Content-Encoding: send it without one";
            return Err(error(415, message, None, "unsupported_encoding"));
        }
        self.is_coded = !is_plain;
        self.overrides(head, bytes)
    }

    /// Takes over what goes upstream of a head. Apart from `open`, since what is shed needs none of it.
    pub(super) fn take_fields(&mut self, head: &RequestHead, bytes: &[u8]) {
        let path = normal(std::str::from_utf8(head.path(bytes)).unwrap_or_default());
        let query = &head.target.of(bytes)[head.path(bytes).len()..];
        let query = std::str::from_utf8(query).unwrap_or_default();
        self.envelope.method = head.method.name();
        // What was routed is what goes upstream.
        self.envelope.path = upstream_path(self.ledger.surface, &path, query);
        for name in FORWARDED {
            if let Some(value) = passing(head, bytes, name) {
                self.envelope.fields.push((name, value.to_vec()));
            }
        }
        for name in FORWARDED_TO_ANTHROPIC {
            if let Some(value) = passing(head, bytes, name) {
                self.envelope.anthropic.push((name, value.to_vec()));
            }
        }
        if self.ledger.surface == Surface::Other {
            let kind = head.field(bytes, b"content-type").unwrap_or_default();
            let is_json = kind.to_ascii_lowercase().starts_with(b"application/json");
            self.json = is_json && !self.is_coded;
            for name in FORWARDED_UNREAD {
                if let Some(value) = passing(head, bytes, name) {
                    self.envelope.fields.push((name, value.to_vec()));
                }
            }
        }
    }

    /// The surface of a path, if the method fits.
    fn surface(&mut self, method: Method, path: &str) -> Result<Surface, Answer> {
        let (surface, allowed): (Surface, &'static str) = match path {
            "/v1/chat/completions" => (Surface::Chat, "POST"),
            "/v1/responses" => (Surface::Responses, "POST"),
            "/v1/messages" => (Surface::Messages, "POST"),
            "/v1/messages/count_tokens" => (Surface::CountTokens, "POST"),
            "/v1/completions" => (Surface::Completions, "POST"),
            "/v1/embeddings" => (Surface::Embeddings, "POST"),
            "/v1/route/explain" => (Surface::Explain, "POST"),
            "/v1/models" => (Surface::Models, "GET, HEAD"),
            "*" => return Err(Answer::allowing("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")),
            _ => {
                if let Some(name) = path.strip_prefix("/v1/models/") {
                    self.single = Some(percent_decoded(name));
                    (Surface::Models, "GET, HEAD")
                } else if path.strip_prefix("/v1/").is_some_and(is_plain_path) {
                    (Surface::Other, "GET, POST, PUT, PATCH, DELETE")
                } else {
                    return Err(not_found(path));
                }
            }
        };
        if allowed.split(", ").any(|name| name == method.name()) {
            return Ok(surface);
        }
        if method == Method::Other {
            let message = format!("the method is not known here; use {allowed}");
            return Err(error(501, &message, None, "method_not_implemented"));
        }
        let message = format!("{} is not allowed on {path}; use {allowed}", method.name());
        let mut answer = error(405, &message, None, "method_not_allowed");
        answer.allow = Some(allowed);
        Err(answer)
    }

    fn overrides(&mut self, head: &RequestHead, bytes: &[u8]) -> Result<(), Answer> {
        let text = |name: &str| {
            head.field(bytes, name.as_bytes())
                .map(|value| String::from_utf8_lossy(value).into_owned())
        };
        if let Some(value) = text("x-firstbyte-commit") {
            let commit = Commit::parse(&value).map_err(|why| {
                let message = format!("x-firstbyte-commit: {why}");
                error(400, &message, Some("x-firstbyte-commit"), "invalid_value")
            })?;
            self.commit = Some(commit);
        }
        if let Some(value) = text("x-firstbyte-deadline-ms") {
            let ms = value.trim().parse::<u32>().ok().filter(|ms| *ms > 0).ok_or_else(|| {
                let message =
                    "x-firstbyte-deadline-ms must be a whole number of milliseconds above 0";
                error(400, message, Some("x-firstbyte-deadline-ms"), "invalid_value")
            })?;
            self.deadline = Some(Ms(ms));
        }
        Ok(())
    }
}

/// Makes the exchange of a request whose body is whole.
pub(super) fn begin<R: Rt>(
    core: &Core<R>,
    mut intake: Box<Intake>,
    body: Buf,
    client: Client,
    cx: &Cx<'_>,
) -> Box<Exchange> {
    intake.ledger.bytes_in = body.len() as u64;
    match plan(core, &mut intake, &body, cx) {
        Ok((ask, plan)) => {
            Box::new(Exchange::new(Job { ask, body, plan }, client, intake.ledger, cx))
        }
        Err(answer) => Box::new(Exchange::answered(answer, client, intake.ledger, cx)),
    }
}

fn plan<R: Rt>(
    core: &Core<R>,
    intake: &mut Intake,
    body: &Buf,
    cx: &Cx<'_>,
) -> Result<(Ask, route::Plan), Answer> {
    let surface = intake.ledger.surface;
    if surface == Surface::Models {
        let anthropic = !intake.envelope.anthropic.is_empty();
        return Err(models(cx.table, intake.single.as_deref(), anthropic));
    }
    let reads =
        surface == Surface::Explain || surface.is_understood() || (intake.json && !body.is_empty());
    let mut ask = if reads {
        // An explanation is asked for with the request itself, which is a chat unless it says more.
        Ask::read(surface, body.as_slice()).map_err(|fault| ask_fault(&fault))?
    } else {
        Ask { surface, ..Ask::default() }
    };
    intake.ledger.model = ask.model.clone();
    intake.ledger.stream = ask.stream;
    ask.deadline = intake.deadline;
    ask.envelope = std::mem::take(&mut intake.envelope);
    let explains = surface == Surface::Explain || intake.dry_run;
    let parameters = if explains || Parameters::matter(&ask, body.as_slice()) {
        Parameters::of(&ask, body.as_slice(), explains || ask.prefs.require)
    } else {
        None
    };
    let judge = |kind: Kind, model: &str| match &parameters {
        Some(parameters) => parameters.fates(kind, model),
        None => Fates::new(),
    };
    let mut wish = wish_of(&ask, intake.commit);
    if parameters.is_some() {
        wish.judge = Judge(Some(&judge));
    }
    let turn = core.next_turn();
    if explains {
        let explained = route::explain(cx.table, &wish, turn, cx.now);
        // What would be refused without a look at any target is refused here too; a dry run is answered
        // as dispatch would answer it.
        if let Err(refusal) = &explained.plan
            && (surface != Surface::Explain || *refusal == Refusal::UnknownModel)
        {
            return Err(unroutable(refusal, &wish));
        }
        return Err(Answer::json(explained.to_json().to_string().into_bytes()));
    }
    let mut plan = route::pick(cx.table, &wish, turn, cx.now)
        .map_err(|refusal| unroutable(&refusal, &wish))?;
    if surface == Surface::CountTokens {
        count_tokens(&mut plan, cx.table, body.as_slice(), ask.demand.prompt)?;
    }
    Ok((ask, plan))
}

/// Tokens are counted by the provider that would be tried first, if it knows how; else the estimate of
/// `prompt` tokens is the answer.
fn count_tokens(
    plan: &mut route::Plan,
    table: &route::Table,
    body: &[u8],
    prompt: u32,
) -> Result<(), Answer> {
    let counts = |attempt: &route::Attempt| {
        table.providers[table.targets[attempt.target].provider].kind == Kind::Anthropic
    };
    if plan.attempts.first().is_some_and(counts) {
        plan.attempts.retain(|attempt| counts(attempt));
        return Ok(());
    }
    let mut body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    // There is no answer to limit.
    body["max_tokens"] = 1.into();
    messages_prompt::read(&body).map_err(|Unreadable { at, expected }| {
        let message = format!("{at}: expected {expected}");
        error(400, &message, Some(&at), "invalid_value")
    })?;
    let counted = serde_json::json!({ "input_tokens": prompt });
    Err(Answer::json(counted.to_string().into_bytes()))
}

/// The routing part of a request. Also what `firstbyte explain` asks with.
pub fn wish_of(ask: &Ask, commit: Option<Commit>) -> Wish<'static> {
    Wish {
        model: ask.model.clone(),
        models: ask.models.clone(),
        order: ask.prefs.order.clone(),
        only: ask.prefs.only.clone(),
        ignore: ask.prefs.ignore.clone(),
        allow_fallbacks: !ask.prefs.no_fallbacks,
        stream: ask.stream,
        commit,
        deadline: ask.deadline,
        passthrough: ask.model.is_empty() && ask.models.is_empty(),
        judge: Judge::default(),
        // A prompt that is counted need not fit.
        demand: match ask.surface {
            Surface::CountTokens => Demand::default(),
            _ => ask.demand,
        },
        sort: ask.prefs.sort.map(|sort| match sort {
            Sort::Price => By::Price,
            Sort::Throughput => By::Throughput,
            Sort::Latency => By::Latency,
        }),
        max_price: ask.prefs.max_price.map(|(prompt, output)| MaxPrice { prompt, output }),
        require: ask.prefs.require,
        purpose: match ask.surface {
            Surface::Embeddings => Some(Use::Embedding),
            surface if surface.is_conversation() || ask.demand.chats => Some(Use::Chat),
            _ => None,
        },
    }
}

fn unroutable(refusal: &Refusal, wish: &Wish) -> Answer {
    let named = if wish.model.is_empty() {
        wish.models.first().map(String::as_str)
    } else {
        Some(&*wish.model)
    };
    match refusal {
        Refusal::UnknownModel if wish.passthrough => {
            let message = "the request names no model, and the config names no [passthrough] \
                           provider for such paths";
            error(404, message, None, "not_found")
        }
        Refusal::UnknownModel => {
            let name = named.unwrap_or_default();
            let message =
                format!("the model \"{name}\" is not known here; GET /v1/models lists them");
            error(404, &message, Some("model"), "model_not_found")
        }
        Refusal::NothingLeft => {
            let message = "provider.only, ignore, max_price and allow_fallbacks leave no provider \
                           for this model";
            error(404, message, Some("provider"), "no_provider_left")
        }
        Refusal::Unfit(lacks) => {
            let is_window = lacks.iter().all(|(_, lack)| lack.window.is_some());
            let code = if is_window { "context_length_exceeded" } else { "no_compatible_target" };
            // The one that is at fault everywhere, as far as it can be told.
            let refused = lacks.iter().all(|(_, lack)| !lack.refuses.is_empty());
            let param = lacks.first().and_then(|(_, lack)| lack.refuses.first());
            let param = param.filter(|_| refused).map(|name| &**name);
            error(400, &refusal.text(), param, code)
        }
        Refusal::Cooling { retry_after, status } => {
            let text = ErrorText {
                message: "every provider of this model asked to be left alone for a while",
                kind: if *status == 429 { "rate_limit_error" } else { "server_error" },
                param: None,
                code: Some(if *status == 429 { "rate_limit_exceeded" } else { "overloaded" }),
            };
            Answer::error(*status, &text).retry_after(*retry_after)
        }
    }
}

/// The list of models, or one of them, as OpenAI or Anthropic has it.
fn models(table: &route::Table, single: Option<&str>, anthropic: bool) -> Answer {
    let entry = |name: &str| {
        if anthropic {
            serde_json::json!({ "type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z" })
        } else {
            serde_json::json!({ "id": name, "object": "model", "created": 0, "owned_by": "firstbyte" })
        }
    };
    match single {
        None => {
            let data: Vec<_> = table.model_names().map(|name| entry(name)).collect();
            let list = if anthropic {
                let id = |entry: Option<&serde_json::Value>| entry.map(|entry| entry["id"].clone());
                let (first, last) = (id(data.first()), id(data.last()));
                serde_json::json!({ "data": data, "has_more": false, "first_id": first, "last_id": last })
            } else {
                serde_json::json!({ "object": "list", "data": data })
            };
            Answer::json(list.to_string().into_bytes())
        }
        Some(name) if table.model_names().any(|known| **known == *name) => {
            Answer::json(entry(name).to_string().into_bytes())
        }
        Some(name) => {
            let message = format!("the model \"{name}\" is not known here");
            error(404, &message, Some("model"), "model_not_found")
        }
    }
}

/// Who calls, by `Authorization: Bearer` or the header names that other SDKs use. Keys are compared as
/// SHA-256, all of them, in constant time.
fn caller(snapshot: &Snapshot, head: &RequestHead, bytes: &[u8]) -> Result<Option<KeyId>, Answer> {
    if snapshot.keys.is_empty() {
        return Ok(None);
    }
    let bearer = head.field(bytes, b"authorization").and_then(|value| {
        let scheme = value.get(..7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| value[7..].trim_ascii())
    });
    // Some clients send two, and only one of them is for the gateway.
    let named = ["x-api-key", "api-key"].map(|name| head.field(bytes, name.as_bytes()));
    let mut sent = bearer.into_iter().chain(named.into_iter().flatten()).peekable();
    if sent.peek().is_none() {
        return Err(unauthorized("no key was sent: use the header \"Authorization: Bearer KEY\""));
    }
    let mut found = None;
    for key in sent {
        let digest = Sha256::digest(key);
        for (index, known) in snapshot.keys.iter().enumerate() {
            if bool::from(known.sha256.ct_eq(digest.as_slice())) {
                found = found.or(Some(KeyId::from_index(index)));
            }
        }
    }
    found.map(Some).ok_or_else(|| unauthorized("the key is not one of this gateway's"))
}

fn unauthorized(message: &str) -> Answer {
    let text = ErrorText {
        message,
        kind: "authentication_error",
        param: None,
        code: Some("invalid_api_key"),
    };
    Answer::error(401, &text)
}

fn ask_fault(fault: &AskFault) -> Answer {
    error(400, &fault.message, fault.param.as_deref(), fault.code)
}

fn not_found(path: &str) -> Answer {
    let shown: String = path.chars().take(64).collect();
    let message = format!("there is nothing at {shown}; the API is under /v1");
    error(404, &message, None, "not_found")
}

fn error(status: u16, message: &str, param: Option<&str>, code: &str) -> Answer {
    let text = ErrorText { message, kind: "invalid_request_error", param, code: Some(code) };
    Answer::error(status, &text)
}

/// What follows the provider's base path. Of the surfaces that most requests come to it costs no memory.
fn upstream_path(surface: Surface, path: &str, query: &str) -> Cow<'static, str> {
    let known = match surface {
        Surface::Chat => "/chat/completions",
        Surface::Responses => "/responses",
        Surface::Messages => "/messages",
        _ => "",
    };
    let path = path.strip_prefix("/v1").unwrap_or_default();
    if query.is_empty() && path == known {
        return Cow::Borrowed(known);
    }
    let target = [path, query].concat();
    // Clients write `?include[]=x`, which RFC 3986 (3.3, 3.4) has encoded, and providers may insist on that.
    let has_brackets = target.contains(['[', ']']);
    Cow::Owned(if has_brackets { target.replace('[', "%5B").replace(']', "%5D") } else { target })
}

/// A path that can't leave the provider's base path.
fn is_plain_path(rest: &str) -> bool {
    !rest.is_empty()
        && !rest.contains('\\')
        && rest.split('/').all(|part| {
            // Twice, for whoever is behind the provider and decodes again.
            let once = percent_decoded(part);
            [percent_decoded(&once), once].iter().all(|plain| {
                // Some servers take what follows a semicolon for a parameter, and look at what is before it.
                let bare = plain.split(';').next().unwrap_or_default();
                !plain.is_empty()
                    && !matches!(bare, "." | "..")
                    && !plain.contains(['/', '\\'])
                    && !plain.contains(|c: char| c.is_ascii_control())
            })
        })
}

/// A path in its normal form: what stands percent-encoded without need is decoded (RFC 3986 section
/// 6.2.2.2), so that each surface has one path. An encoded slash stays one, and is no slash.
fn normal(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut parts = path.split('%');
    let mut normal = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // Two digits follow: the head was read by that rule.
        let (digits, rest) = part.split_at_checked(2).unwrap_or(("", part));
        match u8::from_str_radix(digits, 16) {
            Ok(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                normal.push(char::from(byte));
            }
            _ => normal.extend(["%", &digits.to_ascii_uppercase()]),
        }
        normal.push_str(rest);
    }
    Cow::Owned(normal)
}

/// The value of a field that may go upstream: not one that is for this connection only.
fn passing<'b>(head: &RequestHead, bytes: &'b [u8], name: &str) -> Option<&'b [u8]> {
    let value = head.field(bytes, name.as_bytes())?;
    (!head::is_nominated(&head.fields, bytes, name.as_bytes())).then_some(value)
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (plain, _) => {
                out.push(plain);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A request id that may be repeated in headers and logs: 1 to 128 plain characters.
fn sane_id(value: &[u8]) -> Option<&str> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    let sane = (1..=128).contains(&value.len()) && value.iter().all(plain);
    sane.then(|| std::str::from_utf8(value).ok()).flatten()
}

fn new_id<R: Rt>(core: &Core<R>) -> Arc<str> {
    let mut rng = core.rng.borrow_mut();
    let random = u128::from(rng.next()) << 64 | u128::from(rng.next());
    let mut id = *b"fb-00000000000000000000000000000000";
    for (place, digit) in id[3..].iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(random >> (4 * place)) as usize & 15];
    }
    Arc::from(std::str::from_utf8(&id).unwrap_or_default())
}

/// Client fields that go upstream with every request: they say nothing of the client's credential.
const FORWARDED: [&str; 5] =
    ["openai-beta", "idempotency-key", "x-client-request-id", "traceparent", "tracestate"];
/// Fields that go upstream with a request in Anthropic's own words.
const FORWARDED_TO_ANTHROPIC: [&str; 2] = ["anthropic-version", "anthropic-beta"];
/// Fields that go upstream where the body is passed on unread.
const FORWARDED_UNREAD: [&str; 3] = ["content-type", "content-encoding", "accept"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_under_the_base() {
        for (path, plain) in [
            ("files", true),
            ("files/file-1/content", true),
            ("", false),
            ("..", false),
            ("files/..;/x", false),
            ("files/..;a=b/x", false),
            ("files/.%2e%3Bx/y", false),
            ("files/a;b=c/x", true),
            ("files/../../admin", false),
            ("files/%2e%2e/x", false),
            ("files/%2F..", false),
            ("files//x", false),
            ("a\\b", false),
            ("files/%252e%252E/x", false),
            ("files/%252fx", false),
            ("files/a%00", false),
            ("files/a%0d%0aHost:x", false),
            ("files/a%20b%25", true),
        ] {
            assert_eq!(is_plain_path(path), plain, "{path}");
        }
    }

    #[test]
    fn a_path_has_one_form() {
        for (path, form) in [
            ("/v1/models", "/v1/models"),
            ("/v1/%63hat/completion%73", "/v1/chat/completions"),
            ("/%76%31/%7E%2d%2e%5f", "/v1/~-._"),
            ("/v1/chat%2fcompletions", "/v1/chat%2Fcompletions"),
            ("/v1/a%20b%25%c3%bc", "/v1/a%20b%25%C3%BC"),
            ("/v1/%2563hat", "/v1/%2563hat"),
        ] {
            assert_eq!(normal(path), form);
        }
    }

    #[test]
    fn only_plain_request_ids_are_taken_over() {
        assert_eq!(sane_id(b"abc-123_x.y:z"), Some("abc-123_x.y:z"));
        for bad in [&b""[..], b"a b", b"a\"b", b"\xff", &[b'a'; 129]] {
            assert_eq!(sane_id(bad), None);
        }
    }
}
