use crate::{Kernel, Op, Schedule, Target, WeightStorage};
use ratel_tensor::Elem;

/// A kernel chosen for an op.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// How it does the op.
    pub schedule: Schedule,
}

/// Every kernel that can do `op` on `target`, the plain one first.
pub fn kernels_of(op: &Op, target: &Target) -> Vec<Choice> {
    let fit = |kernel: &'static Kernel| (kernel.schedule)(op, target).map(|schedule| Choice { kernel, schedule });
    op.kernels().into_iter().filter_map(fit).collect()
}

/// The kernel of the greatest merit for `op` on `target`; `None` when none can do it there.
pub fn choose(op: &Op, target: &Target) -> Option<Choice> {
    kernels_of(op, target).into_iter().max_by(|a, b| a.schedule.merit.total_cmp(&b.schedule.merit))
}

/// Every kernel there is, once, by name: those of every op that has a case.
pub fn kernels() -> Vec<&'static Kernel> {
    let mut all: Vec<&'static Kernel> = Op::all_cases().iter().flat_map(|op| op.kernels()).collect();
    all.sort_by_key(|kernel| kernel.name);
    all.dedup_by_key(|kernel| kernel.name);
    all
}

/// The combinations of element types that kernels are built in. Activations in `f16` come with weights in `f16`, since
/// no run wants the reverse.
pub fn variants(f16: bool) -> Vec<(Elem, WeightStorage)> {
    let mut all = vec![(Elem::F32, WeightStorage::F32), (Elem::F32, WeightStorage::PackedF16)];
    if f16 {
        all.extend([(Elem::F32, WeightStorage::F16), (Elem::F16, WeightStorage::F16)]);
    }
    all
}

impl Kernel {
    /// What it asks of a device, in words, as its own schedule tells: the first of some targets that it can do some case on.
    pub fn needs(&self) -> &'static str {
        let subgroup = |lanes| Target { subgroup: Some(lanes), f16: true, elem: Elem::F16, ..Target::PLAIN };
        let half = Target { subgroup: None, weight: WeightStorage::F16, ..subgroup(32) };
        let ways = [
            (Target::PLAIN, "any device"),
            (half, "f16"),
            (Target { elem: Elem::F32, ..subgroup(32) }, "subgroups"),
            (Target { weight: WeightStorage::F16, ..subgroup(32) }, "subgroups, f16"),
            (Target { software: true, ..Target::PLAIN }, "a driver on the CPU"),
            (Target { software: true, elem: Elem::F32, ..subgroup(8) }, "a driver on the CPU, subgroups"),
        ];
        let cases = Op::all_cases();
        let does = |target: &Target| cases.iter().any(|op| (self.schedule)(op, target).is_some());
        ways.iter().find(|(target, _)| does(target)).map_or("cooperative matrices", |(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Shaders, link, reflect};
    use std::collections::HashMap;

    #[test]
    fn what_kernels_need() {
        for (name, what) in [("matmul", "any device"), ("matmul_subgroup", "a driver on the CPU, subgroups")] {
            let kernel = kernels().into_iter().find(|kernel| kernel.name == name).expect("it is there");
            assert_eq!(kernel.needs(), what, "{name}");
        }
    }

    /// Every kernel links, parses and finds its params in every variant: what can be checked without a device.
    #[test]
    fn every_kernel_fits_its_op() {
        let software = |lanes| Target { software: true, subgroup: Some(lanes), ..Target::PLAIN };
        // naga takes long over what is unrolled: once for each kind of target
        let cooperative = Target { cooperative: Some(16), subgroup: Some(32), ..Target::PLAIN };
        let ways = [
            (Target::PLAIN, true),
            (software(8), true),
            (software(4), false),
            (software(16), false),
            (cooperative, true),
        ];
        let mut reflections = HashMap::new();
        for op in Op::all_cases() {
            for ((elem, weight), (target, unroll)) in variants(true).into_iter().flat_map(|v| ways.map(|w| (v, w))) {
                let target = Target { elem, weight, f16: true, ..target };
                for Choice { kernel, schedule } in kernels_of(&op, &target) {
                    for immediates in [true, false] {
                        let unroll = unroll && immediates;
                        let options = Options { elem, weight, immediates, unroll, shaders: Shaders::Embedded };
                        let wgsl = link(kernel, &schedule, &options).expect(kernel.name);
                        let reflection = reflections
                            .entry(wgsl)
                            .or_insert_with_key(|wgsl| reflect(kernel.path, wgsl).unwrap_or_else(|e| panic!("{e}")));
                        reflection.pack_params(&op.params()).unwrap_or_else(|e| panic!("{}: {e}", kernel.path));
                        for operand in op.operands() {
                            let bound = reflection.bindings.iter().any(|b| b.name == operand.name);
                            assert!(bound, "{} binds no {}", kernel.path, operand.name);
                        }
                        for (name, _) in &schedule.constants {
                            assert!(reflection.overrides.iter().any(|o| o == name), "{} has no {name}", kernel.path);
                        }
                    }
                }
            }
        }
    }
}
