//! HTTP/1.1 as RFC 9110 and RFC 9112 have it, read strictly: what two parsers could understand in
//! two ways is refused, not repaired.

pub mod body;
pub mod emit;
pub mod head;
