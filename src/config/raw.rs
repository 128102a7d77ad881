//! TOML text to nodes that know their line and path.
