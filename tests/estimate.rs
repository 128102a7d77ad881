//! The estimate of a prompt's tokens against what providers counted, over recorded requests beside the
//! checkout (`../shared/fixtures`). Says plainly that it was skipped where they are not.
//!
//! `cargo test --test estimate -- --nocapture` prints the spread.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what is wrong by failing"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use firstbyte::llm::demand::{self, Demand};
use firstbyte::wire::json::{self, Top};
use serde_json::Value;

fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures");
    if folder.join("EXPECT.jsonl").exists() {
        return Some(folder);
    }
    eprintln!("SKIPPED: there are no recordings at ../shared/fixtures");
    None
}

fn rows(folder: &Path, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn demand(body: &[u8]) -> Option<Demand> {
    let mut members = Top::new();
    json::document_with_top(body, &mut members).ok()?;
    Some(demand::read(body, &members))
}

/// APIs whose requests are of a dialect that clients speak.
const SPOKEN: &[&str] =
    &["openai-chat", "anthropic-messages", "openai-responses", "openai-completions"];

/// Whether something other than the request's text and tools was counted: a tool of the provider's own
/// that reads the web, an earlier answer that it keeps, a file that it holds.
fn counts_more(body: &str, features: &[Value]) -> bool {
    let words = [
        "previous_response_id",
        "file_id",
        "web_search",
        "code_execution",
        "mcp",
        "skills",
        "plugins",
        "compound",
        "advisor",
        "\"models\"",
    ];
    words.iter().any(|word| body.contains(word))
        || features.iter().any(|feature| feature == "builtin_tools")
}

#[test]
fn the_estimate_is_within_its_bounds() {
    let Some(folder) = folder() else { return };
    let counted: BTreeMap<String, u64> = rows(&folder, "EXPECT.jsonl")
        .iter()
        .filter_map(|row| {
            let prompt = row["usage"]["prompt"].as_u64().filter(|count| *count > 0)?;
            Some((row["file"].as_str()?.to_owned(), prompt))
        })
        .collect();
    let (mut seen, mut outside, mut media) = (Vec::new(), Vec::new(), 0);
    for row in rows(&folder, "INDEX.jsonl") {
        let Some(real) = counted.get(row["file"].as_str().unwrap()) else { continue };
        let (Some(file), true) = (
            row["request_file"].as_str(),
            SPOKEN.contains(&row["api"].as_str().unwrap()) && row["synthetic"] != true,
        ) else {
            continue;
        };
        let Ok(body) = std::fs::read(folder.join(file)) else { continue };
        let text = String::from_utf8_lossy(&body);
        if row["request_elided"] == true || counts_more(&text, row["features"].as_array().unwrap())
        {
            continue;
        }
        let Some(demand) = demand(&body) else { continue };
        if demand.media > 0 {
            media += 1;
            continue;
        }
        let within = (u64::from(demand.least())..=u64::from(demand.most())).contains(real);
        let line = format!(
            "{real:>7} counted, {:>7} estimated ({}..{}), {}",
            demand.prompt,
            demand.least(),
            demand.most(),
            row["file"].as_str().unwrap()
        );
        println!("{line}");
        if !within {
            outside.push(line);
        }
        seen.push(f64::from(demand.prompt) / *real as f64);
    }
    seen.sort_by(f64::total_cmp);
    let at = |share: f64| seen[((seen.len() - 1) as f64 * share) as usize];
    println!(
        "{} prompts of text: estimate / count p5 {:.2} p50 {:.2} p95 {:.2}; {media} with media left out",
        seen.len(),
        at(0.05),
        at(0.5),
        at(0.95)
    );
    assert!(seen.len() > 60, "{} prompts are no sample", seen.len());
    assert!(outside.is_empty(), "{} outside:\n{}", outside.len(), outside.join("\n"));
}
