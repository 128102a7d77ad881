//! The small grammars: durations, sizes, commit policies, URLs, references.

use super::Commit;

pub(super) fn commit(value: &str) -> Result<Commit, String> {
    Err(value.to_owned())
}
