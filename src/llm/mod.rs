//! F2: what the bytes mean. Providers read what comes from upstream, dialects write what a client
//! understands; between them there is one vocabulary, `event`.

pub mod aws;
pub mod converse;
pub mod demand;
pub mod dialects;
pub mod errors;
pub mod event;
pub mod gemini_body;
pub mod messages;
pub mod needs;
pub mod prompt;
pub mod provider;
pub mod providers;
pub mod request;
pub mod sink;
