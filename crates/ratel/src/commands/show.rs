use super::setup;
use crate::args::{Layout, ShowArgs, Variant};
use crate::terminal::{Ink, fold, near, width};
use crate::{Failure, shape};
use ratel_engine::{Engine, EngineError};
use ratel_kernels::lessons::LESSONS;
use ratel_kernels::{
    Choice, Excerpt, Kernel, Op, Options, Schedule, Shaders, Target, WeightStorage, link_with_places, twin_text,
};
use ratel_tensor::Elem;
use serde_json::json;

/// From this width on the twin stands beside the kernel.
const ROOM_FOR_TWO: usize = 150;

/// Prints a kernel's mathematics, its WGSL and its twin.
pub(crate) fn run(args: ShowArgs) -> Result<(), Failure> {
    let Subject { kernel, op, cases } = find(&args.name)?;
    let shaders = match &args.shaders {
        Some(folder) if !folder.is_dir() => {
            return Err(Failure::Usage(format!("--shaders {}: no such folder", folder.display())));
        }
        Some(folder) => Shaders::Directory(folder.clone()),
        None => Shaders::Embedded,
    };
    let text = shaders.of_kernel(kernel).map_err(EngineError::from)?;
    let variant = args.variant.map(|variant| fill_in(variant, kernel, &op, &cases, &args, &shaders)).transpose()?;
    let twin = twin_text(op.name());
    let files = match &variant {
        Some(variant) => variant.files.clone(),
        None => vec![File { name: shaders.file(kernel.path), lines: numbered(&text, 1) }],
    };
    if args.json {
        let lines = |file: &File| file.lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n");
        let wgsl: Vec<_> = files.iter().map(|file| json!({ "file": file.name, "text": lines(file) })).collect();
        let of_twin =
            |e: &Excerpt| json!({ "file": rust_file(e), "function": e.function, "line": e.line, "text": e.text });
        let object = json!({
            "kernel": kernel.name,
            "op": op.name(),
            "kernels": op.kernels().iter().map(|kernel| kernel.name).collect::<Vec<_>>(),
            "needs": needs(kernel),
            "mathematics": header(&text).iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n"),
            "imports": imports(&text),
            "variant": variant.as_ref().map(Filled::json),
            "wgsl": wgsl,
            "twin": twin.iter().map(of_twin).collect::<Vec<_>>(),
        });
        println!("{object}");
        return Ok(());
    }

    let ink = Ink::new();
    println!("{}", ink.bold(&format!("{} ({})", kernel.name, shaders.file(kernel.path))));
    println!("a kernel of the op {}; needs {}", op.name(), needs(kernel));
    let others: Vec<_> = op.kernels().iter().map(|k| k.name).filter(|name| *name != kernel.name).collect();
    if !others.is_empty() {
        println!("the op's other kernels: {}", others.join(", "));
    }
    if let Some(lesson) = LESSONS.iter().find(|lesson| lesson.op == op.name()) {
        println!("from the naive kernel up, on your device: ratel lesson {}", lesson.name);
    }
    println!();
    header(&text).iter().for_each(|(_, line)| println!("{line}"));
    println!();
    if let Some(variant) = &variant {
        println!("{}", variant.told());
        println!();
    }

    let width = args.width.map_or_else(width, usize::from);
    let side = match args.layout {
        Layout::Auto => width >= ROOM_FOR_TWO,
        Layout::Side => true,
        Layout::Below => false,
    };
    let mut left = Vec::new();
    for file in &files {
        left.push(Cell::Title(file.name.clone()));
        // the header was printed above
        let skip = if file.name == shaders.file(kernel.path) { header(&text).len() } else { 0 };
        let body = file.lines.iter().skip(skip).skip_while(|(_, line)| line.is_empty());
        left.extend(body.map(|(number, line)| Cell::Line(*number, line.clone())));
    }
    let mut right = Vec::new();
    for (i, excerpt) in twin.iter().enumerate() {
        let same_file = i > 0 && twin[i - 1].module == excerpt.module;
        right.push(Cell::Title(if same_file { String::new() } else { rust_file(excerpt) }));
        right.extend(numbered(excerpt.text, excerpt.line).into_iter().map(|(number, line)| Cell::Line(number, line)));
    }
    if side {
        let column = (width - 3) / 2;
        let [left, right] =
            [left, right].map(|cells| cells.iter().flat_map(|cell| cell.rows(column)).collect::<Vec<_>>());
        for i in 0..left.len().max(right.len()) {
            let row = |rows: &[Row]| rows.get(i).map_or((String::new(), 0), |row| (row.painted(ink), row.width()));
            let ((left, width), (right, _)) = (row(&left), row(&right));
            println!("{}", format!("{left}{} | {right}", " ".repeat(column.saturating_sub(width))).trim_end());
        }
    } else {
        for cells in [left, right] {
            cells.iter().flat_map(|cell| cell.rows(width)).for_each(|row| println!("{}", row.painted(ink).trim_end()));
            println!();
        }
    }
    Ok(())
}

/// What a name stands for.
struct Subject {
    kernel: &'static Kernel,
    /// An op that it can be used for.
    op: Op,
    /// The shapes that it is tested on.
    cases: Vec<Op>,
}

fn find(name: &str) -> Result<Subject, Failure> {
    let cases = Op::all_cases();
    let of_op = |op: &Op| cases.iter().filter(|case| case.name() == op.name()).cloned().collect::<Vec<_>>();
    for op in &cases {
        let kernel = match op.name() == name {
            true => op.kernels().first().copied(),
            false => op.kernels().into_iter().find(|kernel| kernel.name == name),
        };
        if let Some(kernel) = kernel {
            return Ok(Subject { kernel, op: op.clone(), cases: of_op(op) });
        }
    }
    for lesson in LESSONS {
        let cases = (lesson.cases)();
        if let Some((kernel, op)) = lesson.rungs.iter().find(|rung| rung.name == name).zip(cases.first().cloned()) {
            return Ok(Subject { kernel, op, cases });
        }
    }
    let kernels = ratel_kernels::kernels();
    let rungs = LESSONS.iter().flat_map(|lesson| lesson.rungs).map(|rung| rung.name);
    let known = kernels.iter().map(|kernel| kernel.name).chain(rungs);
    let near = near(name, known);
    Err(Failure::Usage(match near.is_empty() {
        true => format!("no kernel is called `{name}`; `ratel kernels` lists them"),
        false => format!("no kernel is called `{name}`; did you mean {}?", near.join(", ")),
    }))
}

fn needs(kernel: &Kernel) -> &'static str {
    let of_lesson = LESSONS.iter().find(|lesson| lesson.rungs.iter().any(|rung| rung.name == kernel.name));
    of_lesson.map_or_else(|| kernel.needs(), |lesson| lesson.needs(kernel))
}

/// A text's lines with their numbers.
fn numbered(text: &str, first: usize) -> Vec<(usize, String)> {
    (first..).zip(text.lines().map(str::to_owned)).collect()
}

/// The comment that a kernel begins with, without its marks.
fn header(text: &str) -> Vec<(usize, String)> {
    let lines = text.lines().map_while(|line| line.strip_prefix("//"));
    (1..).zip(lines.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned())).collect()
}

/// What a kernel imports, as it writes it.
fn imports(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("import ")).map(|line| line.trim_end_matches(';')).collect()
}

fn rust_file(excerpt: &Excerpt) -> String {
    format!("crates/ratel-kernels/src/{}.rs", excerpt.module)
}

/// A file's lines, with their numbers in it.
#[derive(Clone)]
struct File {
    name: String,
    lines: Vec<(usize, String)>,
}

/// A kernel as a device gets it.
struct Filled {
    op: Op,
    /// What it was made for.
    device: String,
    target: Target,
    schedule: Schedule,
    files: Vec<File>,
}

impl Filled {
    fn told(&self) -> String {
        let Filled { op, device, target, schedule, .. } = self;
        let [x, y, z] = schedule.workgroups;
        let types = format!("activations {}, matrices {:?}", target.elem, target.weight);
        format!("filled in for {op:?}\non {device}, {types}: a grid of {x} x {y} x {z} workgroups")
    }

    fn json(&self) -> serde_json::Value {
        let Filled { op, device, target, schedule, .. } = self;
        let constants: serde_json::Map<_, _> =
            schedule.constants.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let extents: serde_json::Map<_, _> =
            schedule.extents.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        json!({
            "op": format!("{op:?}"), "device": device, "elem": target.elem.to_string(),
            "weights": format!("{:?}", target.weight), "constants": constants, "extents": extents,
            "workgroups": schedule.workgroups,
        })
    }
}

/// The text that a device gets: the reader's own if the kernel can be used there, else one that has what it needs.
fn fill_in(
    variant: Variant,
    kernel: &'static Kernel,
    op: &Op,
    cases: &[Op],
    args: &ShowArgs,
    shaders: &Shaders,
) -> Result<Filled, Failure> {
    let cases = match &args.shape {
        Some(text) => vec![shape::op(op.name(), text)?],
        None => cases.to_vec(),
    };
    let engine = setup::engine(&args.device, None)?;
    let devices = devices(&engine, variant);
    let fitting = devices.iter().find_map(|(device, target)| {
        let case = cases.iter().find_map(|op| Some((op.clone(), (kernel.schedule)(op, target)?)));
        case.map(|(op, schedule)| (device.clone(), *target, Choice { kernel, schedule }, op))
    });
    let (device, target, Choice { schedule, .. }, op) = fitting.ok_or_else(|| {
        let what =
            args.shape.as_ref().map_or("in that variant".to_owned(), |shape| format!("on {shape} in that variant"));
        Failure::Usage(format!("{} can't be used {what}: it needs {}", kernel.name, needs(kernel)))
    })?;
    let (elem, weight) = (target.elem, target.weight);
    let options = Options { elem, weight, immediates: true, unroll: false, shaders: shaders.clone() };
    let linked = link_with_places(kernel, &schedule, &options).map_err(EngineError::from)?;
    let lines: Vec<&str> = linked.wgsl.lines().collect();
    let ends = linked.files.iter().skip(1).map(|(_, first)| first - 1).chain([lines.len()]);
    let files =
        linked.files.iter().zip(ends).filter(|((_, first), end)| first <= end).map(|((path, first), end)| File {
            name: if path.is_empty() { "what is chosen for the shape".to_owned() } else { shaders.file(path) },
            lines: (1..).zip(lines[first - 1..end].iter().map(|line| with_value(line, &schedule))).collect(),
        });
    let files = files.collect();
    Ok(Filled { op, device, target, schedule, files })
}

/// The reader's device, then some that have what kernels ask for.
fn devices(engine: &Engine, variant: Variant) -> Vec<(String, Target)> {
    let own = |weight| match variant {
        Variant::F32 => engine.target(Elem::F32, Elem::F32),
        Variant::Mixed => engine.target(Elem::F32, Elem::F16),
        Variant::F16 => engine.target_stored(Elem::F16, weight),
    };
    let own = own(WeightStorage::F16).ok().filter(|target| !target.twins);
    let (elem, weight) = match variant {
        Variant::F32 => (Elem::F32, WeightStorage::F32),
        Variant::Mixed => (Elem::F32, WeightStorage::F16),
        Variant::F16 => (Elem::F16, WeightStorage::F16),
    };
    let gpu = Target { elem, weight, f16: true, subgroup: Some(32), ..Target::PLAIN };
    let mut matrices = Target { cooperative: Some(16), ..gpu };
    matrices.limits.workgroup_bytes = 48 << 10;
    let others = [
        ("a GPU with subgroups of 32 lanes", gpu),
        ("a driver on the CPU with subgroups of 8 lanes", Target { software: true, subgroup: Some(8), ..gpu }),
        ("a GPU with cooperative matrices", matrices),
    ];
    let own = own.map(|target| (engine.name(), target));
    own.into_iter().chain(others.map(|(name, target)| (name.to_owned(), target))).collect()
}

/// A line that declares an `override`, with the value that the schedule gives it.
fn with_value(line: &str, schedule: &Schedule) -> String {
    let declaration = line.strip_prefix("override ").and_then(|rest| rest.split_once(": "));
    let Some((name, rest)) = declaration else { return line.to_owned() };
    let Some((_, value)) = schedule.constants.iter().find(|(known, _)| *known == name) else { return line.to_owned() };
    let kind = rest.split([' ', ';']).next().unwrap_or_default();
    let value = match kind {
        "bool" => (*value != 0.0).to_string(),
        "u32" => format!("{value}u"),
        _ => value.to_string(),
    };
    format!("override {name}: {kind} = {value};   // filled in")
}

/// A line of one of the two columns.
enum Cell {
    Title(String),
    Line(usize, String),
}

/// What fits in a row of a column.
struct Row {
    number: String,
    text: String,
    is_title: bool,
}

impl Cell {
    fn rows(&self, width: usize) -> Vec<Row> {
        match self {
            Cell::Title(title) => {
                let rows = fold(title, width).into_iter();
                rows.map(|text| Row { number: String::new(), text, is_title: true }).collect()
            }
            Cell::Line(number, line) => {
                let first = format!("{number:4}  ");
                let numbers = [first].into_iter().chain(std::iter::repeat(" ".repeat(6)));
                let pieces = fold(line, width - 6);
                numbers.zip(pieces).map(|(number, text)| Row { number, text, is_title: false }).collect()
            }
        }
    }
}

impl Row {
    fn width(&self) -> usize {
        self.number.chars().count() + self.text.chars().count()
    }

    fn painted(&self, ink: Ink) -> String {
        match self.is_title {
            true => ink.bold(&self.text).into_owned(),
            false => format!("{}{}", ink.dim(&self.number), ink.source(&self.text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_are_filled_in() {
        let constants = vec![("WG", 8.0), ("BIAS", 1.0)];
        let schedule = Schedule { constants, extents: vec![], workgroups: [1; 3], merit: 0.0 };
        let filled = |line| with_value(line, &schedule);
        assert_eq!(filled("override WG: u32 = 64u;"), "override WG: u32 = 8u;   // filled in");
        assert_eq!(filled("override BIAS: bool = false;"), "override BIAS: bool = true;   // filled in");
        assert_eq!(filled("override ACT: u32 = 0u;"), "override ACT: u32 = 0u;");
        assert_eq!(filled("let WG: u32 = 1;"), "let WG: u32 = 1;");
    }

    #[test]
    fn every_kernel_and_every_rung_is_found_and_can_be_filled_in() {
        let rungs = LESSONS.iter().flat_map(|lesson| lesson.rungs.iter().map(|rung| rung.name));
        for name in ratel_kernels::kernels().iter().map(|kernel| kernel.name).chain(rungs) {
            let Ok(Subject { kernel, cases, .. }) = find(name) else { panic!("{name}") };
            assert!(kernel.name == name || cases[0].name() == name);
            let can = |variant| {
                let targets = devices(&Engine::twins(), variant);
                targets.iter().any(|(_, target)| cases.iter().any(|op| (kernel.schedule)(op, target).is_some()))
            };
            assert!(can(Variant::F32) || can(Variant::F16), "{name}");
        }
        let Err(failure) = find("matmul_subgrup") else { panic!("there is none") };
        assert!(failure.to_string().contains("did you mean matmul_subgroup"), "{failure}");
    }
}
