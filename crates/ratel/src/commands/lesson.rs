use super::lesson_page::{print_head, print_rung, print_table};
use super::setup;
use crate::args::LessonArgs;
use crate::output::write_whole;
use crate::terminal::near;
use crate::units::si;
use crate::{Failure, progress, shape};
use ratel_engine::{Check, Engine, EngineError, Entrant, Roof, Wrong, climb};
use ratel_kernels::lessons::{LESSONS, Lesson, choices};
use ratel_kernels::{Choice, Kernel, Op, Shaders, Target, WeightStorage, choose};
use ratel_tensor::Elem;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// Sizes of one of the model's layers: on a driver that runs on a processor one that is done in a moment, on a GPU one of
/// Stable Diffusion 1.5 at 512x512.
fn usual_shape(lesson: &str, software: bool) -> &'static str {
    match (lesson, software) {
        ("matmul", true) => "m=256,n=320,k=320",
        ("matmul", false) => "m=8192,n=320,k=320",
        ("conv", true) => "batch=1,h=16,w=16,c=128,n=128",
        ("conv", false) => "batch=2,h=64,w=64,c=320,n=320",
        ("attention", true) => "batch=1,heads=4,dim=40,queries=256",
        ("attention", false) => "batch=1,heads=8,dim=40,queries=4096",
        (_, true) => "batch=2,pixels=1024,c=320,chunk=64",
        (_, false) => "batch=2,pixels=4096,c=320,chunk=64",
    }
}

/// Everything that a lesson's words and figures are made of.
pub(crate) struct Climb {
    pub lesson: &'static Lesson,
    pub shape: String,
    pub op: Op,
    pub device: String,
    /// Whether the device is a program on the processor.
    pub software: bool,
    pub roof: Roof,
    /// Where the reader's own rungs lie.
    pub shaders: Shaders,
    /// Bounds checks in the kernels.
    pub checked: bool,
    pub rungs: Vec<Rung>,
}

/// A kernel on the ladder.
pub(crate) struct Rung {
    /// From 1.
    pub number: usize,
    pub kernel: &'static Kernel,
    /// The type that everything is in.
    pub elem: Elem,
    /// Whether it is what Ratel runs, and not made for the lesson.
    pub shipped: bool,
    pub outcome: Outcome,
}

/// What came of a rung.
pub(crate) enum Outcome {
    /// The device or the shape lacks this.
    Skipped(&'static str),
    /// It could not be run.
    Failed(String),
    /// It ran, and its result is not the twin's.
    Wrong(Check),
    /// It passed, and was timed.
    Timed {
        entrant: Entrant,
        /// Seconds.
        median: f64,
        spread: f64,
        /// The rung that was timed before it, and how many times as fast as that this one is.
        before: Option<(usize, f64)>,
        /// Whether that is more than the noise of both.
        certain: bool,
        /// Of the least time that the device could take.
        of_roof: f64,
        bound: String,
    },
}

/// Climbs a ladder of kernels, or copies its rungs.
pub(crate) fn run(args: LessonArgs) -> Result<(), Failure> {
    let lesson = LESSONS.iter().find(|lesson| lesson.name == args.name || lesson.op == args.name).ok_or_else(|| {
        let names: Vec<_> = LESSONS.iter().map(|lesson| lesson.name).collect();
        let near = near(&args.name, names.iter().copied());
        let all = names.join(", ");
        Failure::Usage(match near.first() {
            Some(name) => format!("there is no lesson `{}`; did you mean {name}? There are {all}", args.name),
            None => format!("there is no lesson `{}`; there are {all}", args.name),
        })
    })?;
    if let Some(folder) = &args.copy {
        return copy(lesson, folder);
    }
    if !(args.seconds > 0.0 && args.seconds <= 600.0) {
        return Err(Failure::Usage("--seconds takes a number above 0, and 600 at most".to_owned()));
    }

    // above the lesson's own stands what plans choose, on some devices in two precisions
    let most = lesson.rungs.len() + 2;
    if let Some(number) = args.rung.filter(|number| !(1..=most).contains(number)) {
        return Err(Failure::Usage(format!("--rung {number}: {} has {most} rungs at most", lesson.name)));
    }

    let climb = climb_it(lesson, &args)?;
    let shown = |rung: &&Rung| args.rung.is_none_or(|number| number == rung.number);
    if args.json {
        println!("{}", json(&climb));
    } else {
        print_head(&climb);
        if !args.brief {
            climb.rungs.iter().filter(shown).try_for_each(|rung| print_rung(&climb, rung, args.rung.is_some()))?;
        }
        print_table(&climb);
    }
    let failed = climb.rungs.iter().filter(|rung| matches!(rung.outcome, Outcome::Failed(_) | Outcome::Wrong(_)));
    match failed.map(|rung| rung.kernel.name).collect::<Vec<_>>() {
        failed if failed.is_empty() => Ok(()),
        failed => Err(Failure::Check(format!("not right: {}", failed.join(", ")))),
    }
}

/// Rungs, each with how it does the op, where it can.
type Ladder = Vec<(Rung, Option<Choice>)>;

fn climb_it(lesson: &'static Lesson, args: &LessonArgs) -> Result<Climb, Failure> {
    // a shape that makes no sense is refused before a device is opened
    let asked = args.shape.as_deref().map(|text| shape::op(lesson.op, text)).transpose()?;
    let engine = setup::engine_to_time(&args.device, args.shaders.as_deref())?;
    let Some(info) = engine.device() else {
        let why = "a lesson runs kernels, and the CPU twins have none; it needs a GPU, or a software driver such as \
                   lavapipe (`ratel devices` lists what there is)";
        return Err(Failure::Usage(why.to_owned()));
    };
    let full = engine.target_stored(Elem::F32, WeightStorage::F32)?;
    let shape = args.shape.clone().unwrap_or_else(|| usual_shape(lesson.name, full.software).to_owned());
    let op = asked.map_or_else(|| shape::op(lesson.op, &shape), Ok)?;
    // on a GPU plans compute in half precision where they can, which is a step of its own
    let half = (info.f16 && !full.software).then(|| engine.target_stored(Elem::F16, WeightStorage::F16)).transpose()?;
    let top = lesson.rungs.len() + 1 + usize::from(half.is_some());
    if let Some(number) = args.rung.filter(|number| *number > top) {
        return Err(Failure::Usage(format!("--rung {number}: {} has rungs 1 to {top} on this device", lesson.name)));
    }

    let spinner = progress::spinner();
    let result = (|| -> Result<(Roof, Ladder), Failure> {
        let mut tell = |what: &str| spinner.set_message(format!("the roof: {what}"));
        let roof = match &args.shaders {
            None => Roof::cached(&engine, &mut tell)?,
            // the roof is the device's, whatever the reader has edited
            Some(_) => Roof::cached(&setup::engine_to_time(&args.device, None)?, &mut tell)?,
        };
        let mut rungs = made_for_the_lesson(lesson, &op, &full);
        let top = choose(&op, &full).ok_or_else(|| nothing(lesson, &engine))?;
        let shipped = |number, top: &Choice, elem| (rung(number, top.kernel, elem, true), Some(top.clone()));
        rungs.push(shipped(rungs.len() + 1, &top, Elem::F32));
        if let Some(target) = &half {
            let top = choose(&op, target).ok_or_else(|| nothing(lesson, &engine))?;
            rungs.push(shipped(rungs.len() + 1, &top, Elem::F16));
        }
        if let Some(number) = args.rung {
            rungs.retain(|(rung, _)| (number.saturating_sub(1)..=number).contains(&rung.number));
        }
        let budget = Duration::from_secs_f64(args.seconds);
        for target in [full].iter().chain(&half) {
            spinner.set_message(format!("the right answer, by the twin ({})", si(op.flops(), "FLOP")));
            let mut here: Vec<_> = rungs.iter_mut().filter(|(rung, _)| rung.elem == target.elem).collect();
            let choices: Vec<Choice> = here.iter().filter_map(|(_, choice)| choice.clone()).collect();
            let waiting = here.iter_mut().filter(|(_, choice)| choice.is_some());
            if choices.is_empty() {
                continue;
            }
            for ((rung, _), entrant) in waiting.zip(climb(&engine, &op, target, &choices, budget)?) {
                spinner.set_message(rung.kernel.name);
                rung.outcome = outcome(entrant)?;
            }
        }
        Ok((roof, rungs))
    })();
    spinner.finish_and_clear();
    let (roof, rungs) = result?;
    let mut rungs: Vec<Rung> = rungs.into_iter().map(|(rung, _)| rung).collect();
    compare(&mut rungs, &roof);
    let shaders = args.shaders.as_deref().map_or(Shaders::Embedded, |folder| Shaders::Directory(folder.to_owned()));
    let (device, software, checked) = (engine.name(), full.software, args.shaders.is_some());
    Ok(Climb { lesson, shape, op, device, software, roof, shaders, checked, rungs })
}

fn rung(number: usize, kernel: &'static Kernel, elem: Elem, shipped: bool) -> Rung {
    Rung { number, kernel, elem, shipped, outcome: Outcome::Skipped("") }
}

/// The lesson's own rungs, with how they do the op where they can.
fn made_for_the_lesson(lesson: &'static Lesson, op: &Op, target: &Target) -> Ladder {
    let plain =
        choices(op, target).iter().any(|choice| lesson.rungs.iter().any(|rung| rung.name == choice.kernel.name));
    let of = |(number, kernel): (usize, &&'static Kernel)| {
        let choice = (kernel.schedule)(op, target).map(|schedule| Choice { kernel, schedule });
        let mut rung = rung(number, kernel, Elem::F32, false);
        rung.outcome = Outcome::Skipped(if plain { lesson.needs(kernel) } else { BARE });
        (rung, choice)
    };
    (1..).zip(lesson.rungs).map(of).collect()
}

/// What every rung needs.
const BARE: &str = "the plain op: rungs leave out layers, gates, biases, activations and residuals";

fn nothing(lesson: &Lesson, engine: &Engine) -> EngineError {
    EngineError::NoKernel { op: lesson.op.to_owned(), device: engine.name() }
}

/// A mistake in a kernel is that kernel's; everything else ends the lesson.
fn outcome(entrant: Result<Entrant, EngineError>) -> Result<Outcome, Failure> {
    match entrant {
        Ok(entrant) => Ok(match (entrant.timing, &entrant.check) {
            (None, Some(check)) => Outcome::Wrong(check.clone()),
            (timing, _) => {
                let (median, spread) =
                    timing.map_or((0.0, 0.0), |timing| (timing.seconds.median, timing.seconds.spread));
                let bound = String::new();
                Outcome::Timed { entrant, median, spread, before: None, certain: false, of_roof: 0.0, bound }
            }
        }),
        Err(error @ (EngineError::Shader(_) | EngineError::Link(_) | EngineError::Operands { .. })) => {
            Ok(Outcome::Failed(error.to_string()))
        }
        Err(other) => Err(other.into()),
    }
}

/// Each rung with the one before it and with the roof.
fn compare(rungs: &mut [Rung], roof: &Roof) {
    // the rate of cooperative matrices is not to be had in full precision
    let plain = Roof { matrix_flops: None, ..roof.clone() };
    let mut last: Option<(usize, f64, f64)> = None;
    for rung in rungs {
        let Outcome::Timed { entrant, median, spread, before, certain, of_roof, bound } = &mut rung.outcome else {
            continue;
        };
        let roof = if rung.elem == Elem::F32 { &plain } else { roof };
        let best = roof.attainable(entrant.cost.flops, entrant.cost.bytes);
        *of_roof = best.seconds / *median;
        *bound = best.bound.to_string();
        // of what was timed once or twice no spread is known
        let few = entrant.timing.is_some_and(|timing| timing.seconds.runs < 3);
        let own_noise = if few { spread.max(0.1) } else { *spread };
        if let Some((number, time, noise)) = last {
            let ratio = time / *median;
            *before = Some((number, ratio));
            *certain = (ratio.max(1.0 / ratio) - 1.0) > 2.0 * (noise + own_noise);
        }
        last = Some((rung.number, *median, own_noise));
    }
}

/// Where an output's value number `index` is, as the op's mathematics names it.
pub(crate) fn element(op: &Op, index: usize) -> String {
    match op {
        Op::Matmul(op) => format!("y[{}, {}]", index / op.n, index % op.n),
        Op::Conv2d(op) => {
            let pixel = index / op.n;
            let (i, v, u) = (pixel / op.out_w / op.out_h, pixel / op.out_w % op.out_h, pixel % op.out_w);
            format!("y[{i}, {v}, {u}, {}]", index % op.n)
        }
        Op::Attention(op) => {
            let (place, column) = (index / (op.heads * op.dim), index % (op.heads * op.dim));
            let (image, query) = (place / op.queries, place % op.queries);
            format!("y[image {image}, query {query}, head {}, value {}]", column / op.dim, column % op.dim)
        }
        Op::GroupNormStats(op) => {
            let (which, at) = (["mean", "square"][index % 2], index / 2);
            let (g, chunks) = (at % op.groups, op.pixels.div_ceil(op.chunk));
            let (image, k) = (at / op.groups / chunks, at / op.groups % chunks);
            format!("the {which} of stats[image {image}, chunk {k}, group {g}]")
        }
        _ => format!("value {index}"),
    }
}

/// How wrong a result is, and where.
pub(crate) fn blame(op: &Op, check: &Check) -> String {
    let mut said = vec![format!("error {:.1e}, and {:.0e} is allowed", check.nmse, check.tolerance)];
    if let Some(Wrong { count, first, worst }) = check.wrong {
        let value = |d: ratel_engine::Difference| match d.found.is_nan() {
            true => format!("{} is not a number, or not written; it should be {}", element(op, d.index), d.expected),
            false => format!("{} is {} and should be {}", element(op, d.index), d.found, d.expected),
        };
        said.push(format!("{count} of {} values are off by more than a thousandth of the largest", check.compared));
        said.push(format!("the first: {}", value(first)));
        if worst.index != first.index {
            said.push(format!("the worst: {}", value(worst)));
        }
    } else if check.nmse > check.tolerance {
        said.push("no value is off by more than a thousandth of the largest, but too many by less".to_owned());
    }
    if check.stray > 0 {
        said.push(format!("{} bytes were written outside of the output", check.stray));
    }
    said.join("; ")
}

/// Writes the rungs of a lesson where the reader can edit them.
fn copy(lesson: &Lesson, folder: &Path) -> Result<(), Failure> {
    let mut files: Vec<(&str, &str)> = lesson.rungs.iter().map(|rung| (rung.path, rung.source)).collect();
    files.push((lesson.path, lesson.text));
    let there: Vec<_> = files.iter().map(|(path, _)| folder.join(path)).filter(|path| path.exists()).collect();
    if let Some(path) = there.first() {
        return Err(Failure::Usage(format!("{} is there already; nothing was copied", path.display())));
    }
    let lessons = folder.join("lessons");
    std::fs::create_dir_all(&lessons).map_err(|source| Failure::Write { path: lessons.clone(), source })?;
    for (path, text) in files {
        write_whole(&folder.join(path), |out| out.write_all(text.as_bytes()))?;
        println!("{}", folder.join(path).display());
    }
    println!("edit one, then: ratel lesson {} --shaders {}", lesson.name, folder.display());
    Ok(())
}

fn json(climb: &Climb) -> serde_json::Value {
    let difference = |op: &Op, d: &ratel_engine::Difference| {
        // JSON has no number for what is none
        let found = d.found.is_finite().then_some(d.found);
        json!({ "element": element(op, d.index), "index": d.index, "found": found, "expected": d.expected })
    };
    let rung = |rung: &Rung| {
        let section = climb.lesson.section(rung.kernel.name);
        let mut line = json!({
            "rung": rung.number,
            "kernel": rung.kernel.name,
            "file": climb.shaders.file(rung.kernel.path),
            "elem": rung.elem.to_string(),
            "shipped": rung.shipped,
            "text": section.text.join("\n\n"),
        });
        match &rung.outcome {
            Outcome::Skipped(needs) => line["skipped"] = json!(needs),
            Outcome::Failed(why) => line["failed"] = json!(why),
            Outcome::Wrong(check) => {
                line["failed"] = json!(blame(&climb.op, check));
                line["nmse"] = json!(check.nmse.is_finite().then_some(check.nmse));
                line["wrong"] = json!(check.wrong.map(|wrong| json!({
                    "count": wrong.count,
                    "first": difference(&climb.op, &wrong.first),
                    "worst": difference(&climb.op, &wrong.worst),
                })));
            }
            Outcome::Timed { entrant, median, spread, before, certain, of_roof, bound } => {
                line["nmse"] = json!(entrant.check.as_ref().map(|check| check.nmse));
                line["seconds"] = json!(median);
                line["spread"] = json!(spread);
                line["runs"] = json!(entrant.timing.map(|timing| timing.seconds.runs));
                line["device_clock"] = json!(entrant.timing.map(|timing| timing.device_clock));
                line["flops"] = json!(entrant.cost.flops);
                line["bytes"] = json!(entrant.cost.bytes);
                line["times_as_fast"] = json!(before.map(|(number, ratio)| json!({
                    "as_rung": number, "ratio": ratio, "beyond_noise": certain,
                })));
                line["of_roof"] = json!(of_roof);
                line["bound"] = json!(bound);
            }
        }
        line
    };
    json!({
        "lesson": climb.lesson.name,
        "op": format!("{:?}", climb.op),
        "shape": climb.shape,
        "device": climb.device,
        "bounds_checks": climb.checked,
        "rungs": climb.rungs.iter().map(rung).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lesson_has_shapes_that_every_rung_can_do() {
        for lesson in LESSONS {
            for software in [true, false] {
                let text = usual_shape(lesson.name, software);
                let op = shape::op(lesson.op, text).unwrap_or_else(|error| panic!("{}: {error}", lesson.name));
                let target = Target { subgroup: Some(32), ..Target::PLAIN };
                for kernel in lesson.rungs {
                    assert!((kernel.schedule)(&op, &target).is_some(), "{} on {text}", kernel.name);
                }
            }
        }
    }

    #[test]
    fn elements_are_named_as_the_mathematics_does() {
        let op = |name, shape| crate::shape::op(name, shape).expect("a shape");
        assert_eq!(element(&op("matmul", "m=4,n=5,k=3"), 13), "y[2, 3]");
        assert_eq!(element(&op("conv2d", "batch=2,h=3,w=4,c=1,n=5"), 5 * 12 + 5 * 6 + 7), "y[1, 1, 3, 2]");
        let attention = op("attention", "batch=2,heads=2,dim=3,queries=4");
        assert_eq!(element(&attention, 24 + 6 + 4), "y[image 1, query 1, head 1, value 1]");
        let stats = op("group_norm_stats", "batch=2,pixels=8,c=4,groups=2,chunk=4");
        assert_eq!(element(&stats, 8 + 4 + 2 + 1), "the square of stats[image 1, chunk 1, group 1]");
    }
}
