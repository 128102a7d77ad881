//! Credentials. A `Secret` can be compared and written into an upstream head, and nothing else: it has
//! no `Display`, its `Debug` prints no byte of it, and its bytes are overwritten on drop.

use std::fmt;

/// Bytes that must never be shown. `expose` is the one way in, so that a search finds every use.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes over the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(bytes.into())
    }

    /// The bytes, for the one place that sends or hashes them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the overwrite from being removed as a dead store.
        std::hint::black_box(&self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What requests to AWS are signed with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AwsKeys {
    /// The id of the pair; it goes out with each request.
    pub access_key: Secret,
    /// The secret of the pair.
    pub secret_key: Secret,
    /// The token of a session, for keys that are lent for a time.
    pub session_token: Option<Secret>,
    /// The region that requests are signed for, as `us-east-1`.
    pub region: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_byte() {
        assert_eq!(format!("{:?}", Secret::new("sk-very-secret")), "Secret(..)");
    }
}
