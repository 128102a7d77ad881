//! Cases, the list of refusals, and the law that cutting the bytes changes nothing.

use proptest::prelude::*;

use super::*;

const MAX: usize = 4096;

fn request(text: &str) -> Result<Option<RequestHead>, Refusal> {
    parse_request(text.as_bytes(), MAX)
}

fn response(text: &str) -> Result<Option<ResponseHead>, Refusal> {
    parse_response(text.as_bytes(), MAX, false)
}

/// A POST with these field lines (each with its CRLF) besides Host.
fn with_fields(lines: &str) -> String {
    format!("POST /v1 HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

#[test]
fn a_usual_request_is_understood() {
    let text = "POST /v1/chat/completions?x=%20y HTTP/1.1\r\nHost: api.example:8080\r\n\
        Authorization:Bearer k\r\nX-Empty:\r\nX-Pad: \t a b\t \r\nContent-Length: 42\r\n\
        expect: 100-Continue\r\n\r\n{";
    let head = request(text).unwrap().unwrap();
    let bytes = text.as_bytes();
    assert_eq!(head.method, Method::Post);
    assert_eq!(head.target.of(bytes), b"/v1/chat/completions?x=%20y");
    assert_eq!(head.path(bytes), b"/v1/chat/completions");
    assert_eq!(head.query(bytes), b"x=%20y");
    assert_eq!((head.minor, head.framing), (1, Framing::Length(42)));
    assert!(head.keep_alive && head.expect_continue);
    assert_eq!(head.len, text.len() - 1);
    assert_eq!(head.fields.len(), 6);
    assert_eq!(head.field(bytes, b"AUTHORIZATION"), Some(&b"Bearer k"[..]));
    assert_eq!(head.field(bytes, b"x-empty"), Some(&b""[..]));
    assert_eq!(head.field(bytes, b"x-pad"), Some(&b"a b"[..]));
    assert_eq!(head.field(bytes, b"x-none"), None);
}

#[test]
fn repeated_fields_come_in_order() {
    let text = with_fields("A: 1\r\nb: x\r\na: 2\r\n");
    let head = request(&text).unwrap().unwrap();
    let values: Vec<_> = head.fields_named(text.as_bytes(), b"a").collect();
    assert_eq!(values, [b"1", b"2"]);
    assert_eq!(head.field(text.as_bytes(), b"A"), Some(&b"1"[..]));
    assert_eq!(list(b" a ,,\tb").collect::<Vec<_>>(), [b"a", b"b"]);
}

#[test]
fn requests_that_are_fine() {
    let cases: &[(&str, Framing, bool)] = &[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::None, true),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::None, true),
        ("GET / HTTP/1.0\r\n\r\n", Framing::None, false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Framing::None, true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n", Framing::None, false),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n",
            Framing::None,
            false,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection:\r\nConnection: close\r\n\r\n",
            Framing::None,
            false,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
            Framing::Chunked,
            true,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Framing::Length(0), true),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\n\r\n", Framing::Length(7), true),
        (
            "POST / HTTP/1.0\r\nContent-Length: 9223372036854775807\r\n\r\n",
            Framing::Length(i64::MAX as u64),
            false,
        ),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Framing::None, true),
        ("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", Framing::None, true),
        (
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
            Framing::None,
            true,
        ),
        ("\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::None, true),
        ("GET / HTTP/1.9\r\nHost: a\r\n\r\n", Framing::None, true),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Framing::None, true),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Framing::None, true),
        ("GET / HTTP/1.1\r\nHost: a%20b:65535\r\n\r\n", Framing::None, true),
        ("GET //a/../b?c[]=%C3%a9 HTTP/1.1\r\nHost: a\r\n\r\n", Framing::None, true),
        ("PURGE / HTTP/1.1\r\nHost: a\r\nX: caf\u{e9}\r\n\r\n", Framing::None, true),
    ];
    for (text, framing, keep_alive) in cases {
        let head = request(text).unwrap_or_else(|r| panic!("{r:?}: {text:?}")).unwrap();
        assert_eq!((head.framing, head.keep_alive), (*framing, *keep_alive), "{text:?}");
        assert_eq!(head.len, text.len(), "{text:?}");
    }
}

#[test]
fn start_lines_that_are_refused() {
    let cases: &[(&str, Refusal)] = &[
        ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n", Refusal::EmptyLines),
        ("\r\n\rGET / HTTP/1.1\r\n", Refusal::BareCr),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BareLf),
        ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BareCr),
        ("\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BareLf),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("\x16\x03\x01\x02", Refusal::StartLine),
        ("{\"a\":1}", Refusal::StartLine),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("GET / a HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("GET\r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("GET \r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("GET /\r\n\r\n", Refusal::Version),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Refusal::Version),
        ("GET / HTTP/2.0\r\n", Refusal::Version),
        ("PRI * HTTP/2.0\r\n", Refusal::Version),
        ("GET / HTTP/2\r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("GET / HTTP/1.x\r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", Refusal::Version),
        ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("GET / HTTP/1,1\r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("GET / ICY/1.1\r\nHost: a\r\n\r\n", Refusal::StartLine),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refusal::Version),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Method),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Method),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetForm),
        ("OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetForm),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetForm),
        ("GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetForm),
        ("GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetAuthority),
        ("GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetAuthority),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetAuthority),
        ("GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetAuthority),
        ("GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetAuthority),
        ("GET http://a/#b HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetOctet),
        ("GET http://a#b HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetOctet),
        ("GET http://a?b\" HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetOctet),
        ("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetForm),
        ("GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetForm),
        ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetOctet),
        ("GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetOctet),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetOctet),
        ("GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetOctet),
        ("GET /a|b HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetOctet),
        ("GET /\"a HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetOctet),
        ("GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Control),
        ("GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Control),
    ];
    for (text, refusal) in cases {
        assert_eq!(request(text), Err(*refusal), "{text:?}");
    }
    // Octets above ASCII in a target: which rule names them does not matter.
    assert!(request("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n").is_err());
}

#[test]
fn an_absolute_target_is_its_path() {
    for (target, path) in [
        ("http://a/v1/models?x=y", "/v1/models?x=y"),
        ("HTTPS://[::1]:8080/v1", "/v1"),
        ("http://a", "/"),
        ("http://a:80?x", "/"),
    ] {
        let text = format!("\r\nGET {target} HTTP/1.1\r\nHost: elsewhere\r\n\r\n");
        let head = request(&text).unwrap().unwrap();
        assert_eq!(head.target.of(text.as_bytes()), path.as_bytes(), "{target}");
    }
}

#[test]
fn a_wrong_request_line_is_told_before_the_head_ends() {
    for (line, refusal) in [
        ("GET / HTTP/2.0\r\n", Refusal::Version),
        ("GET /\r\n", Refusal::Version),
        ("GET example HTTP/1.1\r\n", Refusal::TargetForm),
        ("GET / HTTP/1.1\n", Refusal::BareLf),
    ] {
        assert_eq!(request(line), Err(refusal), "{line:?}");
        assert_eq!(request(&line[..line.len() - 1]), Ok(None), "{line:?}");
        assert_eq!(request_in_pieces(line.as_bytes(), &[1, 4, line.len() - 1]), Err(refusal));
    }
}

#[test]
fn fields_that_are_refused() {
    let cases: &[(&str, Refusal)] = &[
        ("A: b\n", Refusal::BareLf),
        ("A: b\rC: d\r\n", Refusal::BareCr),
        ("A: b\r\r\n", Refusal::BareCr),
        ("A: b\r\n c\r\n", Refusal::Folded),
        ("A: b\r\n\tc\r\n", Refusal::Folded),
        (" A: b\r\n", Refusal::Folded),
        ("A : b\r\n", Refusal::SpaceBeforeColon),
        ("A\t: b\r\n", Refusal::SpaceBeforeColon),
        ("Content-Length : 5\r\n", Refusal::SpaceBeforeColon),
        ("A b: c\r\n", Refusal::FieldName),
        (": b\r\n", Refusal::FieldName),
        ("A\r\n", Refusal::FieldName),
        ("A(: b\r\n", Refusal::FieldName),
        ("\u{e9}: b\r\n", Refusal::FieldName),
        ("A\0: b\r\n", Refusal::Control),
        ("A: \0\r\n", Refusal::Control),
        ("A: \x0b\r\n", Refusal::Control),
        ("A: \x1b[0m\r\n", Refusal::Control),
        ("A: \x7f\r\n", Refusal::Control),
        ("Host: a\r\n", Refusal::HostRepeated),
        ("host: b\r\n", Refusal::HostRepeated),
        ("Expect: 200-ok\r\n", Refusal::Expectation),
        ("Expect:\r\n", Refusal::Expectation),
        ("Expect: 100-continue\r\nExpect: 100-continue\r\n", Refusal::Expectation),
    ];
    for (lines, refusal) in cases {
        assert_eq!(request(&with_fields(lines)), Err(*refusal), "{lines:?}");
    }
    let many = "a: b\r\n".repeat(limits::HEAD_FIELDS_MAX);
    assert_eq!(request(&with_fields(&many)), Err(Refusal::TooManyFields));
    let just = "a: b\r\n".repeat(limits::HEAD_FIELDS_MAX - 1);
    assert!(request(&with_fields(&just)).is_ok());
}

#[test]
fn hosts_that_are_refused() {
    assert_eq!(request("GET / HTTP/1.1\r\n\r\n"), Err(Refusal::HostMissing));
    let bad = [
        "",
        "a b",
        "a,b",
        "a/b",
        "a@b",
        "http://a",
        "a:b",
        "a:123456",
        "a:1:2",
        ":80",
        "[::1",
        "a:65536",
        "a%2",
        "a%zz",
        "[]",
        "[::1]x",
        "[g]",
        "a?b",
        "a#b",
        "a\\b",
        "\"a\"",
        "::1",
        "[:]",
        "[1:2]",
        "[1::2::3]",
        "[1:2:3:4:5:6:7:8:9]",
        "[12345::]",
        "[127.0.0.1]",
        "[::1%25a]",
        "\u{e9}",
    ];
    for host in bad {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        // A comma is a legal sub-delimiter in a reg-name.
        let expected = if host == "a,b" { Ok(()) } else { Err(Refusal::HostMalformed) };
        assert_eq!(request(&text).map(|_| ()), expected, "{host:?}");
    }
}

#[test]
fn framing_that_is_refused() {
    let cases: &[(&str, Refusal)] = &[
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Refusal::LengthRepeated),
        ("Content-Length: 5\r\ncontent-length: 6\r\n", Refusal::LengthRepeated),
        ("Content-Length: 5, 5\r\n", Refusal::LengthRepeated),
        ("Content-Length: 5,\r\n", Refusal::LengthRepeated),
        ("Content-Length:\r\n", Refusal::LengthMalformed),
        ("Content-Length: +5\r\n", Refusal::LengthMalformed),
        ("Content-Length: -5\r\n", Refusal::LengthMalformed),
        ("Content-Length: 0x5\r\n", Refusal::LengthMalformed),
        ("Content-Length: 5 5\r\n", Refusal::LengthMalformed),
        ("Content-Length: 5.0\r\n", Refusal::LengthMalformed),
        ("Content-Length: 1_0\r\n", Refusal::LengthMalformed),
        ("Content-Length: \u{661}\r\n", Refusal::LengthMalformed),
        ("Content-Length: 9223372036854775808\r\n", Refusal::LengthMalformed),
        ("Content-Length: 99999999999999999999999\r\n", Refusal::LengthMalformed),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Refusal::LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", Refusal::LengthAndCoding),
        ("Content-Length: 5\r\nTransfer-Encoding:\r\n", Refusal::LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Refusal::CodingRepeated),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Refusal::CodingRepeated),
        ("Transfer-Encoding: gzip, chunked\r\n", Refusal::CodingUnknown),
        ("Transfer-Encoding: chunked, chunked\r\n", Refusal::CodingMalformed),
        ("Transfer-Encoding: chunked, identity\r\n", Refusal::CodingMalformed),
        ("Transfer-Encoding: ,chunked\r\n", Refusal::CodingMalformed),
        ("Transfer-Encoding: chunked;q=1\r\n", Refusal::CodingMalformed),
        ("Transfer-Encoding: \"chunked\"\r\n", Refusal::CodingMalformed),
        ("Transfer-Encoding: xchunked\r\n", Refusal::CodingMalformed),
        ("Transfer-Encoding: identity\r\n", Refusal::CodingMalformed),
        ("Transfer-Encoding:\r\n", Refusal::CodingMalformed),
        ("Transfer-Encoding: chunked, gzip, chunked\r\n", Refusal::CodingMalformed),
        ("Transfer-Encoding: g zip, chunked\r\n", Refusal::CodingMalformed),
        ("Transfer-Encoding: gzip;q=1, chunked\r\n", Refusal::CodingUnknown),
        ("Transfer-Encoding: \x0bchunked\r\n", Refusal::Control),
        ("Transfer-Encoding : chunked\r\n", Refusal::SpaceBeforeColon),
        ("Transfer-Encoding:\r\n chunked\r\n", Refusal::Folded),
    ];
    for (lines, refusal) in cases {
        assert_eq!(request(&with_fields(lines)), Err(*refusal), "{lines:?}");
        let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        assert_eq!(response(&text), Err(*refusal), "{text:?}");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(request(old), Err(Refusal::CodingInOldVersion));
    let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(response(old), Err(Refusal::CodingInOldVersion));
}

#[test]
fn responses_that_are_fine() {
    let cases: &[(&str, bool, u16, Framing, bool)] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false, 200, Framing::Length(3), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true, 200, Framing::None, true),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false, 200, Framing::Length(0), true),
        ("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", false, 200, Framing::Length(0), true),
        ("HTTP/1.1 200 caf\u{e9}\r\n\r\n", false, 200, Framing::UntilClose, false),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            false,
            200,
            Framing::Chunked,
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", false, 200, Framing::UntilClose, false),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n",
            false,
            200,
            Framing::UntilClose,
            false,
        ),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
            false,
            200,
            Framing::Length(1),
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nExpect: x\r\nHost: a\r\nHost: b\r\n\r\n",
            false,
            200,
            Framing::UntilClose,
            false,
        ),
        ("HTTP/1.1 100 Continue\r\n\r\n", false, 100, Framing::None, true),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", false, 103, Framing::None, true),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, 204, Framing::None, true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false, 304, Framing::None, true),
        (
            "HTTP/1.1 529 \r\nContent-Length: 9\r\nConnection: close\r\n\r\n",
            false,
            529,
            Framing::Length(9),
            false,
        ),
    ];
    for (text, to_head, status, framing, keep_alive) in cases {
        let head = parse_response(text.as_bytes(), MAX, *to_head)
            .unwrap_or_else(|r| panic!("{r:?}: {text:?}"))
            .unwrap();
        let got = (head.status, head.framing, head.keep_alive, head.len);
        assert_eq!(got, (*status, *framing, *keep_alive, text.len()), "{text:?}");
    }
}

#[test]
fn responses_that_are_refused() {
    let cases: &[(&str, Refusal)] = &[
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", Refusal::EmptyLines),
        ("<html>", Refusal::StartLine),
        ("HTTP/1.1200 OK\r\n\r\n", Refusal::Version),
        ("HTTP/1.1  200 OK\r\n\r\n", Refusal::Status),
        ("HTTP/1.1 20 OK\r\n\r\n", Refusal::Status),
        ("HTTP/1.1 2000 OK\r\n\r\n", Refusal::Status),
        ("HTTP/1.1 2x0 OK\r\n\r\n", Refusal::Status),
        ("HTTP/1.1 099 OK\r\n\r\n", Refusal::Status),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Refusal::Switched),
        ("HTTP/2 200 OK\r\n\r\n", Refusal::Version),
        ("HTTP/2.0 200 OK\r\n\r\n", Refusal::Version),
        ("HTTP/1.1 200 OK\n\n", Refusal::BareLf),
        ("HTTP/1.1 200 O\0K\r\n\r\n", Refusal::Control),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", Refusal::SpaceBeforeColon),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Refusal::Folded),
    ];
    for (text, refusal) in cases {
        assert_eq!(response(text), Err(*refusal), "{text:?}");
    }
}

#[test]
fn size_is_bounded() {
    let text = with_fields("A: b\r\n");
    let bytes = text.as_bytes();
    assert!(parse_request(bytes, bytes.len()).unwrap().is_some());
    assert_eq!(parse_request(bytes, bytes.len() - 1), Err(Refusal::TooLarge));
    assert_eq!(parse_request(&bytes[..30], 30), Err(Refusal::TooLarge));
    assert_eq!(parse_request(&bytes[..29], 30), Ok(None));
    assert_eq!(parse_request(&[b'a'; 30], 30), Err(Refusal::LineTooLong));
    for max in 0..8 {
        assert!(parse_request(bytes, max).is_err());
        assert!(parse_request(b"\r\nGET / HTTP/1.1\r\n", max).is_err());
    }
}

#[test]
fn every_refusal_has_a_text_and_a_status_for_clients() {
    for refusal in Refusal::ALL {
        assert!(matches!(refusal.status(), 400 | 414 | 417 | 431 | 501 | 505));
        assert!(!refusal.text().is_empty() && !refusal.text().ends_with('.'));
    }
}

/// Feeds `bytes` in pieces that end at `cuts`.
fn request_in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<Option<RequestHead>, Refusal> {
    let mut looked = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        if let Some(head) = parse_request_from(&bytes[..cut], &mut looked, MAX)? {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

fn response_in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<Option<ResponseHead>, Refusal> {
    let mut looked = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        if let Some(head) = parse_response_from(&bytes[..cut], &mut looked, MAX, false)? {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

/// Pieces of heads, good and bad, so that random concatenations are often nearly right.
fn head_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(&b"GET / HTTP/1.1\r\n"[..]),
        4 => Just(&b"HTTP/1.1 200 OK\r\n"[..]),
        4 => Just(&b"Host: a\r\n"[..]),
        2 => Just(&b"Content-Length: 5\r\n"[..]),
        2 => Just(&b"Transfer-Encoding: chunked\r\n"[..]),
        2 => Just(&b"A: b\r\n"[..]),
        3 => Just(&b"\r\n"[..]),
        1 => Just(&b"\n"[..]),
        1 => Just(&b"\r"[..]),
        1 => Just(&b" "[..]),
        1 => Just(&b":"[..]),
        1 => Just(&b"\0"[..]),
        1 => Just(&b"x"[..]),
    ];
    let start = prop_oneof![
        Just(&b"POST /v1 HTTP/1.1\r\nHost: a\r\n"[..]),
        Just(&b"HTTP/1.1 200 OK\r\n"[..]),
        Just(&b""[..]),
    ];
    (start, prop::collection::vec(piece, 0..10), prop::bool::ANY).prop_map(
        |(start, pieces, end)| {
            let mut bytes = start.to_vec();
            bytes.extend(pieces.concat());
            bytes.extend(if end { &b"\r\n\r\nbody"[..] } else { b"" });
            bytes
        },
    )
}

fn sorted_cuts(seeds: &[prop::sample::Index], len: usize) -> Vec<usize> {
    let mut cuts: Vec<_> = seeds.iter().map(|seed| seed.index(len + 1)).collect();
    cuts.sort_unstable();
    cuts
}

proptest! {
    #[test]
    fn cutting_changes_nothing(
        bytes in head_bytes(),
        seeds in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let cuts = sorted_cuts(&seeds, bytes.len());
        let all: Vec<_> = (0..bytes.len()).collect();
        let request = parse_request(&bytes, MAX);
        prop_assert_eq!(&request_in_pieces(&bytes, &cuts), &request);
        prop_assert_eq!(&request_in_pieces(&bytes, &all), &request);
        let response = parse_response(&bytes, MAX, false);
        prop_assert_eq!(&response_in_pieces(&bytes, &cuts), &response);
        prop_assert_eq!(&response_in_pieces(&bytes, &all), &response);
    }

    #[test]
    fn any_two_way_split_changes_nothing(bytes in head_bytes()) {
        let request = parse_request(&bytes, MAX);
        for cut in 0..bytes.len() {
            prop_assert_eq!(&request_in_pieces(&bytes, &[cut]), &request);
        }
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), max in 0_usize..200) {
        let _ = parse_request(&bytes, max);
        let _ = parse_response(&bytes, max, false);
    }

    /// What is accepted has no octet that could mean something else to another parser.
    #[test]
    fn accepted_heads_are_clean(bytes in head_bytes()) {
        if let Ok(Some(head)) = parse_request(&bytes, MAX) {
            let text = &bytes[..head.len];
            prop_assert!(text.ends_with(b"\r\n\r\n"));
            for (i, byte) in text.iter().enumerate() {
                prop_assert!(*byte != 0);
                prop_assert!(*byte != b'\n' || text[i - 1] == b'\r');
                prop_assert!(*byte != b'\r' || text[i + 1] == b'\n');
            }
            let hosts = head.fields_named(&bytes, b"host").count();
            let lengths = head.fields_named(&bytes, b"content-length").count();
            let codings = head.fields_named(&bytes, b"transfer-encoding").count();
            prop_assert!(hosts == 1 && lengths + codings <= 1);
        }
    }
    /// What is accepted, a parser that forgives more reads alike.
    #[test]
    fn httparse_finds_the_same(bytes in head_bytes()) {
        let found = |bytes: &[u8], headers: &[httparse::Header<'_>], fields: &Fields| {
            let ours: Vec<_> = fields.iter().map(|f| (f.name.of(bytes), f.value.of(bytes))).collect();
            let theirs: Vec<_> =
                headers.iter().map(|h| (h.name.as_bytes(), trim(h.value))).collect();
            ours == theirs
        };
        let mut slots = [httparse::EMPTY_HEADER; limits::HEAD_FIELDS_MAX];
        if let Ok(Some(head)) = parse_request(&bytes, MAX) {
            let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let start = blank + bytes[blank..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
            let parsed = httparse::parse_headers(&bytes[start..], &mut slots).unwrap();
            let httparse::Status::Complete((len, headers)) = parsed else { panic!("not whole") };
            prop_assert_eq!(start + len, head.len);
            prop_assert!(found(&bytes, headers, &head.fields));
        }
        if let Ok(Some(head)) = parse_response(&bytes, MAX, false) {
            let mut response = httparse::Response::new(&mut slots);
            let len = response.parse(&bytes).unwrap().unwrap();
            prop_assert_eq!((len, response.code), (head.len, Some(head.status)));
            prop_assert_eq!(response.version, Some(head.minor));
            prop_assert!(found(&bytes, response.headers, &head.fields));
        }
    }

    /// And a response that it refuses is refused here, too.
    #[test]
    fn a_status_line_is_what_httparse_takes(line in "HTTP/(1|1\\.[0-2]|2\\.0) ?[0-9]{2,4}( |\\t|  )?[a-zA-Z \u{e9}]{0,4}") {
        let text = format!("{line}\r\ncontent-length: 0\r\n\r\n");
        let mut slots = [httparse::EMPTY_HEADER; 4];
        let theirs = httparse::Response::new(&mut slots).parse(text.as_bytes()).is_ok();
        let known = [Refusal::Status, Refusal::Switched];
        match parse_response(text.as_bytes(), MAX, false) {
            Ok(head) => prop_assert!(theirs && head.is_some(), "{line}"),
            // A status below 100 and 101 are ours to refuse.
            Err(refusal) => prop_assert!(!theirs || known.contains(&refusal), "{line}"),
        }
    }
}
