//! Text on a terminal: its width, colours where there is one, and paragraphs and columns that fit.

use std::borrow::Cow;
use std::io::{IsTerminal, stdout};

/// Columns of the terminal that standard output is, or of none: what a page of text has.
pub(crate) fn width() -> usize {
    let size = stdout().is_terminal().then(terminal_size::terminal_size).flatten();
    size.map_or(100, |(width, _)| usize::from(width.0)).max(40)
}

/// Colours, if standard output is a terminal and nobody asked for none (<https://no-color.org>).
#[derive(Clone, Copy)]
pub(crate) struct Ink {
    on: bool,
}

impl Ink {
    pub(crate) fn new() -> Self {
        Ink { on: stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    pub(crate) fn bold<'a>(self, text: &'a str) -> Cow<'a, str> {
        self.code("1", text)
    }

    pub(crate) fn dim<'a>(self, text: &'a str) -> Cow<'a, str> {
        self.code("2", text)
    }

    pub(crate) fn red<'a>(self, text: &'a str) -> Cow<'a, str> {
        self.code("31", text)
    }

    pub(crate) fn green<'a>(self, text: &'a str) -> Cow<'a, str> {
        self.code("32", text)
    }

    /// A line of code, its comment dimmed.
    pub(crate) fn source(self, line: &str) -> Cow<'_, str> {
        match line.find("//") {
            Some(at) if self.on => Cow::Owned(format!("{}{}", &line[..at], self.dim(&line[at..]))),
            _ => Cow::Borrowed(line),
        }
    }

    fn code<'a>(self, code: &str, text: &'a str) -> Cow<'a, str> {
        match self.on && !text.is_empty() {
            true => Cow::Owned(format!("\u{1b}[{code}m{text}\u{1b}[0m")),
            false => Cow::Borrowed(text),
        }
    }
}

/// A paragraph's words in lines of at most `width`, where no word is longer.
pub(crate) fn wrap(paragraph: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in paragraph.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A line of code in pieces of at most `width` characters, the second and later ones indented as the line is, and two more.
pub(crate) fn fold(line: &str, width: usize) -> Vec<String> {
    let count = line.chars().count();
    if count <= width {
        return vec![line.to_owned()];
    }
    let indent = (line.chars().take_while(|c| *c == ' ').count() + 2).min(width / 2);
    let chars: Vec<char> = line.chars().collect();
    // not within a word, if there is a space in the line's second half
    let end = (width / 2..width).rev().find(|i| chars[*i] == ' ').map_or(width, |i| i + 1);
    let rest: String = chars[end..].iter().collect();
    let mut pieces = vec![chars[..end].iter().collect::<String>()];
    pieces.extend(fold(&format!("{}{}", " ".repeat(indent), rest.trim_start()), width));
    pieces
}

/// Names that may have been meant by one that is not known, the likeliest first.
pub(crate) fn near<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let name = name.to_lowercase();
    let likeness = |known: &str| match !name.is_empty() && known.contains(&name) {
        true => 1.0,
        false => strsim::jaro_winkler(&name, known),
    };
    let mut all: Vec<(f64, &str)> = known.into_iter().map(|known| (likeness(known), known)).collect();
    all.retain(|(likeness, _)| *likeness >= 0.8);
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.len().cmp(&b.1.len())));
    all.dedup();
    all.into_iter().map(|(_, known)| known).take(6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_and_code_fit() {
        assert_eq!(wrap("one two\nthree", 9), ["one two", "three"]);
        assert_eq!(wrap("", 9), Vec::<String>::new());
        let line = "    let sum = values[i] + values[i + 1u];";
        for width in [12, 20, 30, 38] {
            let pieces = fold(line, width);
            assert!(pieces.iter().all(|piece| piece.chars().count() <= width), "{width}: {pieces:?}");
            let words = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(words(&pieces.concat()), words(line));
        }
        assert_eq!(fold("short", 20), ["short"]);
    }

    #[test]
    fn near_names() {
        let known = ["matmul", "matmul_tiled", "conv2d", "group_norm"];
        assert_eq!(near("matmull", known)[0], "matmul");
        assert_eq!(near("matmul_tield", known)[0], "matmul_tiled");
        assert_eq!(near("conv", known), ["conv2d"]);
        assert_eq!(near("groupnorm", known), ["group_norm"]);
        assert!(near("xyz", known).is_empty());
    }

    #[test]
    fn no_colours_but_on_a_terminal() {
        let ink = Ink { on: false };
        assert_eq!((ink.bold("a"), ink.source("x // y")), (Cow::Borrowed("a"), Cow::Borrowed("x // y")));
        assert_eq!(Ink { on: true }.source("x // y"), "x \u{1b}[2m// y\u{1b}[0m");
    }
}
