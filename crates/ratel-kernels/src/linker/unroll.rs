//! Writes out the loops under `// unroll` lines.

/// `text` with each loop under a `// unroll` line replaced by its turns, the variable replaced by its value. All turns go
/// on the loop's first line and its other lines become empty, so every line after it keeps its number. A loop inside
/// another may carry a directive of its own.
///
/// # Errors
/// The number, from 1, of a directive that is not above a loop `for (var i = 0u; i < BOUND; i++) {` with a BOUND that is a
/// number or one of `extents`.
pub(super) fn unroll(text: &str, extents: &[(&'static str, u32)]) -> Result<String, usize> {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < lines.len() {
        if lines[at].trim() == "// unroll" {
            let (turns, end) = expand(&lines, at, extents)?;
            out.push('\n'); // the directive
            out.push_str(&turns);
            out.push_str(&"\n".repeat(end - at - 1));
            at = end;
        } else {
            out.push_str(lines[at]);
            out.push('\n');
            at += 1;
        }
    }
    Ok(out)
}

/// The turns of the loop under the directive at line `at`, and the number of the line after the loop.
fn expand(lines: &[&str], at: usize, extents: &[(&'static str, u32)]) -> Result<(String, usize), usize> {
    let head = lines.get(at + 1).and_then(|line| Head::parse(line, extents)).ok_or(at + 1)?;
    let mut body = String::new();
    let mut next = at + 2;
    loop {
        let line = *lines.get(next).ok_or(at + 1)?;
        if line.trim() == "}" && indent(line) == indent(lines[at + 1]) {
            break;
        }
        if line.trim() == "// unroll" {
            let (turns, end) = expand(lines, next, extents)?;
            body.push_str(&turns);
            next = end;
        } else {
            body.push_str(line.split("//").next().unwrap_or_default().trim());
            body.push(' ');
            next += 1;
        }
    }
    let turns = (0..head.turns).map(|turn| format!("{{ {}}} ", substitute(&body, head.variable, turn))).collect();
    Ok((turns, next + 1))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The head of a loop that can be written out.
struct Head<'a> {
    variable: &'a str,
    turns: u32,
}

impl<'a> Head<'a> {
    /// Reads `for (var i = 0u; i < BOUND; i++) {`.
    fn parse(line: &'a str, extents: &[(&'static str, u32)]) -> Option<Self> {
        let rest = line.trim().strip_prefix("for (var ")?;
        let (variable, rest) = rest.split_once(" = 0u; ")?;
        let rest = rest.strip_prefix(variable)?.strip_prefix(" < ")?;
        let (bound, rest) = rest.split_once("; ")?;
        (rest.strip_prefix(variable)? == "++) {").then_some(())?;
        let known = extents.iter().find(|(name, _)| *name == bound).map(|(_, value)| *value);
        let turns = known.or_else(|| bound.strip_suffix('u')?.parse().ok())?;
        Some(Head { variable, turns })
    }
}

/// `body` with every occurrence of the word `variable` replaced by the number `turn`.
fn substitute(body: &str, variable: &str, turn: u32) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.find(variable) {
        let end = at + variable.len();
        let before = rest[..at].chars().next_back().or_else(|| out.chars().next_back());
        let is_member = before == Some('.');
        let alone = !before.is_some_and(is_word) && !rest[end..].chars().next().is_some_and(is_word) && !is_member;
        out.push_str(&rest[..at]);
        if alone {
            out.push_str(&format!("{turn}u"));
        } else {
            out.push_str(variable);
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_replace_the_loop_and_lines_keep_their_numbers() {
        let text = "a\n    // unroll\n    for (var i = 0u; i < TM; i++) {\n        x[i] += y.i; // why\n        xi[i + i1] = i;\n    }\nb\n";
        let got = unroll(text, &[("TM", 2)]).expect("a loop that can be written out");
        assert_eq!(got.lines().count(), text.lines().count());
        assert_eq!(
            got.lines().nth(2),
            Some("{ x[0u] += y.i; xi[0u + i1] = 0u; } { x[1u] += y.i; xi[1u + i1] = 1u; } ")
        );
        assert_eq!(got.lines().next_back(), Some("b"));
    }

    #[test]
    fn inner_loops_unroll_too() {
        let text = "// unroll\nfor (var i = 0u; i < 2u; i++) {\n    // unroll\n    for (var j = 0u; j < 2u; j++) {\n        f(i, j);\n    }\n}\nend";
        let got = unroll(text, &[]).expect("loops that can be written out");
        assert_eq!(got.lines().nth(1), Some("{ { f(0u, 0u); } { f(0u, 1u); } } { { f(1u, 0u); } { f(1u, 1u); } } "));
        assert_eq!(got.lines().nth(7), Some("end"));
    }

    #[test]
    fn what_cannot_be_written_out_is_named() {
        assert_eq!(unroll("\n// unroll\nlet a = 1;", &[]), Err(2));
        assert_eq!(unroll("// unroll\nfor (var i = 0u; i < n; i++) {\n}", &[]), Err(1));
        assert_eq!(unroll("// unroll\nfor (var i = 0u; i < 2u; i++) {\n", &[]), Err(1));
    }
}
