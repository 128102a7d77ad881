//! What follows a failure before commit. The whole table of the contract's section 3 is here, and
//! nowhere else.

use crate::base::fail::{Failure, Fault, FaultSet};
use crate::base::tick::Ms;
use crate::config::OnContentPolicy;

/// What follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The plan's next attempt, if there is one and budget and deadline allow.
    Next,
    /// No further attempt: the client gets this failure.
    Answer,
}

/// The client's request is at fault, or there is no one left to answer.
const FINAL: FaultSet = FaultSet::of(&[
    Fault::Client,
    Fault::Deadline,
    Fault::Total,
    Fault::ClientGone,
    Fault::Shutdown,
]);

/// The verdict on a fault.
pub const fn after(fault: Fault, on_content_policy: OnContentPolicy) -> Verdict {
    if FINAL.has(fault) {
        return Verdict::Answer;
    }
    match (fault, on_content_policy) {
        (Fault::ContentPolicy, OnContentPolicy::Return) => Verdict::Answer,
        _ => Verdict::Next,
    }
}

/// How long the target is left alone: what it asked for, or a moment after a bare 429.
pub fn cool_down(failure: Failure) -> Option<Ms> {
    match (failure.fault, failure.retry_after) {
        (Fault::RateLimited, None) => Some(RATE_LIMIT_PAUSE),
        (Fault::RateLimited | Fault::Unavailable, Some(wait)) => Some(wait),
        _ => None,
    }
}

/// A 429 without Retry-After: long enough that a burst does not hammer on, short enough to be noticed
/// by nobody.
const RATE_LIMIT_PAUSE: Ms = Ms(1_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clients_faults_and_the_end_of_time_are_final() {
        for fault in Fault::ALL {
            let is_final = matches!(
                fault,
                Fault::Client
                    | Fault::Deadline
                    | Fault::Total
                    | Fault::ClientGone
                    | Fault::Shutdown
                    | Fault::ContentPolicy
            );
            let verdict = after(*fault, OnContentPolicy::Return);
            assert_eq!(verdict == Verdict::Answer, is_final, "{}", fault.name());
        }
        assert_eq!(after(Fault::ContentPolicy, OnContentPolicy::Next), Verdict::Next);
    }

    #[test]
    fn cool_downs_follow_what_was_asked() {
        let cases = [
            (Fault::RateLimited, Some(Ms(7_000)), Some(Ms(7_000))),
            (Fault::RateLimited, None, Some(RATE_LIMIT_PAUSE)),
            (Fault::Unavailable, Some(Ms(500)), Some(Ms(500))),
            (Fault::Unavailable, None, None),
            (Fault::Client, Some(Ms(500)), None),
        ];
        for (fault, retry_after, expected) in cases {
            let failure = Failure { fault, status: 429, retry_after };
            assert_eq!(cool_down(failure), expected, "{}", fault.name());
        }
    }
}
