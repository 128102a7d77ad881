//! F2 what the bytes mean: providers upstream, dialects downstream.
