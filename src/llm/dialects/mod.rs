//! The client's side: one file for each dialect. Events and raw frames in, the client's bytes out.

pub mod chat;
pub mod chat_prompt;
pub mod messages_prompt;
