//! The overridable settings: `[defaults]` and the same keys of a provider, model, target or route.

use toml::de::DeValue;

use super::raw::{self, Node, Reader, Section};
use super::text::{self, Wrong};
use super::values::{BreakerRule, BudgetRule, Commit, Hedge, OnContentPolicy, Patch, Patience};
use crate::base::limits;

/// Where a setting stands, which decides whether it may stand there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Level {
    Defaults,
    Provider,
    Model,
    Target,
    Route,
}

/// Takes every setting out of a section.
pub(super) fn patch(reader: &mut Reader<'_>, section: &mut Section<'_>, level: Level) -> Patch {
    let mut patch = Patch::default();
    if let Some(node) = section.take("commit") {
        patch.commit = commit(reader, &node);
    }
    let most = limits::ANSWER_BYTES_MAX * 8;
    patch.hold_max = section.take("hold_max").and_then(|node| reader.size(&node, 0, most));
    patch.answer_max = section.take("answer_max").and_then(|node| reader.size(&node, 1024, most));
    times(reader, section, &mut patch);
    if let Some(node) = section.take("throughput_floor") {
        patch.throughput_floor = reader.integer(&node, 0, 1_000_000);
    }
    if let Some(node) = section.take("on_content_policy") {
        let names = [("return", OnContentPolicy::Return), ("next", OnContentPolicy::Next)];
        patch.on_content_policy = reader.choice(&node, &names);
    }
    if let Some(node) = section.take("breaker") {
        patch.breaker = breaker(reader, node);
    }
    if let Some(node) = section.take("retry_budget") {
        match level {
            Level::Defaults | Level::Provider => patch.retry_budget = budget(reader, node),
            Level::Model | Level::Target | Level::Route => {
                let hint = "a budget belongs to a provider: set it there or in [defaults]";
                reader.wrong(&node.place, Wrong::new("retry_budget can't stand here", hint));
            }
        }
    }
    patch.replay = section.take("replay").and_then(|node| reader.boolean(&node));
    patch
}

fn times(reader: &mut Reader<'_>, section: &mut Section<'_>, patch: &mut Patch) {
    if let Some(node) = section.take("open_after") {
        patch.open_after = reader.duration_or_off(&node);
    }
    if let Some(node) = section.take("hedge_after") {
        patch.hedge_after = hedge_after(reader, &node);
    }
    if let Some(node) = section.take("first_content_timeout") {
        patch.first_content_timeout = patience(reader, &node);
    }
    for (key, time) in [
        ("connect_timeout", &mut patch.connect_timeout),
        ("head_timeout", &mut patch.head_timeout),
        ("idle_timeout", &mut patch.idle_timeout),
        ("answer_timeout", &mut patch.answer_timeout),
        ("first_content_deadline", &mut patch.first_content_deadline),
        ("total_timeout", &mut patch.total_timeout),
    ] {
        *time = section.take(key).and_then(|node| reader.duration(&node));
    }
}

/// A time, a percentile as `p95`, or `"off"`.
fn hedge_after(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Option<Hedge>> {
    if let DeValue::String(word) = node.value
        && let Some(digits) = word.strip_prefix('p')
        && digits.bytes().all(|b| b.is_ascii_digit())
    {
        let percent = digits.parse::<u8>().ok().filter(|percent| (1..=99).contains(percent));
        if percent.is_none() {
            let hint = "write \"p95\", or a time as in \"2s\", or \"off\"";
            reader.wrong(&node.place, Wrong::new("a percentile is from p1 to p99", hint));
        }
        return percent.map(|percent| Some(Hedge::Percentile(percent)));
    }
    reader.duration_or_off(node).map(|time| time.map(Hedge::After))
}

/// A time, or `"auto"`.
fn patience(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Patience> {
    match node.value {
        DeValue::String(word) if word == "auto" => Some(Patience::Auto),
        _ => reader.duration(node).map(Patience::For),
    }
}

/// One of the text forms, or `{ tokens = 8, within = "500ms" }`.
fn commit(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Commit> {
    if let DeValue::Table(_) = node.value {
        let mut section = reader.section(node.clone(), &[raw::COMMIT])?;
        let (tokens, within) = (section.take("tokens"), section.take("within"));
        if tokens.is_none() || within.is_none() {
            let hint = "as in { tokens = 8, within = \"500ms\" }";
            reader.wrong(&node.place, Wrong::new("tokens and within are both needed", hint));
        }
        let count = tokens.and_then(|node| reader.integer(&node, 1, u32::from(u16::MAX)));
        let within = within.and_then(|node| reader.duration(&node));
        return Some(Commit::Tokens { count: count? as u16, within: within? });
    }
    let value = reader.string(node, text::COMMIT_FORMS)?;
    let wrong = |hint| Wrong::new(format!("unknown commit policy {value:?}"), hint);
    text::commit(value).map_err(|hint| reader.wrong(&node.place, wrong(hint))).ok()
}

/// A table over the built-in rule, or `"off"`.
fn breaker(reader: &mut Reader<'_>, node: Node<'_>) -> Option<Option<BreakerRule>> {
    match node.value {
        DeValue::String(word) if word == "off" => return Some(None),
        DeValue::String(_) => {
            let hint = "write \"off\" or { failures = 5, error_rate = 0.5, .. }";
            reader.wrong(&node.place, Wrong::new("unknown value", hint));
            return None;
        }
        _ => {}
    }
    let mut section = reader.section(node, &[raw::BREAKER])?;
    let usual = BreakerRule::default();
    let failures = section.take("failures").and_then(|node| reader.integer(&node, 1, 1_000_000));
    let error_rate = section.take("error_rate").and_then(|node| reader.share(&node, false));
    let window = section.take("window").and_then(|node| reader.duration(&node));
    let open = section.take("open").and_then(|node| reader.duration(&node));
    Some(Some(BreakerRule {
        failures: failures.unwrap_or(usual.failures),
        error_rate: error_rate.unwrap_or(usual.error_rate),
        window: window.unwrap_or(usual.window),
        open: open.unwrap_or(usual.open),
    }))
}

/// A table over the built-in rule.
fn budget(reader: &mut Reader<'_>, node: Node<'_>) -> Option<BudgetRule> {
    let mut section = reader.section(node, &[raw::BUDGET])?;
    let usual = BudgetRule::default();
    let ratio = section.take("ratio").and_then(|node| reader.share(&node, true));
    let floor = section.take("floor").and_then(|node| reader.integer(&node, 0, 1_000_000));
    let window = section.take("window").and_then(|node| reader.duration(&node));
    Some(BudgetRule {
        ratio: ratio.unwrap_or(usual.ratio),
        floor: floor.unwrap_or(usual.floor),
        window: window.unwrap_or(usual.window),
    })
}
