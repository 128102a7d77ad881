//! TOML text to nodes that know their line and path, and the list of keys.
//!
//! A `serde` mirror stops at its first error; this one is walked by hand, because every error is to be
//! reported at once. A section is opened with the keys that it may have; whatever else is in it is a
//! problem there and then, with the nearest known key as a hint. A value of the wrong type is a
//! problem too, and reads as absent, so that the walk goes on.
//!
//! ```text
//! [providers.openai]        Section { kind .., key .. }
//! knid = "openai"           -> line 2: providers.openai.knid: unknown key (did you mean "kind"?)
//! key = 7                   -> line 3: providers.openai.key: expected a string, found an integer
//! ```

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::text::{self, Wrong};
use super::{Lookup, Problem};
use crate::base::tick::Ms;

/// Keys of the file itself.
pub(super) const TOP: &[&str] = &[
    "server",
    "auth",
    "defaults",
    "providers",
    "models",
    "routes",
    "catalog",
    "passthrough",
    "log",
];
/// Keys of `[server]`.
pub(super) const SERVER: &[&str] = &[
    "listen",
    "admin",
    "cores",
    "driver",
    "head_max",
    "body_max",
    "drain",
    "connections_max",
    "connections_per_client",
    "in_flight_max",
    "memory_max",
    "lag_max",
    "head_timeout",
    "body_timeout",
    "rate_min",
    "read_rate_min",
    "rate_grace",
    "keep_alive",
    "write_timeout",
    "half_close",
    "drain_notice",
    "tls",
    "client_ca",
];
/// Keys of one entry of `server.tls`.
pub(super) const TLS: &[&str] = &["cert", "key"];
/// Keys of `[auth]`.
pub(super) const AUTH: &[&str] = &["keys"];
/// Keys of one entry of `auth.keys`.
pub(super) const AUTH_KEY: &[&str] = &["name", "sha256", "key", "in_flight_max"];
/// Keys of `[defaults]`, and of what may override it.
pub(super) const SETTINGS: &[&str] = &[
    "commit",
    "hold_max",
    "answer_max",
    "open_after",
    "hedge_after",
    "connect_timeout",
    "head_timeout",
    "first_content_timeout",
    "idle_timeout",
    "answer_timeout",
    "throughput_floor",
    "first_content_deadline",
    "total_timeout",
    "on_content_policy",
    "breaker",
    "retry_budget",
    "replay",
];
/// Keys of a `commit` table.
pub(super) const COMMIT: &[&str] = &["tokens", "within"];
/// Keys of a `breaker` table.
pub(super) const BREAKER: &[&str] = &["failures", "error_rate", "window", "open"];
/// Keys of a `retry_budget` table.
pub(super) const BUDGET: &[&str] = &["ratio", "floor", "window"];
/// Own keys of a provider.
pub(super) const PROVIDER: &[&str] = &[
    "kind",
    "base_url",
    "key",
    "keys",
    "access_key",
    "secret_key",
    "session_token",
    "region",
    "ca",
    "vendor",
    "api_version",
    "responses",
    "project",
    "location",
    "service_account",
];
/// Own keys of a model.
pub(super) const MODEL: &[&str] = &["targets", "fallbacks"];
/// Own keys of a target that is written as a table.
pub(super) const TARGET: &[&str] = &["target"];
/// Own keys of a route.
pub(super) const ROUTE: &[&str] = &["policy", "models", "weights"];
/// Keys of one entry of `[catalog]`.
pub(super) const CATALOG: &[&str] = &[
    "context",
    "output",
    "price_in",
    "price_out",
    "price_cached",
    "price_cache_write",
    "can",
    "cannot",
];
/// Keys of `[passthrough]`.
pub(super) const PASSTHROUGH: &[&str] = &["provider"];
/// Keys of `[log]`.
pub(super) const LOG: &[&str] = &["ledger"];

/// Every section with its own keys; `NAME` stands for a name that the file chooses.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    ("server", SERVER),
    ("server.tls", TLS),
    ("auth", AUTH),
    ("auth.keys[]", AUTH_KEY),
    ("defaults", SETTINGS),
    ("defaults.commit", COMMIT),
    ("defaults.breaker", BREAKER),
    ("defaults.retry_budget", BUDGET),
    ("providers.NAME", PROVIDER),
    ("models.NAME", MODEL),
    ("models.NAME.targets[]", TARGET),
    ("routes.NAME", ROUTE),
    ("catalog.NAME", CATALOG),
    ("passthrough", PASSTHROUGH),
    ("log", LOG),
];

/// Where something stands in the file.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: String,
    offset: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub(super) place: Place,
    pub(super) value: &'a DeValue<'a>,
}

impl Node<'_> {
    /// Whether it is `[]`. Another type than an array is a problem of its own.
    pub(super) fn is_empty_array(&self) -> bool {
        matches!(self.value, DeValue::Array(array) if array.is_empty())
    }

    /// Whether it is an array.
    pub(super) fn is_array(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }
}

/// An opened table: its entries in the order of the file.
#[derive(Debug)]
pub(super) struct Section<'a> {
    entries: Vec<(String, Node<'a>)>,
}

impl<'a> Section<'a> {
    /// Takes an entry out.
    pub(super) fn take(&mut self, key: &str) -> Option<Node<'a>> {
        let index = self.entries.iter().position(|(name, _)| name == key)?;
        Some(self.entries.remove(index).1)
    }

    /// Whether there is such an entry.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name == key)
    }

    /// Every entry with its key, in the order of the file.
    pub(super) fn into_entries(self) -> Vec<(String, Node<'a>)> {
        self.entries
    }
}

/// Collects problems while nodes are read.
pub(super) struct Reader<'l> {
    /// Offsets of line ends, ascending.
    line_ends: Vec<usize>,
    problems: Vec<(usize, Problem)>,
    pub(super) lookup: Lookup<'l>,
}

/// Parses the text.
///
/// # Errors
/// The first syntax error, with its line. TOML's own message names no value.
pub(super) fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, Problem> {
    DeTable::parse(text).map_err(|error| Problem {
        line: error.span().map(|span| 1 + count_lines(text, span.start)),
        path: String::new(),
        what: format!("not TOML: {}", error.message().replace('\n', ", ")),
        hint: String::new(),
    })
}

fn count_lines(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count()
}

impl<'l> Reader<'l> {
    pub(super) fn new(text: &str, lookup: Lookup<'l>) -> Reader<'l> {
        let line_ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i);
        Reader { line_ends: line_ends.collect(), problems: Vec::new(), lookup }
    }

    /// Records a problem.
    pub(super) fn wrong(&mut self, place: &Place, wrong: Wrong) {
        let line = self.line(place);
        let Wrong { what, hint } = wrong;
        let problem = Problem { line: Some(line), path: place.path.clone(), what, hint };
        self.problems.push((place.offset, problem));
    }

    /// The line of a place, from 1.
    pub(super) fn line(&self, place: &Place) -> usize {
        1 + self.line_ends.partition_point(|end| *end < place.offset)
    }

    /// Records a problem of something that isn't there.
    pub(super) fn missing(&mut self, path: &str, wrong: Wrong) {
        let Wrong { what, hint } = wrong;
        let problem = Problem { line: None, path: path.to_owned(), what, hint };
        self.problems.push((usize::MAX, problem));
    }

    /// Every problem in the order of the file, those without a line last.
    pub(super) fn take_problems(&mut self) -> Vec<Problem> {
        let mut problems = std::mem::take(&mut self.problems);
        problems.sort_by_key(|(offset, _)| *offset);
        problems.into_iter().map(|(_, problem)| problem).collect()
    }

    /// Opens the file itself.
    pub(super) fn top<'a>(&mut self, table: &'a DeTable<'a>) -> Section<'a> {
        let section = open("", table);
        self.known(section, &[TOP])
    }

    /// Opens a table whose keys are known; `keys` are the lists that they may come from.
    pub(super) fn section<'a>(&mut self, node: Node<'a>, keys: &[&[&str]]) -> Option<Section<'a>> {
        let section = self.names(node)?;
        Some(self.known(section, keys))
    }

    /// Opens a table whose keys are names.
    pub(super) fn names<'a>(&mut self, node: Node<'a>) -> Option<Section<'a>> {
        match node.value {
            DeValue::Table(table) => Some(open(&node.place.path, table)),
            _ => self.mistyped(&node, "a table", ""),
        }
    }

    fn known<'a>(&mut self, mut section: Section<'a>, keys: &[&[&str]]) -> Section<'a> {
        let all = || keys.iter().flat_map(|list| list.iter().copied());
        let mut kept = Vec::new();
        for (name, node) in section.entries {
            if all().any(|key| key == name) {
                kept.push((name, node));
                continue;
            }
            let hint = match text::nearest(&name, all()) {
                Some(near) => format!("did you mean {near:?}?"),
                None if all().count() <= 8 => {
                    format!("known here: {}", all().collect::<Vec<_>>().join(", "))
                }
                None => String::new(),
            };
            self.wrong(&node.place, Wrong::new("unknown key", hint));
        }
        section.entries = kept;
        section
    }

    /// The items of an array.
    pub(super) fn items<'a>(&mut self, node: &Node<'a>, hint: &str) -> Option<Vec<Node<'a>>> {
        let DeValue::Array(array) = node.value else {
            return self.mistyped(node, "an array", hint);
        };
        let item = |(index, item): (usize, &'a Spanned<DeValue<'a>>)| Node {
            place: Place {
                path: format!("{}[{index}]", node.place.path),
                offset: item.span().start,
            },
            value: item.get_ref(),
        };
        Some(array.iter().enumerate().map(item).collect())
    }

    /// A string.
    pub(super) fn string<'a>(&mut self, node: &Node<'a>, hint: &str) -> Option<&'a str> {
        match node.value {
            DeValue::String(string) => Some(string.as_ref()),
            _ => self.mistyped(node, "a string", hint),
        }
    }

    /// A string of one of the known names.
    pub(super) fn choice<T: Copy>(&mut self, node: &Node<'_>, names: &[(&str, T)]) -> Option<T> {
        let list: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        let expected = format!("one of {}", list.join(", "));
        let value = self.string(node, &expected)?;
        if let Some((_, found)) = names.iter().find(|(name, _)| *name == value) {
            return Some(*found);
        }
        let hint = match text::nearest(value, list.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => expected,
        };
        self.wrong(&node.place, Wrong::new(format!("unknown value {value:?}"), hint));
        None
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, node: &Node<'_>) -> Option<bool> {
        match node.value {
            DeValue::Boolean(value) => Some(*value),
            _ => self.mistyped(node, "true or false", ""),
        }
    }

    /// A whole number within `least..=most`.
    pub(super) fn integer(&mut self, node: &Node<'_>, least: u32, most: u32) -> Option<u32> {
        let DeValue::Integer(integer) = node.value else {
            return self.mistyped(node, "an integer", "");
        };
        let digits = integer.as_str().replace('_', "");
        let value = i64::from_str_radix(&digits, integer.radix()).ok();
        let value = value.and_then(|value| u32::try_from(value).ok());
        let found = value.filter(|value| (least..=most).contains(value));
        if found.is_none() {
            let range = format!("from {least} to {most}");
            self.wrong(&node.place, Wrong::new("the number is out of range", range));
        }
        found
    }

    /// A share within 0 and 1; an integer 0 or 1 is one too. Zero itself only if `zero`.
    pub(super) fn share(&mut self, node: &Node<'_>, zero: bool) -> Option<f32> {
        let digits = match node.value {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            _ => return self.mistyped(node, "a number", "a share from 0 to 1, as in 0.2"),
        };
        let value: Option<f32> = digits.replace('_', "").parse().ok();
        let found = value.filter(|v| (0.0..=1.0).contains(v) && (zero || *v > 0.0));
        if found.is_none() {
            let range = if zero { "from 0 to 1" } else { "above 0 and at most 1" };
            self.wrong(&node.place, Wrong::new("the share is out of range", range));
        }
        found
    }

    /// A price: US dollars for a million tokens, from 0 to 100,000.
    pub(super) fn price(&mut self, node: &Node<'_>) -> Option<f64> {
        let digits = match node.value {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            _ => return self.mistyped(node, "a number", "US dollars for a million tokens"),
        };
        let value: Option<f64> = digits.replace('_', "").parse().ok();
        let found = value.filter(|v| (0.0..=100_000.0).contains(v));
        if found.is_none() {
            let hint = "US dollars for a million tokens, from 0 to 100000";
            self.wrong(&node.place, Wrong::new("the price is out of range", hint));
        }
        found
    }

    /// A duration above zero.
    pub(super) fn duration(&mut self, node: &Node<'_>) -> Option<Ms> {
        let value = self.string(node, text::DURATION_HINT)?;
        let parsed = text::duration(value).and_then(|ms| {
            let zero = || Wrong::new("the time is zero", "write a time above zero");
            if ms == Ms(0) { Err(zero()) } else { Ok(ms) }
        });
        parsed.map_err(|wrong| self.wrong(&node.place, wrong)).ok()
    }

    /// A duration above zero, or `"off"`.
    pub(super) fn duration_or_off(&mut self, node: &Node<'_>) -> Option<Option<Ms>> {
        match node.value {
            DeValue::String(word) if word == "off" => Some(None),
            _ => self.duration(node).map(Some),
        }
    }

    /// A size within `least..=most` bytes.
    pub(super) fn size(&mut self, node: &Node<'_>, least: usize, most: usize) -> Option<u32> {
        let value = self.string(node, text::SIZE_HINT)?;
        let parsed = text::size(value).and_then(|bytes| {
            let within = (least..=most).contains(&(bytes as usize));
            let range = || Wrong::new(format!("{value:?} is out of range"), bounds(least, most));
            if within { Ok(bytes) } else { Err(range()) }
        });
        parsed.map_err(|wrong| self.wrong(&node.place, wrong)).ok()
    }

    /// A size above zero without an upper limit; `"off"` is `u64::MAX`.
    pub(super) fn bound(&mut self, node: &Node<'_>) -> Option<u64> {
        let value = self.string(node, text::SIZE_HINT)?;
        if value == "off" {
            return Some(u64::MAX);
        }
        let parsed = text::large_size(value).and_then(|bytes| {
            let zero = || Wrong::new("the size is zero", "write a size above zero, or \"off\"");
            if bytes == 0 { Err(zero()) } else { Ok(bytes) }
        });
        parsed.map_err(|wrong| self.wrong(&node.place, wrong)).ok()
    }

    /// Records a wrong type. Names the type found, never the value.
    fn mistyped<T>(&mut self, node: &Node<'_>, expected: &str, hint: &str) -> Option<T> {
        let found = match node.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.wrong(&node.place, Wrong::new(format!("expected {expected}, found {found}"), hint));
        None
    }
}

fn bounds(least: usize, most: usize) -> String {
    let unit = |bytes: usize| match bytes {
        0 => "0B".to_owned(),
        b if b % (1 << 20) == 0 => format!("{}MiB", b >> 20),
        b if b % (1 << 10) == 0 => format!("{}KiB", b >> 10),
        b => format!("{b}B"),
    };
    format!("from {} to {}", unit(least), unit(most))
}

fn open<'a>(path: &str, table: &'a DeTable<'a>) -> Section<'a> {
    let entry = |(key, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
        let key: &Spanned<std::borrow::Cow<'a, str>> = key;
        let path = join(path, key.get_ref());
        let node = Node { place: Place { path, offset: key.span().start }, value: value.get_ref() };
        (key.get_ref().to_string(), node)
    };
    let mut entries: Vec<_> = table.iter().map(entry).collect();
    entries.sort_by_key(|(_, node)| node.place.offset);
    Section { entries }
}

/// Appends a key to a path as TOML would write it: quoted unless it is bare.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let key =
        if !key.is_empty() && key.bytes().all(bare) { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
