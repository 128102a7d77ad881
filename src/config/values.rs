//! The values a config is made of: what may be overridden (`Settings` and its `Patch`), and the small
//! enums with their names.

use super::text;
use crate::base::limits;
use crate::base::tick::Ms;

/// Everything that a provider, model, route or target may override. Resolved once for each attempt:
/// target over route over model over provider over `[defaults]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What releases a stream.
    pub commit: Commit,
    /// Bytes held before commit; `None`: 64 KiB, and 8 MiB under `complete`.
    pub hold_max: Option<u32>,
    /// Bytes of a non-streamed answer that are held; a larger one commits there.
    pub answer_max: u32,
    /// Two-phase opening: after this long without commit, 200 and SSE comments go out. Off: `None`.
    pub open_after: Option<Ms>,
    /// No content for this long: the next attempt starts beside the first. Off: `None`.
    pub hedge_after: Option<Hedge>,
    /// From dial to a usable connection, TLS handshake included.
    pub connect_timeout: Ms,
    /// From the start of the attempt to the response head, for streamed requests.
    pub head_timeout: Ms,
    /// From the start of the attempt to the first content, for streamed requests.
    pub first_content_timeout: Patience,
    /// Between two content events.
    pub idle_timeout: Ms,
    /// One attempt at a non-streamed answer: most providers send no head before it is finished.
    pub answer_timeout: Ms,
    /// Content events a second below which an attempt counts as stalled; 0: off.
    pub throughput_floor: u32,
    /// The whole plan, up to the first content of a stream.
    pub first_content_deadline: Ms,
    /// The whole exchange.
    pub total_timeout: Ms,
    /// What follows a content-policy refusal by status.
    pub on_content_policy: OnContentPolicy,
    /// When a target is left alone. Off: `None`.
    pub breaker: Option<BreakerRule>,
    /// How many extra attempts a provider may see. Of a provider or `[defaults]` only.
    pub retry_budget: BudgetRule,
    /// Whether a reused connection that died before any response byte is replaced by a fresh one.
    pub replay: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            commit: Commit::FirstContent,
            hold_max: None,
            answer_max: limits::ANSWER_BYTES_MAX as u32,
            open_after: None,
            hedge_after: None,
            connect_timeout: Ms(2_000),
            head_timeout: Ms(20_000),
            first_content_timeout: Patience::For(Ms(20_000)),
            idle_timeout: Ms(30_000),
            answer_timeout: Ms(120_000),
            throughput_floor: 0,
            first_content_deadline: Ms(45_000),
            total_timeout: Ms(600_000),
            on_content_policy: OnContentPolicy::Return,
            breaker: Some(BreakerRule::default()),
            retry_budget: BudgetRule::default(),
            replay: true,
        }
    }
}

impl Settings {
    /// These settings with what `patch` names replaced.
    #[must_use]
    pub fn with(&self, patch: &Patch) -> Settings {
        Settings {
            commit: patch.commit.unwrap_or(self.commit),
            hold_max: patch.hold_max.or(self.hold_max),
            answer_max: patch.answer_max.unwrap_or(self.answer_max),
            open_after: patch.open_after.unwrap_or(self.open_after),
            hedge_after: patch.hedge_after.unwrap_or(self.hedge_after),
            connect_timeout: patch.connect_timeout.unwrap_or(self.connect_timeout),
            head_timeout: patch.head_timeout.unwrap_or(self.head_timeout),
            first_content_timeout: patch
                .first_content_timeout
                .unwrap_or(self.first_content_timeout),
            idle_timeout: patch.idle_timeout.unwrap_or(self.idle_timeout),
            answer_timeout: patch.answer_timeout.unwrap_or(self.answer_timeout),
            throughput_floor: patch.throughput_floor.unwrap_or(self.throughput_floor),
            first_content_deadline: patch
                .first_content_deadline
                .unwrap_or(self.first_content_deadline),
            total_timeout: patch.total_timeout.unwrap_or(self.total_timeout),
            on_content_policy: patch.on_content_policy.unwrap_or(self.on_content_policy),
            breaker: patch.breaker.unwrap_or(self.breaker),
            retry_budget: patch.retry_budget.unwrap_or(self.retry_budget),
            replay: patch.replay.unwrap_or(self.replay),
        }
    }

    /// Bytes that may be held before commit under `commit`.
    pub fn hold_max_under(&self, commit: Commit) -> u32 {
        let usual = match commit {
            Commit::Complete => limits::ANSWER_BYTES_MAX,
            Commit::Headers | Commit::FirstEvent | Commit::FirstContent | Commit::Tokens { .. } => {
                limits::HOLD_BYTES_MAX
            }
        };
        self.hold_max.unwrap_or(usual as u32)
    }
}

/// What one level overrides: every field of [`Settings`], `None` where it says nothing. Where a setting
/// can be off, `Some(None)` is `"off"`.
#[derive(Clone, Debug, PartialEq, Default)]
#[allow(missing_docs, reason = "each field is the one of Settings with the same name")]
pub struct Patch {
    pub commit: Option<Commit>,
    pub hold_max: Option<u32>,
    pub answer_max: Option<u32>,
    pub open_after: Option<Option<Ms>>,
    pub hedge_after: Option<Option<Hedge>>,
    pub connect_timeout: Option<Ms>,
    pub head_timeout: Option<Ms>,
    pub first_content_timeout: Option<Patience>,
    pub idle_timeout: Option<Ms>,
    pub answer_timeout: Option<Ms>,
    pub throughput_floor: Option<u32>,
    pub first_content_deadline: Option<Ms>,
    pub total_timeout: Option<Ms>,
    pub on_content_policy: Option<OnContentPolicy>,
    pub breaker: Option<Option<BreakerRule>>,
    pub retry_budget: Option<BudgetRule>,
    pub replay: Option<bool>,
}

/// What releases a held stream to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Commit {
    /// The provider's 2xx head.
    Headers,
    /// The first well-formed event of any kind.
    FirstEvent,
    /// The first substantive event.
    #[default]
    FirstContent,
    /// `count` content events, or `within` after the first of them, whichever is sooner.
    Tokens {
        /// Content events, 1 or more.
        count: u16,
        /// Time after the first of them, above zero.
        within: Ms,
    },
    /// The provider's good end.
    Complete,
}

impl Commit {
    /// Parses the value of `x-firstbyte-commit`, which is also the text form in the config:
    /// `headers`, `first_event`, `first_content`, `complete`, or `tokens=8,within=500ms` (spaces around
    /// the comma and the equals signs are allowed, both parts are required, in this order).
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(value: &str) -> Result<Commit, String> {
        text::commit(value)
    }
}

/// After how much silence the next attempt starts beside the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedge {
    /// After this long.
    After(Ms),
    /// After this percentile (1 to 99) of the target's own times to first content; while too few of them
    /// were measured: never.
    Percentile(u8),
}

/// How long is waited for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// This long.
    For(Ms),
    /// As the target's own times say: three times their 99th percentile, from [`Patience::LEAST`] to
    /// [`Patience::MOST`], and that while too few of them were measured.
    Auto,
}

impl Patience {
    /// The least of `auto`.
    pub const LEAST: Ms = Ms(2_000);
    /// The most of `auto`.
    pub const MOST: Ms = Ms(20_000);

    /// The time that `measured`, the 99th percentile, makes of it.
    pub fn time(self, measured: Option<Ms>) -> Ms {
        match (self, measured) {
            (Patience::For(time), _) => time,
            (Patience::Auto, None) => Patience::MOST,
            (Patience::Auto, Some(p99)) => {
                Ms(p99.0.saturating_mul(3)).clamp(Patience::LEAST, Patience::MOST)
            }
        }
    }
}

/// What follows when a provider's content policy refuses a request by status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnContentPolicy {
    /// The client gets that error.
    #[default]
    Return,
    /// The next attempt.
    Next,
}

/// When a target's breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerRule {
    /// Failures in a row, 1 or more.
    pub failures: u32,
    /// Share of failures within `window`, above 0 and at most 1.
    pub error_rate: f32,
    /// Over which time the share is taken.
    pub window: Ms,
    /// How long it stays open before one probe may try.
    pub open: Ms,
}

impl Default for BreakerRule {
    fn default() -> BreakerRule {
        BreakerRule { failures: 5, error_rate: 0.5, window: Ms(10_000), open: Ms(5_000) }
    }
}

/// How many extra attempts (retries and hedges) a provider may see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetRule {
    /// Share of the requests within `window`, 0 to 1.
    pub ratio: f32,
    /// Extra attempts within `window` that are always allowed.
    pub floor: u32,
    /// The sliding window.
    pub window: Ms,
}

impl Default for BudgetRule {
    fn default() -> BudgetRule {
        BudgetRule { ratio: 0.2, floor: 10, window: Ms(10_000) }
    }
}

/// `server.driver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Driver {
    /// io_uring where the kernel allows it, else epoll.
    #[default]
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

impl Driver {
    /// The names, in the order that an error lists them.
    pub const NAMES: &'static [(&'static str, Driver)] =
        &[("auto", Driver::Auto), ("io_uring", Driver::IoUring), ("epoll", Driver::Epoll)];

    /// The name in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Driver::Auto => "auto",
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }
}

/// How a route ranks the targets of its models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// As they are written.
    #[default]
    Order,
    /// By the shares of its models.
    Weighted,
    /// By the price of the request.
    Cheapest,
    /// By measured speed.
    Fastest,
    /// By price, speed and recent failures.
    Balanced,
}

impl Policy {
    /// The names, in the order that an error lists them.
    pub const NAMES: &'static [(&'static str, Policy)] = &[
        ("order", Policy::Order),
        ("weighted", Policy::Weighted),
        ("cheapest", Policy::Cheapest),
        ("fastest", Policy::Fastest),
        ("balanced", Policy::Balanced),
    ];
}
