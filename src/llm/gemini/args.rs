//! Arguments of a call that arrive as values at paths, put together to the one object that they mean.
//!
//! ```text
//!   {"jsonPath":"$.stops[0].city","stringValue":"Par","willContinue":true}
//!   {"jsonPath":"$.stops[0].city","stringValue":"is"}                   ->  {"stops":[{"city":"Paris"}]}
//! ```
//!
//! A value that has no place (a path of another grammar, a step into what is no container) is an error
//! and never left out: a call with an argument missing is worse than none. Paths have bounded depth, and
//! the whole has bounded size.

use std::borrow::Cow;

use serde_json::{Map, Value as Tree};

use crate::base::fail::Fault;
use crate::base::limits;
use crate::wire::json::{self, Kind, Value};

/// What is known of one call's arguments.
pub struct Arguments {
    tree: Tree,
    /// Bytes that may still be added, by a generous count.
    room: usize,
}

/// One step of a path.
enum Step<'a> {
    Key(Cow<'a, str>),
    Item(usize),
}

impl Arguments {
    /// Begins with the object that came with the call's name, if one did.
    ///
    /// # Errors
    /// `BadFrame`: no JSON that can be kept.
    pub fn new(bytes: &[u8], begun: Option<Value>) -> Result<Arguments, Fault> {
        let tree = match begun.filter(|begun| begun.kind == Kind::Object) {
            None => Tree::Object(Map::new()),
            Some(begun) => serde_json::from_slice(begun.raw(bytes)).map_err(|_| Fault::BadFrame)?,
        };
        Ok(Arguments { tree, room: limits::FRAME_BYTES_MAX })
    }

    /// Puts one value where its `jsonPath` says. Pieces of a string are joined. What names no path says
    /// nothing.
    ///
    /// # Errors
    /// `BadFrame`: the value has no place; `FrameTooLarge`: there is too much of it.
    pub fn place(&mut self, bytes: &[u8], piece: Value) -> Result<(), Fault> {
        let path = json::get(bytes, piece, "jsonPath").and_then(|path| json::text(bytes, path));
        let Some(path) = path else { return Ok(()) };
        let mut rest = path.strip_prefix('$').ok_or(Fault::BadFrame)?;
        let mut slot = &mut self.tree;
        let mut steps = 0;
        while let Some((step, after)) = next_step(rest)? {
            steps += 1;
            if steps > STEPS_MAX {
                return Err(Fault::BadFrame);
            }
            slot = enter(slot, &step, &mut self.room)?;
            rest = after;
        }
        if steps == 0 || slot.is_object() || slot.is_array() {
            return Err(Fault::BadFrame);
        }
        set(slot, bytes, piece, &mut self.room)
    }

    /// The object as JSON text.
    pub fn text(&self) -> String {
        self.tree.to_string()
    }
}

/// The slot that a step leads to, made if it is new.
fn enter<'t>(slot: &'t mut Tree, step: &Step<'_>, room: &mut usize) -> Result<&'t mut Tree, Fault> {
    match step {
        Step::Key(key) => {
            if slot.is_null() {
                *slot = Tree::Object(Map::new());
            }
            let object = slot.as_object_mut().ok_or(Fault::BadFrame)?;
            if !object.contains_key(key.as_ref()) {
                spend(room, NODE_BYTES + key.len())?;
            }
            Ok(object.entry(key.as_ref()).or_insert(Tree::Null))
        }
        Step::Item(index) => {
            if slot.is_null() {
                *slot = Tree::Array(Vec::new());
            }
            let list = slot.as_array_mut().ok_or(Fault::BadFrame)?;
            if *index >= list.len() {
                spend(room, (index - list.len()).saturating_add(1).saturating_mul(NODE_BYTES))?;
                list.resize(index + 1, Tree::Null);
            }
            list.get_mut(*index).ok_or(Fault::BadFrame)
        }
    }
}

/// Writes a piece's value over a scalar.
fn set(slot: &mut Tree, bytes: &[u8], piece: Value, room: &mut usize) -> Result<(), Fault> {
    let value = |name: &str| json::get(bytes, piece, name);
    if let Some(text) = value("stringValue").and_then(|text| json::text(bytes, text)) {
        spend(room, text.len())?;
        match slot {
            Tree::String(known) => known.push_str(&text),
            other => *other = Tree::String(text.into_owned()),
        }
    } else if let Some(number) = value("numberValue").or_else(|| value("boolValue")) {
        *slot = serde_json::from_slice(number.raw(bytes)).map_err(|_| Fault::BadFrame)?;
        if slot.is_object() || slot.is_array() {
            return Err(Fault::BadFrame);
        }
    } else if value("nullValue").is_some() {
        *slot = Tree::Null;
    }
    Ok(())
}

fn spend(room: &mut usize, bytes: usize) -> Result<(), Fault> {
    *room = room.checked_sub(bytes).ok_or(Fault::FrameTooLarge)?;
    Ok(())
}

/// The first step of a path behind its `$`, and what follows: `.name`, `[7]`, `['na.me']`, `["na.me"]`.
fn next_step(path: &str) -> Result<Option<(Step<'_>, &str)>, Fault> {
    if path.is_empty() {
        return Ok(None);
    }
    if let Some(rest) = path.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (key, rest) = rest.split_at(end);
        return if key.is_empty() {
            Err(Fault::BadFrame)
        } else {
            Ok(Some((Step::Key(Cow::Borrowed(key)), rest)))
        };
    }
    let inside = path.strip_prefix('[').ok_or(Fault::BadFrame)?;
    if let Some(quote) = inside.chars().next().filter(|quote| matches!(quote, '\'' | '"')) {
        let (key, rest) = quoted(&inside[1..], quote).ok_or(Fault::BadFrame)?;
        let rest = rest.strip_prefix(']').ok_or(Fault::BadFrame)?;
        return Ok(Some((Step::Key(key), rest)));
    }
    let (digits, rest) = inside.split_once(']').ok_or(Fault::BadFrame)?;
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    let index = digits.parse().ok().filter(|_| plain).ok_or(Fault::BadFrame)?;
    Ok(Some((Step::Item(index), rest)))
}

/// A name up to its closing quote, and what follows; a backslash takes the next character as it is.
fn quoted(text: &str, quote: char) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find([quote, '\\'])?;
    if text[end..].starts_with(quote) {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut key = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '\\' => key.push(chars.next()?),
            end if end == quote => return Some((Cow::Owned(key), chars.as_str())),
            other => key.push(other),
        }
    }
}

/// Steps of a path: deeper than any schema that a model is given.
const STEPS_MAX: usize = 64;
/// What an entry of a container is counted as, at least.
const NODE_BYTES: usize = 64;
