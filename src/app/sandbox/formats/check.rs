//! What requests are checked with: a place in a JSON document that knows its path, so that a refusal can
//! name the field at fault as the vendors do.

use std::fmt::Display;

use serde_json::Value;

use crate::app::sandbox::ask::Refusal;

/// The outcome of a check.
pub type Checked<T = ()> = Result<T, Refusal>;

/// A refusal as 400.
pub fn wrong<T>(message: impl Display) -> Checked<T> {
    Err(Refusal { status: 400, message: message.to_string(), param: None })
}

/// A refusal as 401.
pub fn denied<T>(message: impl Display) -> Checked<T> {
    Err(Refusal { status: 401, message: message.to_string(), param: None })
}

/// A value and where it stands.
#[derive(Clone)]
pub struct Spot<'a> {
    /// The value.
    pub value: &'a Value,
    at: String,
}

impl<'a> Spot<'a> {
    /// The document.
    pub fn top(value: &'a Value) -> Spot<'a> {
        Spot { value, at: String::new() }
    }

    /// A refusal of this value.
    pub fn wrong<T>(&self, why: impl Display) -> Checked<T> {
        if self.at.is_empty() { wrong(why) } else { wrong(format!("{}: {why}", self.at)) }
    }

    /// The field of that name; null is none.
    pub fn get(&self, name: &str) -> Option<Spot<'a>> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        let dot = if self.at.is_empty() { "" } else { "." };
        Some(Spot { value, at: format!("{}{dot}{name}", self.at) })
    }

    /// The field of that name, which must be there.
    pub fn need(&self, name: &str) -> Checked<Spot<'a>> {
        match self.get(name) {
            Some(spot) => Ok(spot),
            None => self.wrong(format_args!("{name}: Field required")),
        }
    }

    /// The first of these fields that is there.
    pub fn either(&self, names: &[&str]) -> Option<Spot<'a>> {
        names.iter().find_map(|name| self.get(name))
    }

    /// It is an object with no other fields than these.
    pub fn only(&self, names: &[&str]) -> Checked {
        let Some(object) = self.value.as_object() else {
            return self.wrong("Input should be an object");
        };
        match object.keys().find(|key| !names.contains(&key.as_str())) {
            Some(key) => self.wrong(format_args!("{key}: Extra inputs are not permitted")),
            None => Ok(()),
        }
    }

    /// It is an object.
    pub fn object(&self) -> Checked {
        if self.value.is_object() { Ok(()) } else { self.wrong("Input should be an object") }
    }

    /// It is a text.
    pub fn text(&self) -> Checked<&'a str> {
        match self.value.as_str() {
            Some(text) => Ok(text),
            None => self.wrong("Input should be a valid string"),
        }
    }

    /// It is a text that is more than blank.
    pub fn words(&self) -> Checked<&'a str> {
        let text = self.text()?;
        if text.trim().is_empty() {
            return self.wrong("text must contain non-whitespace text");
        }
        Ok(text)
    }

    /// It is one of these words.
    pub fn one_of(&self, words: &[&str]) -> Checked<&'a str> {
        let text = self.text()?;
        if words.contains(&text) {
            return Ok(text);
        }
        self.wrong(format_args!("`{text}` is none of {}", words.join(", ")))
    }

    /// It is a list.
    pub fn list(&self) -> Checked<Vec<Spot<'a>>> {
        let Some(list) = self.value.as_array() else {
            return self.wrong("Input should be a valid list");
        };
        let spot = |(i, value)| Spot { value, at: format!("{}.{i}", self.at) };
        Ok(list.iter().enumerate().map(spot).collect())
    }

    /// It is a list with something in it.
    pub fn filled(&self) -> Checked<Vec<Spot<'a>>> {
        let list = self.list()?;
        if list.is_empty() { self.wrong("at least one item is required") } else { Ok(list) }
    }

    /// It is a number of that range.
    pub fn number(&self, low: f64, high: f64) -> Checked<f64> {
        match self.value.as_f64() {
            Some(number) if (low..=high).contains(&number) => Ok(number),
            Some(_) => self.wrong(format_args!("range: {low} to {high}")),
            None => self.wrong("Input should be a valid number"),
        }
    }

    /// It is a whole number of at least `low`.
    pub fn whole(&self, low: u64) -> Checked<u64> {
        match self.value.as_u64() {
            Some(number) if number >= low => Ok(number),
            _ => self.wrong(format_args!("Input should be an integer of at least {low}")),
        }
    }

    /// It is true or false.
    pub fn flag(&self) -> Checked<bool> {
        match self.value.as_bool() {
            Some(flag) => Ok(flag),
            None => self.wrong("Input should be a valid boolean"),
        }
    }

    /// It is a name of 1 to `most` letters, digits, `_`, `-` and `extra`.
    pub fn name(&self, most: usize, extra: &str) -> Checked<&'a str> {
        let text = self.text()?;
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || extra.contains(c);
        if text.is_empty() || text.len() > most || !text.chars().all(fits) {
            return self.wrong(format_args!("`{text}` does not match the pattern of names"));
        }
        Ok(text)
    }

    /// It is base64 of something.
    pub fn base64(&self) -> Checked {
        let text = self.text()?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
        if text.is_empty() || text.len() % 4 != 0 || !text.bytes().all(fits) {
            return self.wrong("invalid base64 data");
        }
        Ok(())
    }
}
