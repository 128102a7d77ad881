use super::*;
use crate::app::sandbox::ask::Ask;
use crate::app::sandbox::script::Script;

fn act(script: &str, stream: bool, reused: bool) -> Act {
    let ask = Ask {
        api: Api::Chat,
        model: "ok".into(),
        stream,
        usage: false,
        n: 1,
        tools: Vec::new(),
        inputs: Vec::new(),
        base64: false,
        prompt_tokens: 1,
    };
    let script = Script::parse(script).expect("a script");
    let answer =
        Answer { name: "b".into(), id: "id-1".into(), created: 7, ask, script, stretch: None };
    Act::new(answer, reused)
}

/// All writes of an act, its pauses, and its last step.
fn play(script: &str, stream: bool) -> (Vec<String>, Vec<Ms>, Step) {
    let mut act = act(script, stream, false);
    let (mut writes, mut pauses) = (Vec::new(), Vec::new());
    loop {
        let mut out = Buf::new();
        match act.next(&mut out) {
            Step::Write => {
                assert!(!out.is_empty());
                writes.push(String::from_utf8_lossy(out.as_slice()).into_owned());
            }
            Step::Pause(pause) => pauses.push(pause),
            last @ (Step::Hang | Step::End(_) | Step::Done) => {
                return (writes, pauses, last);
            }
        }
    }
}

fn streamed(script: &str) -> (Vec<String>, Step) {
    let (writes, _, last) = play(script, true);
    (writes, last)
}

#[test]
fn a_stream_is_a_head_then_a_chunk_for_each_event_then_the_end() {
    let (writes, last) = streamed("ok,tokens=2");
    assert_eq!((writes.len(), last), (1 + 1 + 2 + 1 + 1 + 1, Step::Done));
    assert!(writes[0].starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"));
    assert!(writes[0].contains("transfer-encoding: chunked\r\n"));
    for chunk in &writes[1..6] {
        let (size, rest) = chunk.split_once("\r\n").expect("a chunk");
        let size = usize::from_str_radix(size, 16).expect("hex");
        let body = &rest[..size];
        assert!(body.starts_with("data: ") && body.ends_with("\n\n"), "{body}");
        assert_eq!(&rest[size..], "\r\n");
    }
    assert_eq!(writes[6], "0\r\n\r\n");
}

#[test]
fn a_cut_at_each_byte_gives_that_prefix() {
    let whole = streamed("ok,tokens=1").0.concat();
    for cut in 0..=whole.len() {
        for (how, end) in [("fin", How::Fin), ("rst", How::Rst)] {
            let (writes, last) = streamed(&format!("tokens=1,cut_byte={cut},how={how}"));
            assert_eq!((writes.concat().as_str(), last), (&whole[..cut], Step::End(end)), "{cut}");
        }
    }
    let past = whole.len() + 1;
    assert_eq!(streamed(&format!("tokens=1,cut_byte={past}")).1, Step::Done);
}

#[test]
fn a_split_at_each_byte_loses_nothing() {
    let whole = streamed("ok,tokens=1,at_once").0;
    for split in 1..whole[0].len() {
        let (writes, last) = streamed(&format!("tokens=1,at_once,split={split}"));
        assert_eq!(writes[0].len(), split);
        assert_eq!((writes.concat(), last), (whole.concat(), Step::Done), "{split}");
    }
}

#[test]
fn a_drip_is_single_bytes() {
    let (writes, pauses, last) = play("drip=1ms,tokens=1", true);
    assert!(writes.iter().all(|write| write.len() == 1));
    assert_eq!((pauses.len(), last), (writes.len(), Step::Done));
    assert_eq!(writes.concat(), streamed("tokens=1").0.concat());
}

#[test]
fn events_are_counted_from_one() {
    // Head and role event, then the second event takes the place of the first content.
    let third = |script: &str| streamed(script).0[2].clone();
    assert!(third("error_at=2").contains(r#""error":{"message""#), "{}", third("error_at=2"));
    assert_eq!(streamed("error_at=2").0.len(), 4, "nothing but the body's end follows");
    assert!(third("malformed_at=2").len() < third("ok").len());
    assert!(third("giant_at=2,size=64KiB").len() > 64 * 1024);
    assert!(third("bad_chunk_at=2").starts_with("zz\r\n"));
    assert_eq!(streamed("cut_event=2"), (streamed("ok").0[..3].to_vec(), Step::End(How::Fin)));
    assert_eq!(streamed("reset,event=2").0.len(), 3);
    let (writes, last) = streamed("hang,event=1");
    assert_eq!((writes.len(), last), (2, Step::Hang));
}

#[test]
fn heads_can_be_left_out_or_wrong() {
    let cases = [
        ("reset", "", Step::End(How::Rst)),
        ("hang", "", Step::Hang),
        ("garbage", "\u{15}\u{3}", Step::End(How::Fin)),
        ("redirect", "HTTP/1.1 307 ", Step::Done),
        ("html_502", "HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html", Step::Done),
        ("429,retry_after=1500ms", "HTTP/1.1 429 Too Many Requests\r\n", Step::Done),
        (
            "early_100=2",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200",
            Step::Done,
        ),
        ("two_lengths", "HTTP/1.1 200 OK\r\n", Step::Done),
        ("close_after=rst", "HTTP/1.1 200 OK\r\n", Step::End(How::Rst)),
        ("framing=close", "HTTP/1.1 200 OK\r\n", Step::End(How::Fin)),
    ];
    for (script, start, last) in cases {
        for stream in [false, true] {
            let (writes, _, found) = play(script, stream);
            let text = writes.concat();
            assert!(text.starts_with(start), "{script}: {text}");
            assert_eq!(found, last, "{script}");
        }
    }
    let limited = streamed("429,retry_after=1500ms").0.concat();
    assert!(limited.contains("retry-after: 2\r\n") && limited.contains("retry-after-ms: 1500\r\n"));
    assert_eq!(streamed("two_lengths").0.concat().matches("content-length:").count(), 2);
}

#[test]
fn a_reused_connection_is_told_from_a_fresh_one() {
    let mut out = Buf::new();
    assert_eq!(act("reset_reused", true, true).next(&mut out), Step::End(How::Rst));
    assert_eq!(act("reset_reused", true, false).next(&mut out), Step::Write);
}

#[test]
fn whole_answers_bend_too() {
    let body = |script: &str| {
        let (writes, _, last) = play(script, false);
        let text = writes.concat();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        (head.to_owned(), body.to_owned(), last)
    };
    let (head, whole, last) = body("ok");
    assert!(head.contains(&format!("content-length: {}", whole.len())));
    assert_eq!(last, Step::Done);
    assert!(serde_json::from_str::<serde_json::Value>(&whole).is_ok());
    let (head, broken, _) = body("malformed_at=1");
    assert!(head.contains(&format!("content-length: {}", broken.len())));
    assert!(serde_json::from_str::<serde_json::Value>(&broken).is_err());
    let (head, half, last) = body("cut_event=1,how=rst");
    assert!(head.contains(&format!("content-length: {}", whole.len())));
    assert_eq!((half.len(), last), (whole.len() / 2, Step::End(How::Rst)));
    assert_eq!(body("empty").1, "");
    assert!(body("framing=chunked").1.ends_with("0\r\n\r\n"));
    assert!(body("error_first").1.starts_with(r#"{"error""#));
}

#[test]
fn pauses_come_where_they_are_asked_for() {
    let (writes, pauses, _) = play("ok,tokens=2,delay=10ms,slow_head=200ms", true);
    // Role, two texts, finish, done: each but the first is delayed.
    assert_eq!(pauses, [Ms(200), Ms(10), Ms(10), Ms(10), Ms(10)]);
    assert_eq!(writes.len(), 7);
    assert!(streamed("crlf").0[1].contains("\r\n\r\n\r\n"));
}

#[test]
fn comments_come_while_it_hangs_in_the_framing_of_the_body() {
    for (script, comment) in [
        ("hang,event=1,ping=5ms", "8\r\n: ping\n\n\r\n"),
        ("hang,event=1,ping=5ms,framing=close", ": ping\n\n"),
        ("hang,event=1,ping=5ms,at_once", "8\r\n: ping\n\n\r\n"),
    ] {
        let mut act = act(script, true, false);
        let mut steps = Vec::new();
        while steps.len() < 8 {
            let mut out = Buf::new();
            let step = act.next(&mut out);
            steps.push((step, String::from_utf8_lossy(out.as_slice()).into_owned()));
        }
        let tail = &steps[4..];
        assert_eq!(tail.iter().filter(|(step, _)| *step == Step::Pause(Ms(5))).count(), 2);
        assert_eq!(tail.iter().filter(|(_, out)| out == comment).count(), 2, "{script}");
    }
}

#[test]
fn a_counted_stream_tells_its_length_and_can_be_cut() {
    let (writes, last) = streamed("framing=length,tokens=3,crlf");
    let text = writes.concat();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    assert_eq!((body.matches("data: ").count(), last), (6, Step::Done));
    let (cut, last) = streamed("framing=length,tokens=3,crlf,cut_event=2");
    assert_eq!((cut.as_slice(), last), (&writes[..3], Step::End(How::Fin)));
}
