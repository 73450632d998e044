//! The header of each kernel says what the Rust half says: its bindings with their types and shapes, its cost, its twin.
//!
//! Shapes and costs are written as products, sums and quotients of names, as in `2 M N K` or `count / span * period`;
//! two names side by side are multiplied. A name is
//! - one of the schedule's overrides,
//! - one of the op's params, in capitals or not,
//! - `images`: `batch`, or `m / image_rows` for a matrix product,
//! - `chunks`: `pixels / chunk`, rounded up.

use ratel_kernels::lessons::LESSONS;
use ratel_kernels::{Choice, Limits, Op, Operand, Param, Role, Target, WeightStorage, kernels};
use ratel_tensor::Elem;
use ratel_tests::repository::root;
use ratel_tests::variants::{cases, choices};
use std::collections::HashMap;

/// A tensor's row in a header.
#[derive(Debug)]
struct Row<'a> {
    names: Vec<&'a str>,
    shape: &'a str,
    kind: &'a str,
}

/// The comment at the head of a kernel's file.
struct Header<'a> {
    first: &'a str,
    rows: Vec<Row<'a>>,
    /// The rest of the lines that begin with Grid, Cost, Source, Twin, in the order in which they come.
    parts: Vec<(&'a str, &'a str)>,
}

impl<'a> Header<'a> {
    fn of(source: &'a str) -> Self {
        let lines: Vec<&str> = source.lines().map_while(|line| line.strip_prefix("//")).collect();
        let part = |line: &&'a str| {
            let (name, rest) = line.strip_prefix(' ')?.split_once(' ')?;
            ["Grid", "Cost", "Source", "Twin"].contains(&name).then_some((name, rest.trim()))
        };
        Header {
            first: lines.first().map_or("", |line| line.trim()),
            rows: lines.iter().filter_map(|line| Row::of(line)).collect(),
            parts: lines.iter().filter_map(part).collect(),
        }
    }

    fn part(&self, name: &str) -> &'a str {
        self.parts.iter().find(|(known, _)| *known == name).map_or("", |(_, rest)| rest)
    }
}

impl<'a> Row<'a> {
    /// Reads `   q, y  (images, QUERIES)   Elem   whatever`.
    fn of(line: &'a str) -> Option<Self> {
        let (names, rest) = line.strip_prefix("   ")?.split_once(" (")?;
        let mut depth = 1; // of the parentheses that are open
        let end = rest.find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        })?;
        let (shape, rest) = rest.split_at(end);
        let kind = rest.strip_prefix(")  ")?.split_whitespace().next()?;
        let names: Vec<_> = names.trim().split(", ").collect();
        let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        names.iter().all(is_name).then_some(Row { names, shape, kind })
    }
}

/// The scalar and the number of them in an element, of a type in a header or in WGSL.
fn element(kind: &str) -> Option<(&'static str, usize)> {
    Some(match kind {
        "Elem" => ("Elem", 1),
        "ElemPair" => ("Elem", 2),
        "Elem4" => ("Elem", 4),
        "Out" => ("Out", 1),
        "Out4" => ("Out", 4),
        "Weight" | "WeightWord" => ("Weight", 1),
        "WeightPair" => ("Weight", 2),
        "Weight4" => ("Weight", 4),
        "f32" => ("f32", 1),
        "vec2<f32>" => ("f32", 2),
        "vec4<f32>" => ("f32", 4),
        "u32" => ("u32", 1),
        "u8" => ("u8", 1),
        _ => return None,
    })
}

/// What a header calls the values of an operand.
fn scalar(role: Role) -> &'static str {
    match role {
        Role::Activation => "Elem",
        Role::Weight => "Weight",
        Role::Vector => "f32",
        Role::Ids { .. } => "u32",
        Role::Bytes => "u8",
    }
}

/// The bindings that a kernel's text declares: name and element type.
fn declared(source: &str) -> Vec<(&str, &str)> {
    source
        .lines()
        .filter(|line| line.starts_with("@group("))
        .filter_map(|line| {
            let (name, kind) = line.split_once("> ")?.1.split_once(": array<")?;
            Some((name, kind.strip_suffix(">;")?))
        })
        .collect()
}

#[test]
fn headers_have_their_parts_and_name_every_binding() {
    let mut failures = Vec::new();
    for kernel in kernels().into_iter().chain(LESSONS.iter().flat_map(|lesson| lesson.rungs.iter().copied())) {
        let header = Header::of(kernel.source);
        let mut demand = |held: bool, why: String| {
            if !held {
                failures.push(format!("{}: {why}", kernel.path));
            }
        };
        let maths = header.first.strip_prefix(kernel.name).and_then(|rest| rest.strip_prefix(": "));
        demand(maths.is_some(), format!("the first line begins with `{}: ` and what is computed", kernel.name));
        let parts: Vec<_> = header.parts.iter().map(|(name, _)| *name).collect();
        demand(parts == ["Grid", "Cost", "Source", "Twin"], format!("the parts are {parts:?}"));
        let twin = header.part("Twin");
        demand(root().join(twin).is_file() && twin.ends_with(".rs"), format!("there is no twin `{twin}`"));

        let bindings = declared(kernel.source);
        demand(!bindings.is_empty(), "no binding is declared".to_owned());
        for (name, kind) in &bindings {
            let Some(row) = header.rows.iter().find(|row| row.names.contains(name)) else {
                demand(false, format!("`{name}` has no row in the header"));
                continue;
            };
            let fits = match (element(row.kind), element(kind)) {
                (Some(("u8", 1)), Some(("u32", 1))) => true, // four in a word
                (Some((said, width)), Some((is, is_width))) => said == is && (width == 1 || width == is_width),
                _ => false,
            };
            demand(fits, format!("`{name}` is array<{kind}>, {} in the header", row.kind));
        }
        for name in header.rows.iter().flat_map(|row| &row.names) {
            demand(bindings.iter().any(|(known, _)| known == name), format!("`{name}` is in the header only"));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn headers_give_the_shapes_and_the_cost_of_the_rust_half() {
    let mut failures = Vec::new();
    let mut checked = 0;
    let software = Target { software: true, subgroup: Some(8), f16: true, ..Target::PLAIN };
    let gpu = Target { subgroup: Some(32), f16: true, ..Target::PLAIN };
    let limits = Limits { workgroup_bytes: 48 << 10, ..Limits::WEBGPU };
    let (elem, weight) = (Elem::F16, WeightStorage::F16);
    let cooperative = Target { elem, weight, cooperative: Some(16), limits, ..gpu };
    let targets = [Target::PLAIN, software, gpu, cooperative];
    for (op, target) in cases().iter().flat_map(|op| targets.map(|t| (op, t))) {
        for choice in choices(op, &target) {
            checked += 1;
            failures.extend(disagreements(op, &choice).into_iter().map(|why| format!("{}: {why}", choice.kernel.path)));
        }
    }
    failures.sort();
    failures.dedup();
    assert!(checked > 0, "there are cases and kernels for them");
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn disagreements(op: &Op, choice: &Choice) -> Vec<String> {
    let header = Header::of(choice.kernel.source);
    let symbols = symbols(op, choice);
    let mut found = Vec::new();
    for Operand { name, role, count, .. } in op.operands() {
        let Some(row) = header.rows.iter().find(|row| row.names.contains(&name)) else {
            found.push(format!("the op's operand `{name}` has no row"));
            continue;
        };
        let Some((said, width)) = element(row.kind) else {
            found.push(format!("`{name}` is of no known type: {}", row.kind));
            continue;
        };
        // a matrix product writes activations, or sums in f32; rungs of lessons are in f32 throughout
        let fits = said == scalar(role)
            || (said == "Out" && ["Elem", "f32"].contains(&scalar(role)))
            || (said == "f32" && choice.kernel.path.starts_with("lessons/"));
        if !fits {
            found.push(format!("`{name}` holds {role:?}, {said} in the header"));
        }
        match product(row.shape, &symbols) {
            Ok(values) if (values * width as f64).round() == count as f64 => {}
            Ok(values) => found.push(format!("`{name}` ({}) is {values} {}, not {count}: {op:?}", row.shape, row.kind)),
            Err(why) => found.push(format!("`{name}` ({}): {why}", row.shape)),
        }
    }
    let cost = header.part("Cost");
    match cost.split_once(" flop").ok_or("there is no ` flop`".to_owned()).and_then(|(e, _)| value(e, &symbols)) {
        Ok(flops) if (flops - op.flops()).abs() <= 1e-9 * op.flops() => {}
        Ok(flops) => found.push(format!("`{cost}` is {flops}, not {}: {op:?}", op.flops())),
        Err(why) => found.push(format!("`{cost}`: {why}")),
    }
    found
}

/// The names that a header may use.
fn symbols(op: &Op, choice: &Choice) -> HashMap<String, f64> {
    let number = |param: Param| match param {
        Param::U32(v) => f64::from(v),
        Param::I32(v) => f64::from(v),
        Param::F32(v) => f64::from(v),
    };
    let mut all: HashMap<_, _> =
        choice.schedule.constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    all.extend(op.params().into_iter().map(|(name, param)| (name.to_owned(), number(param))));
    let get = |name: &str| all.get(name).copied();
    let images = get("batch").or_else(|| Some(get("m")? / get("image_rows")?));
    let chunks = get("pixels").zip(get("chunk")).map(|(pixels, chunk)| (pixels / chunk).ceil());
    all.extend(images.map(|images| ("images".to_owned(), images)));
    all.extend(chunks.map(|chunks| ("chunks".to_owned(), chunks)));
    all
}

/// The product of a shape's sides.
fn product(shape: &str, symbols: &HashMap<String, f64>) -> Result<f64, String> {
    shape.split(',').map(|side| value(side, symbols)).product()
}

/// The value of an expression.
fn value(text: &str, symbols: &HashMap<String, f64>) -> Result<f64, String> {
    let mut expression = Expression { rest: text.trim(), symbols };
    let value = expression.sum()?;
    if expression.rest.is_empty() { Ok(value) } else { Err(format!("unexpected `{}`", expression.rest)) }
}

struct Expression<'a> {
    /// What has not been read; never begins with white space.
    rest: &'a str,
    symbols: &'a HashMap<String, f64>,
}

impl Expression<'_> {
    fn take(&mut self, token: char) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.map_or(self.rest, str::trim_start);
        rest.is_some()
    }

    fn sum(&mut self) -> Result<f64, String> {
        let mut value = self.product()?;
        loop {
            if self.take('+') {
                value += self.product()?;
            } else if self.take('-') {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<f64, String> {
        let mut value = self.factor()?;
        loop {
            if self.take('/') {
                value /= self.factor()?;
            } else if self.take('*') || self.rest.starts_with(|c: char| c == '(' || c.is_alphanumeric()) {
                value *= self.factor()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn factor(&mut self) -> Result<f64, String> {
        if self.take('(') {
            let value = self.sum()?;
            return if self.take(')') { Ok(value) } else { Err("a parenthesis is not closed".to_owned()) };
        }
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        let symbol = self.symbols.get(word).or_else(|| self.symbols.get(&word.to_lowercase()));
        let known = word.parse().ok().or(symbol.copied());
        known.ok_or_else(|| format!("`{word}` is neither a number nor a name that headers may use"))
    }
}

#[test]
fn expressions_are_read_as_they_are_written() {
    let symbols: HashMap<_, _> = [("m".to_owned(), 3.0), ("k1".to_owned(), 5.0)].into();
    let of = |text| value(text, &symbols);
    assert_eq!(of("2 M k1"), Ok(30.0));
    assert_eq!(of("(4 M + 5) K1"), Ok(85.0));
    assert_eq!(of("M / 2 * 4 - 1"), Ok(5.0));
    assert!(of("2 q").is_err() && of("(2").is_err() && of("2 )").is_err() && of("").is_err());
    assert_eq!(product("2, M, 1 + K1", &symbols), Ok(36.0));
}
