//! Everything that was recorded, a JSON object on each line: the run first, then spans and dispatches.

use crate::{Dispatch, Profile, Run, Span};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Written<'a> {
    Run(&'a Run),
    Span(&'a Span),
    Dispatch(&'a Dispatch),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    Run(Box<Run>),
    Span(Span),
    Dispatch(Dispatch),
}

pub(super) fn write(profile: &Profile, out: &mut dyn Write) -> std::io::Result<()> {
    let spans = profile.spans.iter().map(Written::Span);
    let dispatches = profile.dispatches.iter().map(Written::Dispatch);
    for line in std::iter::once(Written::Run(&profile.run)).chain(spans).chain(dispatches) {
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Why a profile can't be read. Every message is one line.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file can't be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A line is none of a profile's.
    #[error("line {number} is none of a profile in JSON lines (`ratel profile -o FILE.jsonl`): {why}")]
    Line {
        /// Its number, from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
    /// It has no dispatches.
    #[error("there are no dispatches in it; a profile in JSON lines is what `ratel profile -o FILE.jsonl` writes")]
    Empty,
}

/// The longest line that a profile has is some hundred bytes.
const MOST_BYTES: u64 = 1 << 20;

/// Reads a profile in JSON lines.
///
/// # Errors
/// What is no profile, by its line.
pub fn read(mut from: impl BufRead) -> Result<Profile, ReadError> {
    let (mut run, mut spans, mut dispatches) = (None, Vec::new(), Vec::new());
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        std::io::Read::take(&mut from, MOST_BYTES).read_until(b'\n', &mut text)?;
        if text.is_empty() {
            break;
        }
        let wrong = |why: String| ReadError::Line { number, why };
        if text.len() as u64 == MOST_BYTES {
            return Err(wrong(format!("it is longer than {MOST_BYTES} bytes")));
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        let line = serde_json::from_slice(&text).map_err(|error| wrong(reason(&error)))?;
        match (line, &run) {
            (Line::Run(first), None) if first.version != 1 => {
                return Err(wrong(format!("version {} is not known; this program reads 1", first.version)));
            }
            (Line::Run(first), None) => {
                check_roof(&first).map_err(wrong)?;
                run = Some(*first);
            }
            (Line::Run(_), Some(_)) => return Err(wrong("a second run; a file holds one".to_owned())),
            (_, None) => return Err(wrong("the first line must say what was run".to_owned())),
            (Line::Span(span), _) => spans.push(span),
            (Line::Dispatch(dispatch), _) => {
                check(&dispatch).map_err(wrong)?;
                dispatches.push(dispatch);
            }
        }
    }
    match run {
        Some(run) if !dispatches.is_empty() => Ok(Profile { run, spans, dispatches }),
        _ => Err(ReadError::Empty),
    }
}

/// Whether sums over it make sense.
fn check(dispatch: &Dispatch) -> Result<(), String> {
    let measure = |value: f64| value.is_finite() && value >= 0.0;
    if dispatch.ns.is_empty() {
        return Err("the dispatch has no time".to_owned());
    }
    if !measure(dispatch.flops) || !measure(dispatch.bytes) {
        return Err("flops and bytes are 0 or more".to_owned());
    }
    Ok(())
}

/// Whether its roof can be divided by.
fn check_roof(run: &Run) -> Result<(), String> {
    let Some(roof) = &run.roof else { return Ok(()) };
    let needed = [roof.f32_flops, roof.copy_bytes, roof.dispatch_seconds];
    let sound = needed.into_iter().chain(roof.matrix_flops).all(|figure| figure.is_finite() && figure > 0.0);
    if sound { Ok(()) } else { Err("the roof's figures are more than 0".to_owned()) }
}

/// What serde_json has to say, with the column alone: its line is always the first.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("column {}: {what}", error.column())
}
