//! Cases and properties.
