//! Recordings cut short and damaged: what goes out stays in its dialect, and what ends early is no good end
//! that says less. `DAMAGE=200` cuts and damages each one so often in each dialect.

use firstbyte::app::translate::{Order, Translated, known, surface_in, translate};
use firstbyte::base::rng::Rng;
use firstbyte::llm::dialects::Dialect;
use serde_json::Value;

use crate::framed::answer;
use crate::{body, folder, rows};

/// An older Gemini gave each event of a stream a reason to end: each could be the last.
const EACH_ENDS: &[&str] = &[
    "gemini/gemini-generate/genjs-streaming-unknown-enum.sse",
    "vertex/gemini-generate/firebase-streaming-failure-recitation-no-content.sse",
];

#[test]
fn what_was_recorded_and_damaged_stays_in_the_dialect() {
    let Some(folder) = folder() else { return };
    let often = std::env::var("DAMAGE").ok().and_then(|often| often.parse().ok()).unwrap_or(3);
    let only = std::env::var("RECORDED").ok();
    let mut rng = Rng::new(0x00d1_ce00);
    let mut wrong = Vec::new();
    for row in rows(&folder, "INDEX.jsonl") {
        let file = row["file"].as_str().unwrap();
        let (provider, api) = (row["provider"].as_str().unwrap(), row["api"].as_str().unwrap());
        let (Some((kind, surface)), Some(bytes)) = (known(provider, api), body(&folder, &row))
        else {
            continue;
        };
        if bytes.is_empty() || only.as_deref().is_some_and(|o| !file.starts_with(o)) {
            continue;
        }
        let status = row["status"].as_u64().unwrap() as u16;
        let stream = row["stream"] == true && status == 200;
        for dialect in [Dialect::Chat, Dialect::Messages, Dialect::Responses] {
            let Some(surface) = surface_in(surface, dialect) else { continue };
            let order = Order { kind, surface, stream, status };
            let whole = translate(&order, [bytes.as_slice()]);
            let mut complain =
                |what: String| wrong.push(format!("{file} {}: {what}", dialect.name()));
            for at in cuts(&bytes, stream, often, &mut rng) {
                let got = translate(&order, [&bytes[..at]]);
                if let Err(why) = valid(&got, stream) {
                    complain(format!("ends at {at}: {why}"));
                }
                let may = EACH_ENDS.contains(&file) || !got.good || !whole.good;
                if !may && stream && answer(&got.body) != answer(&whole.body) {
                    complain(format!("ends at {at}: a good end that says less"));
                }
                if got.good && !stream && !bytes[at..].trim_ascii().is_empty() {
                    complain(format!("ends at {at}: a good end of a cut body"));
                }
            }
            for _ in 0..often {
                let mut damaged = bytes.clone();
                let at = rng.below(bytes.len() as u32) as usize;
                damaged[at] = rng.below(256) as u8;
                let got = translate(&order, [damaged.as_slice()]);
                if let Err(why) = valid(&got, stream) {
                    complain(format!("{:#04x} at {at}: {why}", damaged[at]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Some ends of events, and some of bytes.
fn cuts(bytes: &[u8], stream: bool, often: u64, rng: &mut Rng) -> Vec<usize> {
    let mut cuts: Vec<usize> = (0..often).map(|_| rng.below(bytes.len() as u32) as usize).collect();
    if stream {
        let ends = (1..bytes.len()).filter(|at| bytes[..*at].ends_with(b"\n\n"));
        let ends: Vec<usize> = ends.collect();
        cuts.extend(ends.iter().step_by(1 + ends.len() / (4 * often as usize)));
        cuts.extend(ends.iter().rev().take(3));
    }
    cuts
}

/// Whether a client of any dialect could read it.
fn valid(got: &Translated, stream: bool) -> Result<(), String> {
    let text = std::str::from_utf8(&got.body).map_err(|why| why.to_string())?;
    let json = |text: &str| {
        match serde_json::from_str::<Value>(text) {
            // Too many digits are JSON all the same.
            Err(why) if !why.to_string().contains("out of range") => {
                Err(format!("{why}: {text:.200}"))
            }
            _ => Ok(()),
        }
    };
    if !stream || text.starts_with('{') {
        return json(text);
    }
    if !text.ends_with("\n\n") {
        return Err(String::from("the last event has no end"));
    }
    for line in text.lines().filter(|line| !line.starts_with(':')) {
        match line.split_once(": ").unwrap_or((line, "")) {
            ("", _) | ("event", _) | ("data", "[DONE]") => {}
            ("data", data) => json(data)?,
            _ => return Err(format!("no field: {line:.200}")),
        }
    }
    Ok(())
}
