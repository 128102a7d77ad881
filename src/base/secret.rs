//! Credentials. A `Secret` can be compared and written into an upstream head, and nothing else: it has
//! no `Display`, its `Debug` prints no byte of it, and its bytes are overwritten on drop, also those that
//! its memory held before it was cut to its length.

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
        wipe(&mut self.0);
    }
}

/// Overwrites all that a vector holds, up to its capacity.
fn wipe(bytes: &mut Vec<u8>) {
    bytes.clear();
    // Stays within the capacity, so nothing moves.
    bytes.resize(bytes.capacity(), 0);
    // Keeps the overwrite from being removed as a dead store.
    std::hint::black_box(bytes);
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
    use std::marker::PhantomData;

    use super::*;

    #[test]
    fn debug_shows_no_byte() {
        assert_eq!(format!("{:?}", Secret::new("sk-very-secret")), "Secret(..)");
        assert_eq!(format!("{:#?}", [Secret::new("sk")]), "[\n    Secret(..),\n]");
        let keys = AwsKeys {
            access_key: Secret::new("sk-a"),
            secret_key: Secret::new("sk-b"),
            session_token: Some(Secret::new("sk-c")),
            region: String::from("us-east-1"),
        };
        let shown = format!("{keys:?}");
        assert!(shown.contains("us-east-1") && !shown.contains("sk-"), "{shown}");
    }

    /// Whether a type has `Display`: the inherent constant, where there is one, hides the trait's.
    struct Probe<T>(PhantomData<T>);
    trait Otherwise {
        const DISPLAYS: bool = false;
    }
    impl<T> Otherwise for Probe<T> {}
    impl<T: fmt::Display> Probe<T> {
        const DISPLAYS: bool = true;
    }

    #[test]
    fn there_is_no_way_to_print_it() {
        const { assert!(Probe::<String>::DISPLAYS) };
        const { assert!(!Probe::<Secret>::DISPLAYS) };
        const { assert!(!Probe::<AwsKeys>::DISPLAYS) };
    }

    #[test]
    fn wiping_reaches_the_capacity() {
        let mut bytes = b"sk-very-secret, and what was cut off".to_vec();
        bytes.truncate(14);
        let (place, capacity) = (bytes.as_ptr(), bytes.capacity());
        wipe(&mut bytes);
        assert_eq!((bytes.as_ptr(), bytes.len()), (place, capacity));
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
}
