//! F1 bytes to structure and back. No meaning, no policy, no runtime.
