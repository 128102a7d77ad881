//! A request with a JSON body and a bearer key, as most vendors take it: the head and the body. What is
//! passed through keeps its method and its own fields.

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::llm::provider::{Site, USER_AGENT};
use crate::llm::request::Ask;
use crate::wire::http1::emit;

/// Writes head and `body`, with the fields that may go upstream. `accept` is what a stream is asked for
/// as; a whole answer is JSON.
///
/// # Errors
/// `Unsendable`: path, key or a field has bytes that can't stand in a head; then nothing was written.
pub fn write(
    ask: &Ask,
    site: &Site<'_>,
    path: [&str; 2],
    accept: &[u8],
    body: &[u8],
    out: &mut Buf,
) -> Result<(), Fault> {
    debug_assert!(out.is_empty(), "a request begins its buffer");
    out.reserve(body.len() + 512);
    let written = ask.surface.is_conversation();
    let method: &[u8] = if written { b"POST" } else { ask.envelope.method.as_bytes() };
    let mut fits = emit::request_line(out, method, path.map(str::as_bytes));
    fits &= emit::field(out, b"host", site.authority.as_bytes());
    if let Some(key) = site.key {
        fits &= key.expose().iter().all(u8::is_ascii_graphic);
        out.extend(b"authorization: Bearer ");
        out.extend(key.expose());
        out.extend(emit::CRLF);
    }
    fits &= emit::field(out, b"accept-encoding", b"identity");
    fits &= emit::field(out, b"user-agent", USER_AGENT.as_bytes());
    if written {
        let accept = if ask.stream { accept } else { b"application/json" };
        fits &= emit::field(out, b"accept", accept);
        fits &= emit::field(out, b"content-type", b"application/json");
    }
    for (name, value) in ask.envelope.fields.iter().filter(|(name, _)| *name != "openai-beta") {
        fits &= emit::field(out, name.as_bytes(), value);
    }
    if !body.is_empty() || matches!(method, b"POST" | b"PUT" | b"PATCH") {
        emit::content_length(out, body.len() as u64);
    }
    emit::end(out);
    out.extend(body);
    if fits {
        return Ok(());
    }
    out.clear();
    Err(Fault::Unsendable)
}

/// The base URL's path without the ending that belongs to the API and that some give and some do not.
pub fn root<'a>(path: &'a str, endings: &[&str]) -> &'a str {
    let cut = endings.iter().find_map(|ending| path.strip_suffix(ending));
    cut.unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use crate::llm::request::Surface;

    fn written(key: Option<&str>, path: &str, stream: bool) -> Result<String, Fault> {
        let mut ask = Ask { surface: Surface::Chat, stream, ..Ask::default() };
        ask.envelope.fields.push(("openai-beta", b"x".to_vec()));
        ask.envelope.fields.push(("traceparent", b"00-1".to_vec()));
        let key = key.map(Secret::new);
        let site = Site {
            authority: "host:1",
            path: "",
            key: key.as_ref(),
            model: "m",
            ..Site::default()
        };
        let mut out = Buf::new();
        let result = write(&ask, &site, ["/v2", path], b"text/x", b"{}", &mut out);
        assert!(result.is_ok() || out.is_empty());
        result.map(|()| String::from_utf8(out.as_slice().to_vec()).unwrap())
    }

    #[test]
    fn a_head_is_whole_or_nothing_is_written() {
        let expected = format!(
            "POST /v2/chat HTTP/1.1\r\nhost: host:1\r\nauthorization: Bearer k\r\n\
             accept-encoding: identity\r\nuser-agent: {USER_AGENT}\r\naccept: text/x\r\n\
             content-type: application/json\r\ntraceparent: 00-1\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        assert_eq!(written(Some("k"), "/chat", true), Ok(expected.clone()));
        let whole = expected.replace("text/x", "application/json");
        assert_eq!(written(Some("k"), "/chat", false), Ok(whole));
        let keyless = expected.replace("authorization: Bearer k\r\n", "");
        assert_eq!(written(None, "/chat", true), Ok(keyless));
        assert_eq!(written(Some("a\r\nb: c"), "/chat", true), Err(Fault::Unsendable));
        assert_eq!(written(Some("k"), "/a b", true), Err(Fault::Unsendable));
    }

    #[test]
    fn what_is_passed_through_keeps_its_method() {
        let mut ask = Ask { surface: Surface::Other, ..Ask::default() };
        ask.envelope.method = "GET";
        let site = Site { authority: "host:1", path: "", key: None, model: "m", ..Site::default() };
        let mut out = Buf::new();
        write(&ask, &site, ["/v2", "/models"], b"", b"", &mut out).unwrap();
        let out = std::str::from_utf8(out.as_slice()).unwrap();
        assert!(
            out.starts_with("GET /v2/models HTTP/1.1\r\n") && out.ends_with("\r\n\r\n"),
            "{out}"
        );
        assert!(!out.contains("content-") && !out.contains("accept:"), "{out}");
    }

    #[test]
    fn endings_of_a_base_url_are_cut_once() {
        for (path, expected) in
            [("", ""), ("/v2", ""), ("/x/v2", "/x"), ("/v2/v2", "/v2"), ("/v3", "/v3")]
        {
            assert_eq!(root(path, &["/v2", "/v1"]), expected);
        }
    }
}
