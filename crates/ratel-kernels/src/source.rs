//! The text of twins, cut out of this crate's own modules, which are in the program as they were when it was built. So
//! what a reader is shown is what runs.

use crate::op::MODULES;

/// Modules that twins call, beside those of ops.
const SHARED: &[(&str, &str)] = &[("product", include_str!("product.rs"))];

/// A function of a module of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The module, a file of `crates/ratel-kernels/src/` without its ending.
    pub module: &'static str,
    /// The name of the function.
    pub function: &'static str,
    /// The number of its first line in the file, from 1.
    pub line: usize,
    /// Its text with comments, as it stands in the file.
    pub text: &'static str,
}

/// An op's twin: the function, then those that it calls, and those that they call, in the order in which they are
/// first called. Empty for a name that no op has.
///
/// Only functions of this crate that say how something is computed are among them: those of the op's module and of the
/// modules that it imports from. Constructors are not.
pub fn twin_text(op: &str) -> Vec<Excerpt> {
    let Some(module) = find(op) else { return vec![] };
    let mut all: Vec<Excerpt> = cut(module, "twin").into_iter().collect();
    let mut at = 0;
    while let Some(caller) = all.get(at).copied() {
        let Some(home) = find(caller.module) else { break };
        let modules = || [home].into_iter().chain(imported(home.1));
        for name in calls(caller.text) {
            let is_new = !["new", "twin"].contains(&name) && all.iter().all(|known| known.function != name);
            if is_new && let Some(called) = modules().find_map(|module| cut(module, name)) {
                all.push(called);
            }
        }
        at += 1;
    }
    all
}

/// A module's name and text.
type Module = (&'static str, &'static str);

fn find(name: &str) -> Option<Module> {
    MODULES.iter().chain(SHARED).copied().find(|(known, _)| *known == name)
}

/// The modules that a text imports from, of those that are kept.
fn imported(text: &'static str) -> impl Iterator<Item = Module> {
    text.lines().filter_map(|line| find(line.strip_prefix("use crate::")?.split("::").next()?))
}

/// The words before a `(`, in order.
fn calls(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices('(').filter_map(move |(at, _)| {
        let word = text[..at].rsplit(|c: char| !is_part(c)).next()?;
        (!word.is_empty()).then_some(word)
    })
}

/// The function of a name: from its comments and attributes to the brace that is indented as it is. Tests don't count.
fn cut((module, text): Module, name: &str) -> Option<Excerpt> {
    let end_of_code = text.find("#[cfg(test)]").unwrap_or(text.len());
    let code: Vec<&'static str> = text[..end_of_code].split_inclusive('\n').collect();
    let head = code.iter().position(|line| declares(line, name))?;
    let line = code[head];
    let indent = &line[..line.len() - line.trim_start().len()];
    let is_above = |line: &&&str| ["///", "#["].iter().any(|mark| line.trim_start().starts_with(mark));
    let first = head - code[..head].iter().rev().take_while(is_above).count();
    let is_whole = line.matches('{').count() > 0 && line.matches('{').count() == line.matches('}').count();
    let closes = |line: &&str| line.strip_prefix(indent).is_some_and(|rest| rest.trim_end() == "}");
    let last = if is_whole { head } else { head + code[head..].iter().position(closes)? };

    let bytes = |lines: &[&str]| lines.iter().map(|line| line.len()).sum::<usize>();
    let text = text[bytes(&code[..first])..bytes(&code[..=last])].trim_end();
    let function = &line[line.find(name)?..][..name.len()];
    Some(Excerpt { module, function, line: first + 1, text })
}

/// Whether a line begins a function of this name.
fn declares(line: &str, name: &str) -> bool {
    let words =
        line.split_once("fn ").filter(|(before, _)| before.trim().is_empty() || before.trim().starts_with("pub"));
    words.and_then(|(_, rest)| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with(['(', '<']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Op;

    #[test]
    fn every_op_has_its_twin_whole() {
        for op in Op::all_cases() {
            let text = twin_text(op.name());
            let first = text.first().unwrap_or_else(|| panic!("{} has a twin", op.name()));
            assert_eq!((first.module, first.function), (op.name(), "twin"));
            assert!(first.text.trim_start().starts_with("fn twin(&self, "), "{}", first.text);
            for Excerpt { module, function, line, text } in text {
                let (open, close) = (text.matches('{').count(), text.matches('}').count());
                assert!(open == close && open > 0, "{module}::{function} is whole:\n{text}");
                let (_, file) = find(module).expect("it was found");
                let of_file: Vec<_> = file.lines().skip(line - 1).take(text.lines().count()).collect();
                assert_eq!(of_file, text.lines().collect::<Vec<_>>(), "{module} from line {line}");
            }
        }
        assert_eq!(twin_text("nothing"), vec![]);
    }

    #[test]
    fn what_a_twin_calls_comes_with_it() {
        let names = |op| twin_text(op).iter().map(|e| format!("{}::{}", e.module, e.function)).collect::<Vec<_>>();
        let matmul = names("matmul");
        for called in ["product::compute", "product::tile", "product::multiply_add", "activation::of"] {
            assert!(matmul.iter().any(|name| name == called), "{called} in {matmul:?}");
        }
        let norm = names("group_norm");
        assert!(norm.contains(&"group_norm_stats::each".to_owned()), "{norm:?}");
        assert!(!norm.iter().any(|name| name.contains("schedule") || name.ends_with("cases")), "{norm:?}");
    }

    #[test]
    fn functions_are_cut_with_their_comments() {
        let text = "use a;\n\n/// Doubles.\n#[inline]\npub(crate) fn double<T>(x: u32) -> u32 {\n    if x > 0 {\n    }\n    twice(x)\n}\n\
                    fn doubled() {}\n\n#[cfg(test)]\nfn twice() {\n}\n";
        let double = cut(("m", text), "double").expect("it is there");
        assert_eq!(double.line, 3);
        assert!(double.text.starts_with("/// Doubles.\n#[inline]\n") && double.text.ends_with("twice(x)\n}"));
        assert_eq!(calls(double.text).collect::<Vec<_>>(), ["pub", "twice"]);
        assert_eq!(cut(("m", text), "twice"), None, "tests don't count");
    }
}
