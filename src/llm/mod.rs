//! F2: what the bytes mean. Providers read what comes from upstream, dialects write what a client
//! understands; between them there is one vocabulary, `event`.

pub mod aws;
pub mod bedrock;
pub mod chat_body;
pub mod converse;
pub mod demand;
pub mod dialects;
pub mod errors;
pub mod event;
pub mod gemini;
pub mod google;
pub mod messages;
pub mod needs;
pub mod openai;
pub mod parameters;
pub mod post;
pub mod prompt;
pub mod provider;
pub mod providers;
pub mod quirks;
pub mod request;
pub mod responses_body;
pub mod sink;
pub mod turns;
