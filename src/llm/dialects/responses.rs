//! OpenAI's Responses.

use crate::base::buf::Buf;
use crate::llm::dialects::{ErrorReport, Writer, chat};
use crate::llm::event::Finish;
use crate::llm::prompt::Family;
use crate::llm::sink::{Piece, Sink, Told};

/// Writes it.
pub struct Responses;

/// What the writer keeps of a stream.
#[derive(Default)]
pub(in crate::llm) struct Pen {}

impl Writer for Responses {
    fn text(&self, _: &mut Sink<'_>, _: u32, _: Piece<'_>) {}
    fn thought(&self, _: &mut Sink<'_>, _: u32) {}
    fn reason(&self, _: &mut Sink<'_>, _: u32, _: Piece<'_>) {}
    fn sign(&self, _: &mut Sink<'_>, _: u32, _: Option<&Buf>, _: Family, _: Piece<'_>) {}
    fn redacted(&self, _: &mut Sink<'_>, _: u32, _: Piece<'_>) {}
    fn refuse(&self, _: &mut Sink<'_>, _: u32, _: Piece<'_>) {}
    fn tool(&self, _: &mut Sink<'_>, _: u32, _: u32, _: Piece<'_>, _: Piece<'_>) {}
    fn args(&self, _: &mut Sink<'_>, _: u32, _: u32, _: Piece<'_>) {}
    fn sign_call(&self, _: &mut Sink<'_>, _: u32, _: u32, _: Family, _: Piece<'_>) {}
    fn annotate(&self, _: &mut Sink<'_>, _: u32, _: &[u8]) {}
    fn image(&self, _: &mut Sink<'_>, _: u32, _: &str, _: Piece<'_>) {}
    fn stop(&self, _: &mut Sink<'_>, _: u32, _: Finish) {}
    fn finish(&self, _: &mut Sink<'_>, _: bool) {}
    fn whole(&self, _: &mut Sink<'_>) {}
    fn error_body(&self, report: &ErrorReport<'_>) -> String {
        chat::Chat.error_body(report)
    }
    fn error_event(&self, report: &ErrorReport<'_>, told: &mut Told, out: &mut Buf) {
        chat::Chat.error_event(report, told, out);
    }
}
