//! A kernel as it ran: its file with the variant's constants filled in.

use crate::KernelPage;
use ratel_kernels::{Choice, LinkError, Options, Shaders, Target, link_with_places};
use ratel_profile::kernel_variant;

/// The page of a kernel as it was chosen. `shaders` is where the engine has its texts from. Loops under `// unroll` stay
/// loops, so that what is read is what was written.
///
/// # Errors
/// As for [`link`].
pub fn kernel_page(choice: &Choice, target: &Target, shaders: &Shaders) -> Result<KernelPage, LinkError> {
    let (elem, weight) = (target.elem, target.weight);
    let options = Options { elem, weight, immediates: true, unroll: false, shaders: shaders.clone() };
    let linked = link_with_places(choice.kernel, &choice.schedule, &options)?;
    let own_lines =
        (1..).take_while(|line| linked.place(*line).0 == choice.kernel.path).take(linked.wgsl.lines().count());
    let own_lines = own_lines.count();
    let constants = &choice.schedule.constants;
    let mut filled = Vec::new();
    // what names in the text stand for
    let extents = choice.schedule.extents.iter();
    let mut known: Vec<(String, u32)> = extents.map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let lines: Vec<String> = linked
        .wgsl
        .lines()
        .zip(1usize..)
        .map(|(line, number)| match overridden(line) {
            Some((name, default)) => {
                let value = constants.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
                let size = value.map(|value| value as u32).or_else(|| default.trim_end_matches('u').parse().ok());
                known.extend(size.map(|size| (name.to_owned(), size)));
                match value {
                    Some(value) => {
                        filled.push(number);
                        line.replacen(&format!("= {default}"), &format!("= {}", written(value, default)), 1)
                    }
                    None => line.to_owned(),
                }
            }
            None => line.to_owned(),
        })
        .collect();
    let lanes = lanes(&lines, &known);
    let comment = |line: &&String| line.starts_with("//");
    let head: Vec<&str> =
        lines.iter().take_while(comment).map(|line| line.trim_start_matches('/').trim_end()).collect();
    Ok(KernelPage {
        name: choice.kernel.name.to_owned(),
        variant: kernel_variant(choice, target),
        file: shaders.file(choice.kernel.path),
        own_lines,
        equation: equation(&head),
        grid: paragraph(&head, "Grid"),
        text: lines.join("\n"),
        filled,
        lanes,
    })
}

/// A constant's value as WGSL of the type of its default.
fn written(value: f64, default: &str) -> String {
    match default {
        "true" | "false" => (value != 0.0).to_string(),
        _ if default.ends_with('u') => format!("{value}u"),
        _ => value.to_string(),
    }
}

/// The name and default of `override NAME: TYPE = DEFAULT;`.
fn overridden(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("override ")?.split_once(':')?;
    let (_, value) = rest.split_once("= ")?;
    Some((name.trim(), value.split_once(';')?.0.trim()))
}

/// What stands after `@workgroup_size`: a name or number, or a `const` that is a product of such.
fn lanes(lines: &[String], known: &[(String, u32)]) -> Option<u32> {
    let value = |word: &str| -> Option<u32> {
        let found = known.iter().find(|(name, _)| name == word).map(|(_, value)| *value);
        found.or_else(|| word.trim_end_matches('u').parse().ok())
    };
    let size = lines.iter().find_map(|line| line.split_once("@workgroup_size("))?.1.split(')').next()?;
    let product = |text: &str| -> Option<u32> { text.split('*').map(|word| value(word.trim())).product() };
    let constant = || {
        let line = lines.iter().find(|line| line.starts_with(&format!("const {size} ")))?;
        product(line.split_once('=')?.1.split(';').next()?)
    };
    product(size).or_else(constant)
}

/// The first paragraph of the comment without the kernel's name, and the second where the first has no equation.
fn equation(head: &[&str]) -> String {
    let mut paragraphs = head.split(|line| line.trim().is_empty());
    let mut lines = paragraphs.next().unwrap_or(&[]).to_vec();
    if !lines.iter().any(|line| line.contains('=')) {
        lines.extend(paragraphs.next().unwrap_or(&[]));
    }
    let name = lines.first().and_then(|line| line.split_once(": ")).map_or(0, |(name, _)| name.len() + 2);
    let without = |(i, line): (usize, &str)| match i {
        0 => line[name..].to_owned(),
        _ => {
            let indent = line.chars().take_while(|c| c.is_whitespace()).count().min(name);
            line.chars().skip(indent).collect()
        }
    };
    lines.into_iter().enumerate().map(without).collect::<Vec<_>>().join("\n")
}

/// The words after a heading of the comment, up to the next heading.
fn paragraph(head: &[&str], heading: &str) -> String {
    let mut words = Vec::new();
    if let Some(at) = head.iter().position(|line| line.trim_start().starts_with(heading)) {
        words.push(head[at].trim_start().trim_start_matches(heading).trim());
        words.extend(head[at + 1..].iter().take_while(|line| line.starts_with("     ")).map(|line| line.trim()));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratel_kernels::{Op, WeightStorage, kernels_of};
    use ratel_tensor::Elem;
    use std::collections::BTreeSet;

    #[test]
    fn every_kernel_has_a_page() {
        let software = Target { software: true, subgroup: Some(8), ..Target::PLAIN };
        let half = Target { elem: Elem::F16, weight: WeightStorage::F16, f16: true, ..Target::PLAIN };
        let cooperative = Target { cooperative: Some(16), subgroup: Some(32), ..half };
        let mut seen = BTreeSet::new();
        for (op, target) in
            Op::all_cases().iter().flat_map(|op| [Target::PLAIN, software, cooperative].map(|t| (op, t)))
        {
            for choice in kernels_of(op, &target) {
                // of each kernel some variants
                if !seen.insert(format!("{} {}", choice.kernel.name, kernel_variant(&choice, &target))) {
                    continue;
                }
                let page = kernel_page(&choice, &target, &Shaders::Embedded).expect(choice.kernel.name);
                assert!(!page.equation.is_empty() && !page.grid.is_empty(), "{}: {page:?}", page.name);
                assert!(page.lanes.is_some_and(|lanes| lanes > 0), "{}: how many lanes?", page.name);
                for (name, value) in &choice.schedule.constants {
                    let line = page.text.lines().find(|line| line.starts_with(&format!("override {name}:")));
                    let line = line.expect("the schedule's constants are overrides");
                    let (_, default) = overridden(line).expect("it is one");
                    let same = default.trim_end_matches('u') == value.to_string()
                        || default == if *value == 0.0 { "false" } else { "true" };
                    assert!(same, "{}: {line} is not {value}", page.name);
                }
                // line numbers are the file's
                let (own, text): (Vec<_>, Vec<_>) =
                    (choice.kernel.source.lines().collect(), page.text.lines().collect());
                let entry = own.iter().position(|line| line.starts_with("@compute")).expect("an entry point");
                assert_eq!(own[entry], text[entry], "{}", page.name);
            }
        }
    }
}
