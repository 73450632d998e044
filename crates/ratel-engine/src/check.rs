//! Kernels against their CPU twins, on the device at hand, with random operands between guard bands.

use crate::buffer::{from_f16, to_f16};
use crate::engine::Where;
use crate::time::Timing;
use crate::{Engine, EngineError, cpu};
use half::f16;
use ratel_kernels::{Choice, Op, Operand, Role, Target, WeightStorage, choose, kernels_of, variants};
use ratel_tensor::Elem;
use std::time::{Duration, Instant};

/// What lies before and behind an output.
const GUARD: u8 = 0xa5;

/// How a kernel's result compares with its twin's.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The kernel.
    pub kernel: &'static str,
    /// Normalised mean square error: squared differences over squares of the twin's values. Infinite when one of the
    /// two is not finite.
    pub nmse: f64,
    /// The largest difference.
    pub max_abs: f64,
    /// The largest value of the twin's, which `max_abs` is to be seen against.
    pub scale: f64,
    /// The largest `nmse` that the op allows.
    pub tolerance: f64,
    /// Values compared.
    pub compared: usize,
    /// Bytes written outside the output.
    pub stray: usize,
    /// What is wrong where, if the kernel did not pass.
    pub wrong: Option<Wrong>,
    /// Time of one run, submission and wait included, compilation not.
    pub time: Duration,
}

/// Where a result is not the twin's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wrong {
    /// Values that are off by more than a thousandth of the largest.
    pub count: usize,
    /// The first of them.
    pub first: Difference,
    /// The one that is off most.
    pub worst: Difference,
}

/// A value of an output, and what it should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Its number in the output.
    pub index: usize,
    /// What the kernel wrote; not a number where it wrote nothing.
    pub found: f32,
    /// What the twin wrote.
    pub expected: f32,
}

impl Check {
    /// Whether the kernel is as near to its twin as it must be, and wrote nowhere else.
    pub fn passed(&self) -> bool {
        self.compared > 0 && self.stray == 0 && self.nmse <= self.tolerance
    }
}

/// One line of [`selftest`].
#[derive(Debug)]
pub struct Row {
    /// The op with its sizes.
    pub op: Op,
    /// The kernel.
    pub kernel: &'static str,
    /// The type of activations.
    pub elem: Elem,
    /// The storage of layers' matrices.
    pub weight: WeightStorage,
    /// What came of it.
    pub result: Result<Check, EngineError>,
}

impl Row {
    /// Whether the kernel ran and passed.
    pub fn passed(&self) -> bool {
        self.result.as_ref().is_ok_and(Check::passed)
    }
}

/// Every case of every op, with every kernel that can do it here and has `part` in its name, in every combination of
/// element types. A driver on the CPU runs them as it would itself and as a GPU like it would. Lazy: the rows of an op are
/// computed when they are asked for. On the CPU twins there are no kernels and so no rows.
pub fn selftest(engine: &Engine, part: &str) -> impl Iterator<Item = Row> {
    let f16 = engine.device().is_some_and(|info| info.f16);
    let targets: Vec<Target> =
        variants(f16).into_iter().filter_map(|(elem, weight)| engine.target_stored(elem, weight).ok()).collect();
    let cases = if engine.device().is_some() { Op::all_cases() } else { vec![] };
    cases.into_iter().enumerate().flat_map(move |(number, op)| {
        let weighs = op.operands().iter().any(|operand| operand.role == Role::Weight);
        let mut rows = Vec::new();
        for (i, target) in targets.iter().enumerate() {
            // without a matrix, variants that differ only in its storage are the same
            if !weighs && targets[..i].iter().any(|earlier| earlier.elem == target.elem) {
                continue;
            }
            let mut choices = ways(&op, target);
            choices.retain(|choice| choice.kernel.name.contains(part));
            if choices.is_empty() {
                continue;
            }
            let trial = Trial::new(&op, target, number as u64);
            rows.extend(choices.iter().map(|choice| Row {
                op: op.clone(),
                kernel: choice.kernel.name,
                elem: target.elem,
                weight: target.weight,
                result:
                    trial.as_ref().map_or_else(|e| Err(EngineError::Plan(e.to_string())), |t| t.run(engine, choice)),
            }));
        }
        rows
    })
}

/// Every kernel that can do an op, scheduled as for the target and, where they differ, as for a GPU with its features.
fn ways(op: &Op, target: &Target) -> Vec<Choice> {
    let mut all = kernels_of(op, target);
    for choice in kernels_of(op, &Target { software: false, ..*target }) {
        let same = |known: &Choice| {
            let (a, b) = (&known.schedule, &choice.schedule);
            known.kernel.name == choice.kernel.name
                && (&a.constants, &a.extents, a.workgroups) == (&b.constants, &b.extents, b.workgroups)
        };
        if !all.iter().any(same) {
            all.push(choice);
        }
    }
    all
}

impl Engine {
    /// Runs an op on random operands and compares with its twin, which gets the same operands, rounded as the device has
    /// them. Without a `choice` the kernel of the greatest merit runs. Equal seeds give equal operands.
    ///
    /// # Errors
    /// If the engine has no device, the device lacks the types, or no kernel can do the op; what the device reports.
    pub fn check(
        &self,
        op: &Op,
        choice: Option<&Choice>,
        elem: Elem,
        weight: WeightStorage,
        seed: u64,
    ) -> Result<Check, EngineError> {
        let target = self.target_stored(elem, weight)?;
        let nothing = || EngineError::NoKernel { op: format!("{op:?}"), device: self.name() };
        let choice = choice.cloned().or_else(|| choose(op, &target)).ok_or_else(nothing)?;
        Trial::new(op, &target, seed)?.run(self, &choice)
    }
}

/// An op with operands and the right answer, good for any number of kernels.
pub(crate) struct Trial<'a> {
    op: &'a Op,
    target: &'a Target,
    /// Bytes of each input as the device has them.
    inputs: Vec<Vec<u8>>,
    /// The twin's output.
    expected: Vec<f32>,
}

impl<'a> Trial<'a> {
    pub(crate) fn new(op: &'a Op, target: &'a Target, seed: u64) -> Result<Self, EngineError> {
        let operands = op.operands();
        let mut random = Random(seed);
        let twin_target = Target::twins(target.weight);
        let twins = Engine::twins();
        let (mut inputs, mut regions) = (Vec::new(), Vec::new());
        for operand in &operands[..operands.len() - 1] {
            let values = Drawn::new(operand, &operands, &mut random);
            inputs.push(values.bytes(operand.role, target));
            let bytes = values.rounded(operand.role, target).bytes(operand.role, &twin_target);
            let memory = twins.allocate(operand.name, bytes.len() as u64)?;
            memory.write(0, &bytes)?;
            regions.push(memory);
        }
        let output = op.output();
        let bytes = output.bytes(&twin_target);
        let result = twins.allocate(output.name, bytes)?;
        result.write(0, &untouched(output.role, &twin_target, bytes))?;
        regions.push(result);
        let all: Vec<_> = regions.iter().map(|memory| memory.region(0, memory.bytes())).collect();
        cpu::run(op, &twin_target, &all)?;
        let expected = read_values(&output, &twin_target, &regions[regions.len() - 1].read(0, bytes)?);
        Ok(Trial { op, target, inputs, expected })
    }

    fn run(&self, engine: &Engine, choice: &Choice) -> Result<Check, EngineError> {
        self.run_and_time(engine, choice, Duration::ZERO).map(|(check, _)| check)
    }

    /// Runs a kernel on a device, compares, and if there is a budget for it and the kernel passed, times it.
    pub(crate) fn run_and_time(
        &self,
        engine: &Engine,
        choice: &Choice,
        budget: Duration,
    ) -> Result<(Check, Option<Timing>), EngineError> {
        let Where::Device(gpu) = &engine.place else {
            let device = engine.name();
            return Err(EngineError::Unsupported { device, what: "kernels to compare with the twins".to_owned() });
        };
        let mut memories = Vec::new();
        for bytes in &self.inputs {
            let memory = engine.allocate("check", bytes.len() as u64)?;
            memory.write(0, bytes)?;
            memories.push(memory);
        }
        let output = self.op.output();
        let bytes = output.bytes(self.target);
        let guard = u64::from(self.target.limits.offset_alignment).max(256);
        let memory = engine.allocate("check", bytes + 2 * guard)?;
        let mut before = vec![GUARD; (bytes + 2 * guard) as usize];
        let inside = guard as usize..(guard + bytes) as usize;
        before[inside.clone()].copy_from_slice(&untouched(output.role, self.target, bytes));
        memory.write(0, &before)?;

        let mut regions: Vec<_> = memories.iter().map(|memory| memory.region(0, memory.bytes())).collect();
        regions.push(memory.region(guard, bytes));
        gpu.pipeline(choice, self.target)?;
        engine.finish()?;
        let start = Instant::now();
        engine.run_regions(self.op, Some(choice), self.target, &regions)?;
        engine.finish()?;
        let time = start.elapsed();

        let after = memory.read(0, bytes + 2 * guard)?;
        // the last word of an odd number of halves is half outside; a picture's last word is the kernel's to fill
        let used = match output.role {
            Role::Bytes => bytes as usize,
            _ => (output.count as f64 * output.elem_size(self.target)) as usize,
        };
        let outside = (0..inside.start).chain(inside.start + used..after.len());
        let stray = outside.filter(|&i| after[i] != before[i]).count();
        let found = read_values(&output, self.target, &after[inside]);
        let (nmse, max_abs, scale, compared) = compare(&found, &self.expected);
        let tolerance = self.op.tolerance(self.target.elem);
        let wrong = (nmse > tolerance).then(|| wrong(&found, &self.expected, scale)).flatten();
        let check = Check { kernel: choice.kernel.name, nmse, max_abs, scale, tolerance, compared, stray, wrong, time };
        let timed = !budget.is_zero() && check.passed();
        let timing = timed.then(|| engine.time(self.op, Some(choice), self.target, &regions, budget)).transpose()?;
        Ok((check, timing))
    }
}

/// Normalised mean square error, largest difference, largest expected value, and how many values were compared. What
/// both have left untouched (not a number in both) is not compared.
pub(crate) fn compare(found: &[f32], expected: &[f32]) -> (f64, f64, f64, usize) {
    let (mut differences, mut squares, mut max_abs, mut scale, mut compared) = (0.0f64, 0.0f64, 0.0f64, 0.0f64, 0);
    for (&a, &b) in found.iter().zip(expected) {
        if a.is_nan() && b.is_nan() {
            continue;
        }
        let (a, b) = (f64::from(a), f64::from(b));
        let difference = if a.is_finite() && b.is_finite() { (a - b).abs() } else { f64::INFINITY };
        differences += difference * difference;
        squares += b * b;
        max_abs = max_abs.max(difference);
        scale = scale.max(b.abs());
        compared += 1;
    }
    let nmse = match (differences, squares) {
        (0.0, _) => 0.0,
        (d, _) if d.is_infinite() => d,
        (d, s) => d / s,
    };
    (nmse, max_abs, scale, compared)
}

/// Where a result is off by more than a thousandth of `scale`; `None` where it is nowhere off by that much.
fn wrong(found: &[f32], expected: &[f32], scale: f64) -> Option<Wrong> {
    let off = |(found, expected): (f32, f32)| match f64::from(found) - f64::from(expected) {
        _ if found.is_nan() && expected.is_nan() => 0.0,
        difference if difference.is_finite() => difference.abs(),
        _ => f64::INFINITY,
    };
    let pairs = found.iter().copied().zip(expected.iter().copied());
    let mut wrong: Option<Wrong> = None;
    for (index, (found, expected)) in pairs.enumerate().filter(|(_, pair)| off(*pair) > 1e-3 * scale) {
        let here = Difference { index, found, expected };
        let so_far = wrong.get_or_insert(Wrong { count: 0, first: here, worst: here });
        so_far.count += 1;
        if off((found, expected)) > off((so_far.worst.found, so_far.worst.expected)) {
            so_far.worst = here;
        }
    }
    wrong
}

/// The first contents of an output: not a number in each value, or arbitrary bytes.
fn untouched(role: Role, target: &Target, bytes: u64) -> Vec<u8> {
    let word = match role {
        Role::Bytes => [GUARD; 4],
        _ if half(role, target) => 0x7e00_7e00_u32.to_le_bytes(), // twice f16's
        _ => f32::NAN.to_le_bytes(),
    };
    word.into_iter().cycle().take(bytes as usize).collect()
}

/// An output as values.
fn read_values(output: &Operand, target: &Target, bytes: &[u8]) -> Vec<f32> {
    let mut values = match output.role {
        Role::Bytes => bytes.iter().map(|byte| f32::from(*byte)).collect(),
        Role::Activation if target.elem == Elem::F16 => from_f16(bytes),
        _ => bytemuck::pod_collect_to_vec::<u8, f32>(bytes),
    };
    values.truncate(output.count);
    values
}

/// Random values for one input.
enum Drawn {
    Floats(Vec<f32>),
    Ids(Vec<u32>),
    Bytes(Vec<u8>),
}

impl Drawn {
    fn new(operand: &Operand, all: &[Operand], random: &mut Random) -> Drawn {
        let mut floats = |scale: f32| (0..operand.count).map(|_| random.signed() * scale).collect::<Vec<_>>();
        match (operand.role, operand.name) {
            (Role::Activation, _) => Drawn::Floats(floats(1.0)),
            // About 1 / sqrt(k) for a matrix of (k, n) whose sides are not too different, so that sums are of order one
            // and activation functions are not always at their ends.
            (Role::Weight, _) => Drawn::Floats(floats((operand.count as f32).sqrt().sqrt().recip())),
            // timesteps
            (Role::Vector, "t") => Drawn::Floats(floats(1000.0).into_iter().map(f32::abs).collect()),
            // (mean, sum of squared differences) of chunks: the second of the size that values of order one have
            (Role::Vector, "stats") => {
                let of_x = all.iter().find(|other| other.name == "x").map_or(1, |x| x.count);
                let share = of_x as f32 / (operand.count as f32 / 2.0);
                let mut pairs = floats(1.0);
                for pair in pairs.chunks_exact_mut(2) {
                    pair[1] = (0.1 + pair[1].abs()) * share;
                }
                Drawn::Floats(pairs)
            }
            (Role::Vector, _) => Drawn::Floats(floats(1.0)),
            (Role::Ids { bound }, _) => Drawn::Ids((0..operand.count).map(|_| random.next() % bound.max(1)).collect()),
            (Role::Bytes, _) => Drawn::Bytes((0..operand.count).map(|_| random.next() as u8).collect()),
        }
    }

    /// The values as they are after a trip to the device.
    fn rounded(&self, role: Role, target: &Target) -> Drawn {
        match self {
            Drawn::Floats(values) if half(role, target) => {
                Drawn::Floats(to_f16(values).into_iter().map(f16::to_f32).collect())
            }
            Drawn::Floats(values) => Drawn::Floats(values.clone()),
            Drawn::Ids(ids) => Drawn::Ids(ids.clone()),
            Drawn::Bytes(bytes) => Drawn::Bytes(bytes.clone()),
        }
    }

    /// The bytes as a target stores them.
    fn bytes(&self, role: Role, target: &Target) -> Vec<u8> {
        let mut bytes: Vec<u8> = match self {
            Drawn::Floats(values) if half(role, target) => bytemuck::cast_slice(&to_f16(values)).to_vec(),
            Drawn::Floats(values) => bytemuck::cast_slice(values).to_vec(),
            Drawn::Ids(ids) => bytemuck::cast_slice(ids).to_vec(),
            Drawn::Bytes(bytes) => bytes.clone(),
        };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

/// Whether a role is stored in half precision under a target.
fn half(role: Role, target: &Target) -> bool {
    match role {
        Role::Activation => target.elem == Elem::F16,
        Role::Weight => target.weight.elem() == Elem::F16,
        _ => false,
    }
}

/// Seeded random numbers: SplitMix64 (Steele, Lea & Flood 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    /// Uniform in -1 to 1.
    pub(crate) fn signed(&mut self) -> f32 {
        (self.next() >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}
