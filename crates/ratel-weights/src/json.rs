//! JSON files as diffusers and transformers write them.

use crate::{Files, WeightsError};
use serde_json::Value;
use std::path::Path;

/// Reads a file of one JSON object; `None` where there is no file.
pub(crate) fn read(files: Files, path: &Path) -> Result<Option<Value>, WeightsError> {
    files.text(path)?.map(|text| parse(&text, path)).transpose()
}

/// The same of a file in which Python may have written its `-Infinity` and `NaN`, which JSON does not have: they become
/// null, hence unset. diffusers' own default for a scheduler's `lambda_min_clipped` is one of them.
pub(crate) fn read_with_infinities(files: Files, path: &Path) -> Result<Option<Value>, WeightsError> {
    files.text(path)?.map(|text| parse(&without_infinities(&text), path)).transpose()
}

fn parse(text: &str, path: &Path) -> Result<Value, WeightsError> {
    let invalid = |problem: String| WeightsError::Invalid { path: path.to_owned(), problem };
    let value: Value = serde_json::from_str(text).map_err(|error| invalid(format!("not JSON: {error}")))?;
    if !value.is_object() {
        return Err(invalid("not a JSON object".to_owned()));
    }
    if !is_printable(&value) {
        return Err(invalid("JSON with a text in it that is no name: control characters, or too long".to_owned()));
    }
    Ok(value)
}

/// Whether every text in it can be shown in a message: configs hold names, and whoever refuses one repeats it.
fn is_printable(value: &Value) -> bool {
    const LONGEST: usize = 1024;
    let printable = |text: &str| text.len() <= LONGEST && !text.chars().any(char::is_control);
    match value {
        Value::String(text) => printable(text),
        Value::Array(all) => all.iter().all(is_printable),
        Value::Object(all) => all.iter().all(|(key, value)| printable(key) && is_printable(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// Puts null for Python's infinities, outside of strings.
fn without_infinities(text: &str) -> String {
    let mut strict = String::with_capacity(text.len());
    let mut in_string = false;
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| !in_string && rest.starts_with(word));
        let taken = match (word, next) {
            (Some(word), _) => {
                strict.push_str("null");
                word.len()
            }
            (None, '\\') if in_string => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            (None, other) => {
                in_string ^= other == '"';
                other.len_utf8()
            }
        };
        if word.is_none() {
            strict.push_str(&rest[..taken]);
        }
        rest = &rest[taken..];
    }
    strict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinities_are_unset() {
        let text = r#"{"a": -Infinity, "b": [NaN, Infinity], "c": "-Infinity \" NaN", "d\\": Infinity}"#;
        assert_eq!(without_infinities(text), r#"{"a": null, "b": [null, null], "c": "-Infinity \" NaN", "d\\": null}"#);
        for cut in 0..text.len() {
            let _ = without_infinities(&text[..cut]);
        }
    }
}
