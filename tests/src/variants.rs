//! Every kernel in every form that some device gets, without any device.

use ratel_kernels::lessons::{self, LESSONS};
use ratel_kernels::{Choice, Limits, Op, Options, Shaders, Target, kernels_of, link, variants};
use std::collections::HashSet;

/// Devices that differ in what kernels ask of them; those that offer less come first.
pub fn targets() -> Vec<Target> {
    let desktop = Limits { workgroup_bytes: 32 << 10, invocations: 1024, ..Limits::WEBGPU };
    let mut all = vec![Target::PLAIN, Target { software: true, ..Target::PLAIN }];
    for limits in [Limits::WEBGPU, desktop] {
        for lanes in [4, 8, 16, 32] {
            let target = Target { subgroup: Some(lanes), limits, ..Target::PLAIN };
            all.extend([target, Target { software: true, ..target }]);
        }
    }
    all.extend(cooperative_targets());
    all
}

/// Devices that multiply matrices, with memory for one stage and for two.
fn cooperative_targets() -> Vec<Target> {
    let device = |edge, lanes, kilobytes: u32| Target {
        cooperative: Some(edge),
        subgroup: Some(lanes),
        limits: Limits { workgroup_bytes: kilobytes << 10, invocations: 1024, ..Limits::WEBGPU },
        ..Target::PLAIN
    };
    vec![device(16, 32, 48), device(16, 32, 32), device(16, 64, 32), device(8, 8, 32), device(8, 32, 16)]
}

/// One kernel as one device gets it for one op.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The op.
    pub op: Op,
    /// What it is to run on.
    pub target: Target,
    /// The kernel and its schedule.
    pub choice: Choice,
    /// Whether `Params` are immediates.
    pub immediates: bool,
    /// The linked module.
    pub wgsl: String,
}

/// The cases of every op and of every lesson.
pub fn cases() -> Vec<Op> {
    let mut all = Op::all_cases();
    all.extend(LESSONS.iter().flat_map(|lesson| (lesson.cases)()));
    all
}

/// Every kernel that can do `op` on `target`, rungs of lessons after the op's own.
pub fn choices(op: &Op, target: &Target) -> Vec<Choice> {
    let mut all = kernels_of(op, target);
    all.extend(lessons::choices(op, target));
    all
}

/// Every kernel that can do any case of any op on any target, in all combinations of element types, with
/// immediates and without. What differs only in the numbers in `Params` is there once, for the target that offers least.
pub fn every_variant() -> Vec<Variant> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    let cases = cases();
    for (device, f16) in targets().into_iter().flat_map(|target| [(target, false), (target, true)]) {
        for (elem, weight) in variants(f16) {
            let target = Target { elem, weight, f16, ..device };
            let choices = cases.iter().flat_map(|op| choices(op, &target).into_iter().map(move |c| (op, c)));
            for ((op, choice), immediates) in choices.flat_map(|c| [(c.clone(), true), (c, false)]) {
                let options = Options { elem, weight, immediates, unroll: true, shaders: Shaders::Embedded };
                let wgsl = link(choice.kernel, &choice.schedule, &options);
                let wgsl = wgsl.unwrap_or_else(|error| panic!("{}: {error}", choice.kernel.path));
                if seen.insert((format!("{:?}", choice.schedule.constants), wgsl.clone())) {
                    all.push(Variant { op: op.clone(), target, choice, immediates, wgsl });
                }
            }
        }
    }
    all
}
