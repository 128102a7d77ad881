//! The script: what a sandbox provider is told to do, in the name of the model that is asked for.
//!
//! A script is a list of terms between commas. At most one of them is a *verb* (what the answer is);
//! the others bend it. It carries no state, so one config can hold a healthy target and a dead one on
//! the same provider, and a test can say in one line what should go wrong:
//!
//! ```text
//! ok,tokens=20,delay=10ms        503,retry_after=7s        hang,event=3,ping=5ms
//! |  |                           |                         |    |
//! |  how many content events     a status and its header   |    after three events
//! the verb                                                 comments while it hangs
//! ```

use crate::base::tick::Ms;

/// The grammar, for `firstbyte sandbox --help` and for the 400 that an unknown script gets.
pub const GRAMMAR: &str = "\
script = term [ ',' term ]*          the upstream model's name; at most one verb

Where a name may not hold , and = (as in a path), ~ and @ say the same: ok~tokens@3.
A first term that begins with claude, anthropic. or gemini says nothing: claude-x,503.

verbs (default: ok)
  ok                      a whole answer
  400 .. 599              that status with its documented error object
  context_length          400 context_length_exceeded
  content_policy          400 content_policy_violation
  insufficient_quota      429 insufficient_quota
  bad_key                 401, or whatever the vendor answers to a wrong key
  html_502                502 with an HTML body
  redirect                307 with a Location
  reset | hang            after the request; with at=head: after the head;
                          with event=N: after N events
  reset_reused            reset if the connection served a request before, else ok
  empty                   200 and a body without a byte
  garbage                 bytes that are not HTTP
  two_lengths             200 with two different Content-Length fields

terms
  tokens=N                content events (default 8)
  text=WORDS              the words to say; must be last, may hold commas
  json                    the words are an object, with a name and its ends
  big=SIZE                a text of that size (non-streamed: one string)
  tools[=N]               N tool calls, if the request has tools
  reasoning[=N]           N reasoning events first
  finish=REASON           stop | length | tool_calls | content_filter
  delay=TIME              before each event but the first
  slow_head=TIME          before the head
  early_100[=N]           N interim 100 heads first
  retry_after=TIME        the header, with an error status
  error_first             the first event is an error; then the end
  error_at=N              event N is an error; then the end
  malformed_at=N          event N is not JSON
  bad_crc_at=N            event N has a wrong checksum, where the format has one
  giant_at=N,size=SIZE    event N has that size (default 10MiB)
  bad_chunk_at=N          the chunk of event N has no size
  no_done                 no data: [DONE], or whatever else is last
  no_finish               no finish reason, no usage, no [DONE]
  cut_event=N             the end after N events
  cut_byte=N              the end after N bytes on the wire, head and framing counted
  how=fin|rst             how the two cuts end (default fin)
  drip=TIME               byte by byte, TIME between
  split=N[,gap=TIME]      two writes, cut at byte N on the wire (default gap 1ms)
  at_once                 head and events in one write
  ping=TIME               comments of that period while it hangs
  crlf                    event lines end in CR LF
  framing=chunked|length|close
  close_after[=fin|rst]   the connection ends, unannounced, after the answer

TIME = 10ms | 7s | 1m     SIZE = 100 | 64KiB | 10MiB     N counts from 1, bytes from 0

The path says which format is spoken; the script means the same in all of them. Events are those of
OpenAI's chat: the role, each thought, each word (or the name and three fragments of each tool call),
the finish reason, usage, the end. Another format may have several events for one of them, or none.

  /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models     OpenAI
  /v1/responses                                                         OpenAI's Responses
  /v1/messages, /v1/messages/count_tokens                               Anthropic
  /v1beta/models/SCRIPT:generateContent, :streamGenerateContent         Gemini
  /v1/projects/../publishers/{google,anthropic}/models/SCRIPT:METHOD    Vertex AI
  /openai/deployments/SCRIPT/chat/completions, /openai/v1/...           Azure
  /model/SCRIPT/converse, /converse-stream, /invoke, /invoke-with-response-stream    Bedrock
  /v2/chat  Cohere      /api/chat  Ollama      /mistral/v1/chat/completions  Mistral";

/// What `json` says.
const OBJECT: &str = r#"{"name":"lamp","ends":[1,2]}"#;

/// Most bytes of a `size` or `big`: what one machine's tests need.
const SIZE_MAX: usize = 256 * 1024 * 1024;

/// What a provider does with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the term of the grammar with the same name")]
pub struct Script {
    pub verb: Verb,
    pub tokens: u32,
    pub text: Option<String>,
    pub big: Option<usize>,
    pub tools: u32,
    pub reasoning: u32,
    pub finish: Option<String>,
    pub delay: Ms,
    pub slow_head: Ms,
    pub early_100: u32,
    pub retry_after: Option<Ms>,
    pub error_at: Option<u32>,
    pub malformed_at: Option<u32>,
    pub bad_crc_at: Option<u32>,
    pub giant_at: Option<u32>,
    pub size: usize,
    pub bad_chunk_at: Option<u32>,
    pub no_done: bool,
    pub no_finish: bool,
    pub cut_event: Option<u32>,
    pub cut_byte: Option<u64>,
    pub how: How,
    pub drip: Option<Ms>,
    pub split: Option<u64>,
    pub gap: Ms,
    pub at_once: bool,
    pub ping: Option<Ms>,
    pub crlf: bool,
    pub framing: Option<Framing>,
    pub close_after: Option<How>,
}

/// What the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A whole answer.
    Ok,
    /// An error status with the error object that goes with it.
    Status {
        /// 400 to 599.
        status: u16,
        /// Which documented object, where the status alone does not say.
        fault: Named,
    },
    /// 502 with an HTML body, as a load balancer sends it.
    Html,
    /// 307.
    Redirect,
    /// The connection is reset.
    Reset {
        /// After what.
        at: At,
    },
    /// Silence.
    Hang {
        /// After what.
        at: At,
    },
    /// A reset if the connection has served a request before.
    ResetReused,
    /// 200 and an empty body.
    Empty,
    /// Not HTTP.
    Garbage,
    /// Ambiguous framing.
    TwoLengths,
}

/// A documented error object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// The one that belongs to the status.
    ByStatus,
    /// `context_length_exceeded`
    ContextLength,
    /// `content_policy_violation`
    ContentPolicy,
    /// `insufficient_quota`
    InsufficientQuota,
    /// A wrong credential, with the status that the vendor has for it.
    BadKey,
}

/// When a reset or a silence sets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// When the request is complete.
    Request,
    /// After the response head.
    Head,
    /// After that many events.
    Event(u32),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// An ordinary close.
    Fin,
    /// A reset.
    Rst,
}

/// How the body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Transfer-Encoding: chunked`
    Chunked,
    /// `Content-Length`
    Length,
    /// The end of the connection.
    Close,
}

impl Default for Script {
    fn default() -> Script {
        Script {
            verb: Verb::Ok,
            tokens: 8,
            text: None,
            big: None,
            tools: 0,
            reasoning: 0,
            finish: None,
            delay: Ms(0),
            slow_head: Ms(0),
            early_100: 0,
            retry_after: None,
            error_at: None,
            malformed_at: None,
            bad_crc_at: None,
            giant_at: None,
            size: 10 * 1024 * 1024,
            bad_chunk_at: None,
            no_done: false,
            no_finish: false,
            cut_event: None,
            cut_byte: None,
            how: How::Fin,
            drip: None,
            split: None,
            gap: Ms(1),
            at_once: false,
            ping: None,
            crlf: false,
            framing: None,
            close_after: None,
        }
    }
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// A sentence that names the term at fault.
    pub fn parse(text: &str) -> Result<Script, String> {
        let mut script = Script::default();
        let (mut verb, mut at) = (None, None);
        let respelt;
        let text = if text.contains([',', '=']) {
            text
        } else {
            respelt = text.replace('~', ",").replace('@', "=");
            &respelt
        };
        let mut rest = Some(without_family(text.trim()));
        while let Some(left) = rest {
            let (term, after) = match left.split_once(',') {
                _ if left.starts_with("text=") => (left, None),
                Some((term, after)) => (term, Some(after)),
                None => (left, None),
            };
            rest = after;
            let (key, value) = match term.trim().split_once('=') {
                Some((key, value)) => (key.trim(), Some(value.trim())),
                None => (term.trim(), None),
            };
            let unknown = || format!("`{}` is no term of the sandbox's grammar", term.trim());
            if let (Some(found), None) = (verb_of(key), value) {
                if verb.replace(found).is_some() {
                    return Err(format!("`{key}` is a second verb"));
                }
            } else if let Some(found) = at_of(key, value)? {
                at = Some(found);
            } else if !script.set_flag(key, value)? && !script.set_value(key, value)? {
                return Err(unknown());
            }
        }
        script.verb = placed(verb.unwrap_or(Verb::Ok), at)?;
        Ok(script)
    }

    /// Terms whose value may be missing. False: not one of them.
    fn set_flag(&mut self, key: &str, value: Option<&str>) -> Result<bool, String> {
        match (key, value) {
            ("tools", _) => self.tools = count_or(key, value, 1)?,
            ("reasoning", _) => self.reasoning = count_or(key, value, 3)?,
            ("early_100", _) => self.early_100 = count_or(key, value, 1)?,
            ("close_after", None) => self.close_after = Some(How::Fin),
            ("close_after", Some(how)) => self.close_after = Some(how_of(how)?),
            ("error_first", None) => self.error_at = Some(1),
            ("json", None) => self.text = Some(OBJECT.to_owned()),
            ("no_done", None) => self.no_done = true,
            ("no_finish", None) => self.no_finish = true,
            ("at_once", None) => self.at_once = true,
            ("crlf", None) => self.crlf = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Terms that need a value. False: not one of them.
    fn set_value(&mut self, key: &str, value: Option<&str>) -> Result<bool, String> {
        let Some(value) = value else { return Ok(false) };
        match key {
            "tokens" => self.tokens = count(key, value)?,
            "text" => self.text = Some(value.to_owned()),
            "big" => self.big = Some(size(key, value)?),
            "finish" => self.finish = Some(finish(value)?),
            "delay" => self.delay = time(key, value)?,
            "slow_head" => self.slow_head = time(key, value)?,
            "retry_after" => self.retry_after = Some(time(key, value)?),
            "error_at" => self.error_at = Some(count(key, value)?),
            "malformed_at" => self.malformed_at = Some(count(key, value)?),
            "bad_crc_at" => self.bad_crc_at = Some(count(key, value)?),
            "giant_at" => self.giant_at = Some(count(key, value)?),
            "size" => self.size = size(key, value)?,
            "bad_chunk_at" => self.bad_chunk_at = Some(count(key, value)?),
            "cut_event" => self.cut_event = Some(count(key, value)?),
            "cut_byte" => self.cut_byte = Some(u64::from(count(key, value)?)),
            "how" => self.how = how_of(value)?,
            "drip" => self.drip = Some(time(key, value)?),
            "split" => self.split = Some(u64::from(count(key, value)?)),
            "gap" => self.gap = time(key, value)?,
            "ping" => self.ping = Some(time(key, value)?),
            "framing" => self.framing = Some(framing(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The script without a name before it that only tells a gateway whose model it is.
fn without_family(text: &str) -> &str {
    if !["claude", "anthropic.", "gemini"].iter().any(|family| text.starts_with(family)) {
        return text;
    }
    text.split_once(',').map_or("ok", |(_, rest)| rest)
}

fn verb_of(word: &str) -> Option<Verb> {
    let status = |status, fault| Some(Verb::Status { status, fault });
    match word {
        "ok" => Some(Verb::Ok),
        "context_length" => status(400, Named::ContextLength),
        "content_policy" => status(400, Named::ContentPolicy),
        "insufficient_quota" => status(429, Named::InsufficientQuota),
        "bad_key" => status(401, Named::BadKey),
        "html_502" => Some(Verb::Html),
        "redirect" => Some(Verb::Redirect),
        "reset" => Some(Verb::Reset { at: At::Request }),
        "hang" => Some(Verb::Hang { at: At::Request }),
        "reset_reused" => Some(Verb::ResetReused),
        "empty" => Some(Verb::Empty),
        "garbage" => Some(Verb::Garbage),
        "two_lengths" => Some(Verb::TwoLengths),
        _ if word.len() == 3 => match word.parse::<u16>() {
            Ok(code @ 400..=599) => status(code, Named::ByStatus),
            _ => None,
        },
        _ => None,
    }
}

fn at_of(key: &str, value: Option<&str>) -> Result<Option<At>, String> {
    match (key, value) {
        ("at", Some("head")) => Ok(Some(At::Head)),
        ("at", _) => Err("`at` is `head`".to_owned()),
        ("event", Some(value)) => Ok(Some(At::Event(count(key, value)?))),
        _ => Ok(None),
    }
}

/// Puts the place into the verbs that have one.
fn placed(verb: Verb, at: Option<At>) -> Result<Verb, String> {
    match (verb, at) {
        (verb, None) => Ok(verb),
        (Verb::Reset { .. }, Some(at)) => Ok(Verb::Reset { at }),
        (Verb::Hang { .. }, Some(at)) => Ok(Verb::Hang { at }),
        _ => Err("`at` and `event` belong to `reset` and `hang`".to_owned()),
    }
}

fn count_or(key: &str, value: Option<&str>, usual: u32) -> Result<u32, String> {
    value.map_or(Ok(usual), |value| count(key, value))
}

fn count(key: &str, value: &str) -> Result<u32, String> {
    value.parse().map_err(|_| format!("`{key}={value}`: a whole number is needed"))
}

fn how_of(value: &str) -> Result<How, String> {
    match value {
        "fin" => Ok(How::Fin),
        "rst" => Ok(How::Rst),
        _ => Err(format!("`{value}`: a connection ends by `fin` or `rst`")),
    }
}

fn framing(value: &str) -> Result<Framing, String> {
    match value {
        "chunked" => Ok(Framing::Chunked),
        "length" => Ok(Framing::Length),
        "close" => Ok(Framing::Close),
        _ => Err(format!("`framing={value}`: it is `chunked`, `length` or `close`")),
    }
}

fn finish(value: &str) -> Result<String, String> {
    match value {
        "stop" | "length" | "tool_calls" | "content_filter" => Ok(value.to_owned()),
        _ => Err(format!("`finish={value}`: no such finish reason")),
    }
}

fn time(key: &str, value: &str) -> Result<Ms, String> {
    let wrong = || format!("`{key}={value}`: a time is needed, like 10ms or 7s");
    let (number, unit) = if let Some(number) = value.strip_suffix("ms") {
        (number, 1)
    } else if let Some(number) = value.strip_suffix('s') {
        (number, 1_000)
    } else if let Some(number) = value.strip_suffix('m') {
        (number, 60_000)
    } else {
        return Err(wrong());
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).map(Ms).ok_or_else(wrong)
}

fn size(key: &str, value: &str) -> Result<usize, String> {
    let wrong = || format!("`{key}={value}`: a size up to 256MiB is needed, like 64KiB");
    let (number, unit) = if let Some(number) = value.strip_suffix("KiB") {
        (number, 1024)
    } else if let Some(number) = value.strip_suffix("MiB") {
        (number, 1024 * 1024)
    } else {
        (value, 1)
    };
    let number: usize = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|&bytes| bytes <= SIZE_MAX).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Script {
        Script::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn reads_every_term_of_the_grammar() {
        assert_eq!(parsed("ok"), Script::default());
        let ok = || Script::default();
        let cases = [
            ("ok,tokens=20,delay=10ms", Script { tokens: 20, delay: Ms(10), ..ok() }),
            ("drip=1ms", Script { drip: Some(Ms(1)), ..ok() }),
            ("error_first", Script { error_at: Some(1), ..ok() }),
            ("cut_byte=0,how=rst", Script { cut_byte: Some(0), how: How::Rst, ..ok() }),
            ("giant_at=2,size=64KiB", Script { giant_at: Some(2), size: 65536, ..ok() }),
            ("split=7 , gap=2s", Script { split: Some(7), gap: Ms(2000), ..ok() }),
            ("tools", Script { tools: 1, ..ok() }),
            ("tools=2,reasoning", Script { tools: 2, reasoning: 3, ..ok() }),
            ("close_after=rst", Script { close_after: Some(How::Rst), ..ok() }),
            ("tokens=2,text=a, b=c", Script { tokens: 2, text: Some("a, b=c".into()), ..ok() }),
            ("drip@1ms~tokens@3", Script { drip: Some(Ms(1)), tokens: 3, ..ok() }),
            ("json", Script { text: Some(OBJECT.into()), ..ok() }),
            ("claude-x@2~tools", Script { tools: 1, ..ok() }),
            ("gemini-2.5,text=a~b", Script { text: Some("a~b".into()), ..ok() }),
            ("anthropic.claude-x", ok()),
            ("big=1MiB,framing=close", {
                Script { big: Some(1 << 20), framing: Some(Framing::Close), ..ok() }
            }),
        ];
        for (text, script) in cases {
            assert_eq!(parsed(text), script, "{text}");
        }
    }

    #[test]
    fn reads_verbs_and_their_place() {
        let status = |status, fault| Verb::Status { status, fault };
        let cases = [
            ("503", status(503, Named::ByStatus)),
            ("429,retry_after=7s", status(429, Named::ByStatus)),
            ("context_length", status(400, Named::ContextLength)),
            ("reset", Verb::Reset { at: At::Request }),
            ("reset,at=head", Verb::Reset { at: At::Head }),
            ("event=3,hang", Verb::Hang { at: At::Event(3) }),
            ("tokens=3,empty", Verb::Empty),
        ];
        for (text, verb) in cases {
            assert_eq!(parsed(text).verb, verb, "{text}");
        }
        assert_eq!(parsed("429,retry_after=1m").retry_after, Some(Ms(60_000)));
    }

    #[test]
    fn refuses_what_it_does_not_know_and_names_it() {
        for (text, part) in [
            ("gpt-4o", "gpt-4o"),
            ("", "``"),
            ("ok,503", "second verb"),
            ("302", "302"),
            ("ok,tokens=many", "tokens=many"),
            ("ok,delay=10", "delay=10"),
            ("ok,at=head", "belong to"),
            ("reset,at=tail", "`at`"),
            ("ok=1", "ok=1"),
            ("giant_at=1,size=1000GiB", "size=1000GiB"),
            ("how=gently", "gently"),
            ("no_done=1", "no_done=1"),
            ("delay=9999999m", "delay"),
        ] {
            let error = Script::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_grammar_names_every_term() {
        // Every word of the grammar's first column parses, or needs a value that is shown there.
        for line in
            GRAMMAR.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        {
            if line.starts_with("  /") {
                continue;
            }
            let word = line.trim().split([' ', '=', '[', '|', ',']).next().unwrap_or_default();
            let filled = [
                word.to_owned(),
                format!("{word}=3"),
                format!("{word}=3ms"),
                format!("{word}=rst"),
                format!("{word}=stop"),
                format!("{word}=close"),
            ];
            assert!(filled.iter().any(|text| Script::parse(text).is_ok()), "{word}");
        }
    }
}
