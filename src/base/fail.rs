//! What can go wrong with an attempt, as small `Copy` values. Text is made at the edge, from these.
//!
//! A `Fault` says what happened; whether another attempt may follow is decided in one place,
//! `exchange/verdict`, from the fault and the phase.

use std::fmt;

use super::tick::Ms;

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $text:literal;)*) => {
        /// What happened. The name is what ledger, log, metric and `x-firstbyte-attempts` say.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Fault { $($(#[$doc])* $variant,)* }

        impl Fault {
            /// Every fault, in the order of its number.
            pub const ALL: &'static [Fault] = &[$(Fault::$variant,)*];

            /// The stable short name, `[a-z_]`.
            pub const fn name(self) -> &'static str {
                match self { $(Fault::$variant => $name,)* }
            }

            /// One sentence for a person, without a full stop.
            pub const fn text(self) -> &'static str {
                match self { $(Fault::$variant => $text,)* }
            }
        }
    };
}

faults! {
    /// The provider's name has no address.
    Dns = "dns", "the provider's host name did not resolve";
    /// The provider's name leads to an address that only the config itself may name.
    Address = "address", "the provider's host name leads to an address that is never dialled";
    /// The kernel refused the connection.
    Refused = "refused", "the connection was refused";
    /// Another connect error: unreachable, no route.
    Connect = "connect", "the connection could not be made";
    /// The gateway itself has no descriptor left.
    NoDescriptor = "no_descriptor", "the gateway has no descriptor left for a connection";
    /// No connection within `connect_timeout` (TLS handshake included).
    ConnectTimeout = "connect_timeout", "the connection was not made in time";
    /// The TLS handshake failed or the certificate was not accepted.
    Tls = "tls", "the TLS handshake failed";
    /// The connection was reset.
    Reset = "reset", "the connection was reset";
    /// The connection ended before the answer did.
    Eof = "eof", "the connection ended before the answer did";
    /// Not HTTP/1.1 as RFC 9112 has it, or ambiguous.
    Malformed = "malformed", "the provider sent a malformed HTTP response";
    /// No response head in time.
    HeadTimeout = "head_timeout", "the provider did not begin to answer in time";
    /// No content within `first_content_timeout`.
    ContentTimeout = "first_content_timeout", "the provider sent no content in time";
    /// Nothing of substance for `idle_timeout` after content had begun.
    IdleTimeout = "idle_timeout", "the provider stopped sending";
    /// Fewer events a second than `throughput_floor`.
    TooSlow = "too_slow", "the provider sent fewer events than its floor";
    /// The plan's `first_content_deadline`, or the client's own deadline.
    Deadline = "deadline", "no provider answered before the deadline";
    /// The whole exchange took longer than `total_timeout`.
    Total = "total_timeout", "the exchange took too long";
    /// 5xx and the other statuses that say "try again".
    Unavailable = "unavailable", "the provider is unavailable";
    /// 429, or an error that says the same.
    RateLimited = "rate_limited", "the provider's rate limit was reached";
    /// 401, 402, 403 or a spent quota: our credential is at fault.
    Credential = "credential", "the provider did not accept the gateway's credential";
    /// The provider takes access tokens, and none could be fetched yet, or in time.
    NoToken = "no_token", "the gateway has no access token for the provider";
    /// 404: our mapping of the model is at fault.
    NotFound = "not_found", "the provider does not know the model or path";
    /// The prompt does not fit the model's context window.
    Context = "context_length", "the request does not fit the model's context window";
    /// 413: the request is too large for this provider.
    TooLarge = "too_large", "the request is too large for the provider";
    /// 400, 422 and other faults of the client's request.
    Client = "client_fault", "the provider rejected the request";
    /// The provider's content policy refused the request.
    ContentPolicy = "content_policy", "the provider's content policy rejected the request";
    /// An answer that is not a 2xx and not an error: 1xx without end, 3xx.
    BadStatus = "bad_status", "the provider answered with a status that means nothing here";
    /// An error event or error object inside a 200.
    ErrorEvent = "error_event", "the provider reported an error inside its answer";
    /// A good HTTP end without the provider's terminal signal, or with no content.
    Truncated = "truncated", "the answer ended without the provider's terminal signal";
    /// A frame that does not parse.
    BadFrame = "bad_frame", "the provider sent an event that does not parse";
    /// A whole answer over `answer_max` that would have to be translated.
    AnswerTooLarge = "answer_too_large", "the answer is over answer_max and in another format than the client's";
    /// A frame or line over its limit.
    FrameTooLarge = "frame_too_large", "the provider sent an event over the size limit";
    /// The request can't be put into this provider's format.
    Unsendable = "unsendable", "the request can't be sent to this provider";
    /// Another lane of a race was first.
    LostRace = "lost_race", "another attempt answered first";
    /// The client went away.
    ClientGone = "client_gone", "the client closed the connection";
    /// The gateway is shutting down.
    Shutdown = "shutdown", "the gateway is shutting down";
}

impl Fault {
    /// Whether time ran out rather than something being said.
    pub const fn is_timeout(self) -> bool {
        FaultSet::TIMEOUTS.has(self)
    }

    /// Whether the provider was not at fault: such an end says nothing about its health.
    pub const fn is_ours(self) -> bool {
        FaultSet::NOT_THE_PROVIDER.has(self)
    }
}

/// A set of faults, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultSet(u64);

impl FaultSet {
    /// Time ran out.
    pub const TIMEOUTS: FaultSet = FaultSet::of(&[
        Fault::ConnectTimeout,
        Fault::HeadTimeout,
        Fault::ContentTimeout,
        Fault::IdleTimeout,
        Fault::TooSlow,
        Fault::Deadline,
        Fault::Total,
    ]);
    /// Says nothing about the provider's health.
    pub const NOT_THE_PROVIDER: FaultSet = FaultSet::of(&[
        Fault::Context,
        Fault::TooLarge,
        Fault::Client,
        Fault::ContentPolicy,
        Fault::Unsendable,
        Fault::AnswerTooLarge,
        Fault::NoToken,
        Fault::NoDescriptor,
        Fault::LostRace,
        Fault::ClientGone,
        Fault::Shutdown,
    ]);

    /// The set of exactly these.
    pub const fn of(faults: &[Fault]) -> FaultSet {
        let mut bits = 0;
        let mut i = 0;
        while i < faults.len() {
            bits |= 1 << faults[i] as u8;
            i += 1;
        }
        FaultSet(bits)
    }

    /// Whether `fault` is in the set.
    pub const fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u8) != 0
    }

    /// The set with `fault` in it.
    pub const fn with(self, fault: Fault) -> FaultSet {
        FaultSet(self.0 | 1 << fault as u8)
    }

    /// The set without `fault`.
    pub const fn without(self, fault: Fault) -> FaultSet {
        FaultSet(self.0 & !(1 << fault as u8))
    }
}

const _: () = assert!(Fault::ALL.len() <= 64);

/// A fault with what the provider said beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What happened.
    pub fault: Fault,
    /// The provider's HTTP status; 0 if there was none.
    pub status: u16,
    /// How long the provider asks to be left alone, if it said so.
    pub retry_after: Option<Ms>,
}

impl Failure {
    /// A failure without a status.
    pub const fn of(fault: Fault) -> Failure {
        Failure { fault, status: 0, retry_after: None }
    }

    /// A failure with the HTTP status that it came with.
    pub const fn status(fault: Fault, status: u16) -> Failure {
        Failure { fault, status, retry_after: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fault.text())?;
        if self.status != 0 {
            write!(f, " (status {})", self.status)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_plain() {
        for (i, a) in Fault::ALL.iter().enumerate() {
            assert!(a.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", a.name());
            for b in &Fault::ALL[i + 1..] {
                assert_ne!(a.name(), b.name());
            }
        }
    }

    #[test]
    fn sets_hold_what_they_were_made_of() {
        let set = FaultSet::of(&[Fault::Dns, Fault::Shutdown]);
        for fault in Fault::ALL {
            assert_eq!(set.has(*fault), matches!(fault, Fault::Dns | Fault::Shutdown));
            assert!(set.with(*fault).has(*fault));
            assert!(!set.without(*fault).has(*fault));
        }
    }

    #[test]
    fn display_names_the_status() {
        let failure = Failure::status(Fault::Unavailable, 503);
        assert_eq!(failure.to_string(), "the provider is unavailable (status 503)");
    }
}
