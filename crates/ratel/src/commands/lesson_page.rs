//! What a lesson looks like on a terminal.

use super::lesson::{Climb, Outcome, Rung, blame};
use crate::Failure;
use crate::terminal::{Ink, width, wrap};
use crate::units::{percent, seconds, si};
use ratel_engine::{Entrant, Roof};
use ratel_kernels::lessons::Section;
use ratel_tensor::Elem;
use similar::{ChangeTag, TextDiff};

/// Prose is easier to read in lines that are not too long.
fn measure() -> usize {
    width().min(100)
}

/// What the lesson is about, and on what.
pub(crate) fn print_head(climb: &Climb) {
    let ink = Ink::new();
    println!("{}", ink.bold(&format!("ratel lesson {}", climb.lesson.name)));
    println!();
    for paragraph in climb.lesson.about() {
        print_paragraph(paragraph, "");
    }
    let bytes: f64 = climb.op.operands().iter().map(|operand| operand.touched as f64 * 4.0).sum();
    let plain = Roof { matrix_flops: None, ..climb.roof.clone() };
    let best = plain.attainable(climb.op.flops(), bytes);
    println!("Here: --shape {}", climb.shape);
    println!("      {} on {} in f32", si(climb.op.flops(), "FLOP"), si(bytes, "B"));
    println!("      on {}", climb.device);
    println!(
        "      which at its best does {} and moves {} (`ratel roofline`): no kernel can take less than {}, bound by {}",
        si(plain.flops(), "FLOP/s"),
        si(plain.copy_bytes, "B/s"),
        seconds(best.seconds),
        best.bound
    );
    if climb.software {
        println!("      which is a program on the processor, so what is fast here need not be fast on a GPU");
    }
    if climb.checked {
        println!(
            "      with bounds checks, since rungs may come from your folder: times are longer than without --shaders"
        );
    }
    println!();
}

/// A rung: its words, what changed, and what came of it; its whole text if asked.
pub(crate) fn print_rung(climb: &Climb, rung: &Rung, whole: bool) -> Result<(), Failure> {
    let ink = Ink::new();
    let file = climb.shaders.file(rung.kernel.path);
    println!("{}", ink.bold(&format!("{}. {} in {}", rung.number, rung.kernel.name, rung.elem)));
    println!("{}", ink.dim(&format!("   {file}")));
    println!();
    let Section { text, slower } = climb.lesson.section(rung.kernel.name);
    let again =
        rung.elem != Elem::F32 && climb.rungs.iter().any(|r| r.kernel.name == rung.kernel.name && r.elem == Elem::F32);
    if again {
        print_paragraph(
            "The same kernel with half the bytes: activations and matrices in f16, sums still in f32.",
            "   ",
        );
    } else {
        text.iter().for_each(|paragraph| print_paragraph(paragraph, "   "));
    }
    if rung.shipped {
        println!("   Its text: ratel show {}", rung.kernel.name);
        println!();
    } else {
        print_text(climb, rung, whole, ink)?;
    }
    match &rung.outcome {
        Outcome::Skipped(needs) => println!("   {}: it needs {needs}", ink.bold("Skipped")),
        Outcome::Failed(why) => {
            println!("   {}", ink.red("It does not run"));
            why.split("; the line is ").for_each(|line| println!("      {line}"));
        }
        Outcome::Wrong(check) => {
            println!("   {}: its result is not the twin's, so it was not timed", ink.red("Wrong"));
            blame(&climb.op, check).split("; ").for_each(|line| println!("      {line}"));
        }
        Outcome::Timed { entrant, median, spread, before, certain, of_roof, .. } => {
            match &entrant.check {
                Some(check) if check.nmse == 0.0 => println!("   Checked: the same as its twin, to the last bit."),
                Some(check) => {
                    println!("   Checked: {:.1e} off its twin, where {:.0e} is allowed.", check.nmse, check.tolerance)
                }
                None => {}
            }
            let time = format!("{} {}", seconds(*median), noise(entrant, *spread));
            let rate = si(entrant.cost.flops / median, "FLOP/s");
            println!("   Timed: {}, {rate}, {} of the roof.", ink.bold(&time), percent(*of_roof));
            if let Some((number, ratio)) = before {
                let said = compared(*ratio, *certain);
                let slower_here = *certain && *ratio < 1.0;
                println!("   {} rung {number}.", if slower_here { ink.red(&said) } else { ink.green(&said) });
                if slower_here {
                    println!();
                    slower.iter().for_each(|paragraph| print_paragraph(&paragraph.replace('>', " "), "   "));
                    return Ok(());
                }
            }
        }
    }
    println!();
    Ok(())
}

/// How far repeated measurements lay apart, if there were several.
fn noise(entrant: &Entrant, spread: f64) -> String {
    match entrant.timing.map_or(0, |timing| timing.seconds.runs) {
        0 | 1 => "once".to_owned(),
        _ => format!("+- {}", percent(spread)),
    }
}

/// A ratio in words.
fn compared(ratio: f64, certain: bool) -> String {
    match (certain, ratio >= 1.0) {
        (false, _) => "As fast, within the noise, as".to_owned(),
        (true, true) => format!("{ratio:.2} times as fast as"),
        (true, false) => format!("Slower: it takes {:.2} times as long as", 1.0 / ratio),
    }
}

fn print_paragraph(paragraph: &str, indent: &str) {
    wrap(paragraph, measure() - indent.len()).iter().for_each(|line| println!("{indent}{line}"));
    println!();
}

/// A rung's text: all of it, or how it differs from the rung before; and from the program's own, if the reader changed it.
fn print_text(climb: &Climb, rung: &Rung, whole: bool, ink: Ink) -> Result<(), Failure> {
    // what can't be read is said where the rung's outcome is
    let Ok(text) = climb.shaders.of_kernel(rung.kernel) else { return Ok(()) };
    if text != rung.kernel.source {
        println!("   {}", ink.bold("What you changed"));
        print_difference(&body(rung.kernel.source), &body(&text), ink);
    }
    if whole || rung.number == 1 {
        let (first, lines) = body(&text);
        (first..).zip(lines.lines()).for_each(|(number, line)| {
            println!("{}", format!("   {} {}", ink.dim(&format!("{number:4}  ")), ink.source(line)).trim_end());
        });
        println!();
        return Ok(());
    }
    let before = climb.lesson.rungs[rung.number - 2];
    println!("   {}", ink.bold(&format!("What changed from {}", before.name)));
    let Ok(before) = climb.shaders.of_kernel(before) else { return Ok(()) };
    print_difference(&body(&before), &body(&text), ink);
    Ok(())
}

/// A kernel's text without the comment at its head, and the number of its first line.
fn body(text: &str) -> (usize, String) {
    let head = text.lines().take_while(|line| line.starts_with("//") || line.is_empty()).count();
    (head + 1, text.lines().skip(head).map(|line| format!("{line}\n")).collect())
}

/// The lines of two texts that differ, with a line around them, numbered as in the second, or the first where they are gone.
fn print_difference((first_old, old): &(usize, String), (first_new, new): &(usize, String), ink: Ink) {
    let diff = TextDiff::from_lines(old.as_str(), new.as_str());
    for (i, group) in diff.grouped_ops(1).iter().enumerate() {
        if i > 0 {
            println!("   {}", ink.dim("   ..."));
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let line = change.value().trim_end();
            let (number, first) = match change.tag() {
                ChangeTag::Delete => (change.old_index(), first_old),
                _ => (change.new_index(), first_new),
            };
            let number = number.map_or(String::new(), |index| (index + first).to_string());
            let marked = match change.tag() {
                ChangeTag::Delete => ink.red(&format!("- {line}")).into_owned(),
                ChangeTag::Insert => ink.green(&format!("+ {line}")).into_owned(),
                ChangeTag::Equal => format!("  {line}"),
            };
            println!("{}", format!("   {} {marked}", ink.dim(&format!("{number:>4}"))).trim_end());
        }
    }
    println!();
}

/// All rungs' figures.
pub(crate) fn print_table(climb: &Climb) {
    let ink = Ink::new();
    let head = format!(
        "{:4} {:26} {:5} {:>9} {:>6} {:>14} {:>13} {:>10} {:>8}",
        "rung", "kernel", "elem", "median", "+-", "times as fast", "arithmetic", "memory", "of roof"
    );
    println!("{}", ink.bold(&head));
    for Rung { number, kernel, elem, outcome, .. } in &climb.rungs {
        let head = format!("{number:4} {:26} {:5}", kernel.name, elem.to_string());
        match outcome {
            Outcome::Skipped(needs) => println!("{head} skipped: needs {needs}"),
            Outcome::Failed(_) => println!("{head} {}", ink.red("does not run")),
            Outcome::Wrong(_) => println!("{head} {}", ink.red("wrong result")),
            Outcome::Timed { entrant, median, spread, before, of_roof, .. } => {
                let ratio = before.map_or(String::new(), |(_, ratio)| format!("{ratio:.2}"));
                println!(
                    "{head} {:>9} {:>6} {ratio:>14} {:>13} {:>10} {:>8}",
                    seconds(*median),
                    noise(entrant, *spread).trim_start_matches("+- "),
                    si(entrant.cost.flops / median, "FLOP/s"),
                    si(entrant.cost.bytes / median, "B/s"),
                    percent(*of_roof),
                );
            }
        }
    }
    let timed = |rung: &&Rung| matches!(rung.outcome, Outcome::Timed { .. });
    let time = |rung: &Rung| match &rung.outcome {
        Outcome::Timed { median, .. } => *median,
        _ => 0.0,
    };
    let mut all = climb.rungs.iter().filter(timed);
    if let (Some(first), Some(last)) = (all.next(), all.next_back()) {
        let ratio = time(first) / time(last);
        println!("{} is {ratio:.1} times as fast as {}", last.kernel.name, first.kernel.name);
    }
    if !climb.checked {
        println!("\nChange a rung yourself: ratel lesson {} --copy DIR", climb.lesson.name);
    }
}
