//! `docs/guide.md`: every command in it runs, in its order, and prints what the guide says it prints.
//!
//! Figures differ from device to device and from model to model, so lines are compared without them. On another device than
//! the one that the guide was written on, only that the commands run is checked. To write their output anew:
//! `cargo test -p ratel-tests --test guide -- --ignored`.
#![allow(clippy::print_stderr)] // a skipped test must be seen

use ratel_engine::{DeviceChoice, Engine, EngineOptions};
use ratel_tests::program::Place;
use ratel_tests::repository::root;
use std::fs;

const OPEN: &str = "```console\n";
const CLOSE: &str = "```\n";
/// What the guide's sentence about its device begins with.
const PRINTED_ON: &str = "was printed on ";
/// More lines of output than this are cut.
const SHOWN: usize = 24;
const CUT: &str = "...";
/// What a profile is headed by; the lines below are sorted by time, and so in no order that could be promised.
const HEAD_OF_PROFILE: usize = 1;

/// A command of the guide.
struct Example {
    arguments: Vec<String>,
    /// What the guide says that it prints.
    shown: Vec<String>,
}

fn guide() -> String {
    fs::read_to_string(root().join("docs/guide.md")).expect("the guide")
}

fn examples(guide: &str) -> Vec<Example> {
    guide.split(OPEN).skip(1).map(example).collect()
}

fn example(text: &str) -> Example {
    let (block, _) = text.split_once(CLOSE).expect("a block ends");
    let (command, shown) = block.split_once('\n').expect("a block has a line");
    let words = command.strip_prefix("$ ratel ").unwrap_or_else(|| panic!("`{command}` is no command of ratel"));
    Example { arguments: split(words), shown: shown.lines().map(str::to_owned).collect() }
}

/// Words as a shell takes them: what is in double quotes is one.
fn split(words: &str) -> Vec<String> {
    let parts = words.split('"').enumerate();
    parts
        .flat_map(|(i, part)| match i % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

fn device() -> Option<String> {
    let engine = Engine::open(&DeviceChoice::Auto, EngineOptions::default()).expect("it falls back to the twins");
    engine.device().is_some().then(|| engine.name())
}

/// A line without its figures: no words with a digit in them, no units after such, no white space.
fn bare(line: &str) -> String {
    let is_unit = |word: &str| {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '/');
        let without_prefix = word.strip_prefix(['k', 'M', 'G', 'T', 'm', 'u', 'n']).unwrap_or(word);
        [word, without_prefix].iter().any(|unit| ["s", "B", "FLOP", "B/s", "FLOP/s", "iB"].contains(unit))
    };
    let mut after_figure = false;
    let words = line.split_whitespace().filter(|word| {
        let is_figure = word.contains(|c: char| c.is_ascii_digit()) || ["inf", "-inf", "nan", "once"].contains(word);
        let keep = !(is_figure || after_figure && is_unit(word));
        after_figure = is_figure;
        keep
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_command_of_the_guide_does_what_it_says() {
    let Some(device) = device() else {
        eprintln!("SKIPPED: the guide's commands were not run, for want of a device");
        return;
    };
    let guide = guide();
    let same_device = guide.contains(&format!("{PRINTED_ON}{device}"));
    if !same_device {
        eprintln!("the guide was written on another device than {device}: what commands print is not compared");
    }
    let examples = examples(&guide);
    assert!(examples.len() >= 12, "{} commands", examples.len());
    let place = Place::new();
    for Example { arguments, shown } in examples {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let said = place.succeed(&arguments);
        assert!(!said.trim().is_empty(), "{arguments:?} prints something");
        if !same_device {
            continue;
        }
        assert!(!shown.is_empty(), "{arguments:?}: the guide shows nothing of what it prints");
        let compared = if arguments[0] == "profile" { HEAD_OF_PROFILE } else { shown.len() };
        let mut lines = said.lines().map(bare);
        for line in shown.iter().take(compared).filter(|line| *line != CUT).map(|line| bare(line)) {
            assert!(lines.any(|said| said == line), "{arguments:?} does not print `{line}` (without figures):\n{said}");
        }
    }
}

#[test]
fn every_section_ends_in_a_command() {
    for section in guide().split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        assert!(section.trim_end().ends_with("```") && section.contains(OPEN), "{title}: it ends in a command");
    }
}

#[test]
fn figures_do_not_count() {
    assert_eq!(bare("Timed: 1.20 ms +- 3.0%, 12 GFLOP/s of it"), "Timed: +- of it");
    assert_eq!(bare("a   picture of 3x64x64"), bare("a picture of 3x8x8"));
    assert_ne!(bare("a picture"), bare("a drawing"));
    assert_eq!(split("denoise \"a red star\" -o x.png"), ["denoise", "a red star", "-o", "x.png"]);
}

/// Not a test: writes what the commands print on this device into the guide.
#[test]
#[ignore = "it writes docs/guide.md"]
fn write_the_guide_anew() {
    let device = device().expect("a device");
    let guide = guide();
    let place = Place::new();
    let mut out = String::new();
    for (i, part) in guide.split(OPEN).enumerate() {
        if i == 0 {
            let (before, after) = part.split_once(PRINTED_ON).expect("the sentence about the device");
            let (_, after) = after.split_once(", on a machine ").expect("its end");
            out += &format!("{before}{PRINTED_ON}{device}, on a machine {after}");
            continue;
        }
        let Example { arguments, .. } = example(part);
        let said = place.succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
        let mut shown = lines[..lines.len().min(SHOWN)].join("\n");
        if lines.len() > SHOWN {
            shown = format!("{shown}\n{CUT}");
        }
        let command = part.lines().next().unwrap_or_default();
        let (_, rest) = part.split_once(CLOSE).expect("a block ends");
        out += &format!("{OPEN}{command}\n{shown}\n{CLOSE}{rest}");
    }
    fs::write(root().join("docs/guide.md"), out).expect("the guide can be written");
}
