//! A user's turn for formats whose message of a tool holds text alone: what tools said comes first, since
//! it must follow the calls; then what the person says, after the pictures that tools gave.
//!
//! ```text
//!   turn      ["so?", result a, result b + picture]
//!   results   a | b
//!   said      "Returned by f (call b):", picture, "so?"
//! ```
//!
//! Documents that are plain text are said as text, which every model reads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::llm::prompt::{Media, Part, Source};

/// What a tool said.
#[derive(Debug, PartialEq)]
pub struct Returned<'a> {
    /// The call's id.
    pub id: &'a str,
    /// The tool, if the call is in the conversation.
    pub name: &'a str,
    /// It failed.
    pub is_error: bool,
    /// Texts alone.
    pub parts: Vec<Part>,
}

/// Takes a user's turn apart.
pub fn split(parts: &[Part]) -> (Vec<Returned<'_>>, Vec<Part>) {
    let (mut returned, mut said) = (Vec::new(), Vec::new());
    for part in parts {
        let Part::Result { id, name, parts, is_error } = part else { continue };
        let (texts, rest): (Vec<Part>, Vec<Part>) =
            parts.iter().map(plain).partition(|part| matches!(part, Part::Text { .. }));
        if !rest.is_empty() {
            let by = if name.is_empty() { "a tool" } else { name };
            let text = format!("Returned by {by} (call {id}):");
            said.push(Part::Text { text, cache: None });
            said.extend(rest);
        }
        returned.push(Returned { id, name, is_error: *is_error, parts: texts });
    }
    let spoken = parts.iter().filter(|part| !matches!(part, Part::Result { .. }));
    said.extend(spoken.map(plain));
    (returned, said)
}

/// A document of plain text as text; all else as it is.
pub fn plain(part: &Part) -> Part {
    match part {
        Part::Media(media) => match text(media) {
            Some(text) => Part::Text { text, cache: None },
            None => part.clone(),
        },
        other => other.clone(),
    }
}

fn text(media: &Media) -> Option<String> {
    let Source::Data(data) = &media.source else { return None };
    let data = media.mime.starts_with("text/").then_some(data)?;
    let text = String::from_utf8(STANDARD.decode(data).ok()?).ok()?;
    Some(match &media.name {
        Some(name) => format!("{name}:\n\n{text}"),
        None => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Part {
        Part::Text { text: text.into(), cache: None }
    }

    fn media(mime: &str, data: &str, name: Option<&str>) -> Part {
        let source = Source::Data(data.into());
        Part::Media(Media {
            mime: mime.into(),
            source,
            name: name.map(str::to_owned),
            ..Media::default()
        })
    }

    #[test]
    fn results_come_first_and_their_pictures_after_them() {
        let result = |id: &str, name: &str, parts: Vec<Part>, is_error| Part::Result {
            id: id.into(),
            name: name.into(),
            parts,
            is_error,
        };
        let picture = media("image/png", "QUJD", None);
        let turn = [
            said("so?"),
            result("a", "f", vec![said("one")], false),
            result("b", "", vec![picture.clone(), said("two")], true),
        ];
        let (returned, rest) = split(&turn);
        assert_eq!(
            returned,
            [
                Returned { id: "a", name: "f", is_error: false, parts: vec![said("one")] },
                Returned { id: "b", name: "", is_error: true, parts: vec![said("two")] },
            ]
        );
        assert_eq!(rest, [said("Returned by a tool (call b):"), picture, said("so?")]);
    }

    #[test]
    fn documents_of_text_are_text() {
        let notes = Some("notes.txt");
        for (part, expected) in [
            (media("text/plain", "SGk=", None), said("Hi")),
            (media("text/markdown", "SGk=", notes), said("notes.txt:\n\nHi")),
            (media("text/plain", "/w==", None), media("text/plain", "/w==", None)),
            (media("text/plain", "!", notes), media("text/plain", "!", notes)),
            (media("application/pdf", "SGk=", None), media("application/pdf", "SGk=", None)),
            (said("x"), said("x")),
        ] {
            assert_eq!(plain(&part), expected);
        }
    }
}
