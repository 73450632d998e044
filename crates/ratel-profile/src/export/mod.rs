//! A profile as a file.

mod csv;
mod folded;
mod html;
mod json_lines;
#[cfg(test)]
mod tests;
mod trace;

pub use json_lines::{ReadError, read};

use crate::Profile;
use std::io::Write;
use std::path::Path;

/// What a profile can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Chrome's trace events, which Perfetto and `chrome://tracing` show.
    Trace,
    /// A table with a line for each dispatch.
    Csv,
    /// Everything that was recorded, a JSON object on each line; [`read`] takes it back.
    JsonLines,
    /// Folded stacks, for flame graphs: the module's path and the kernel, then nanoseconds.
    Folded,
    /// One page that needs nothing else: roofline, table, memory.
    Html,
}

impl Format {
    /// All of them, with their names and the endings that they are told by.
    pub const ALL: [(Format, &'static str, &'static [&'static str]); 5] = [
        (Format::Trace, "trace", &["json"]),
        (Format::Csv, "csv", &["csv"]),
        (Format::JsonLines, "jsonl", &["jsonl", "ndjson"]),
        (Format::Folded, "folded", &["folded", "txt"]),
        (Format::Html, "html", &["html", "htm"]),
    ];

    /// What a file of this name is to be.
    pub fn of_path(path: &Path) -> Option<Format> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        Format::ALL.into_iter().find(|(_, _, endings)| endings.contains(&ending.as_str())).map(|(format, ..)| format)
    }

    /// Writes a profile.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(self, profile: &Profile, out: &mut dyn Write) -> std::io::Result<()> {
        match self {
            Format::Trace => trace::write(profile, out),
            Format::Csv => csv::write(profile, out),
            Format::JsonLines => json_lines::write(profile, out),
            Format::Folded => folded::write(profile, out),
            Format::Html => html::write(profile, out),
        }
    }
}
