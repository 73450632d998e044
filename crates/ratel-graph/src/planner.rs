//! From a graph to a plan: fusion, order, kernels, slots.

use crate::fuse::{Rule, fuse};
use crate::graph::{Finished, Named, NodeId, NodeKind};
use crate::slots::{Interval, assign};
use crate::split::split;
use crate::{Memory, Observed, Place, Plan, Port, Step, Weight, bands};
use ratel_kernels::{Operand, Role, Target, choose};
use std::collections::BTreeMap;

/// What a plan is made for beside its target.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanOptions {
    /// The fusion rules to apply.
    pub rules: Vec<Rule>,
    /// Names (patterns of [`ratel_tensor::matches`]) of modules whose outputs must stay readable.
    pub observe: Vec<String>,
}

impl Default for PlanOptions {
    /// Every rule, nothing observed.
    fn default() -> Self {
        PlanOptions { rules: Rule::ALL.to_vec(), observe: vec![] }
    }
}

/// Why no plan could be made.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum PlanError {
    /// No kernel can do an op on this target.
    #[error("{label}: no kernel for {op} fits this device: {why}; try a smaller picture, or --device cpu")]
    NoKernel {
        /// The module.
        label: String,
        /// The op's name.
        op: &'static str,
        /// The limit.
        why: String,
    },
    /// A tensor is larger than any buffer can be.
    #[error(
        "{label}: a tensor of {bytes} bytes, and this device has buffers of at most {limit}; try a smaller picture or batch, or --device cpu"
    )]
    TooLarge {
        /// The module.
        label: String,
        /// Bytes of the tensor.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

impl Finished {
    /// The plan for a target: fused, dead tensors dropped, kernels chosen, slots shared, and whatever exceeds the device's
    /// limits split into parts.
    ///
    /// # Errors
    /// An op that no kernel can do within the device's limits.
    pub fn plan(mut self, target: &Target, options: &PlanOptions) -> Result<Plan, PlanError> {
        let wanted = |name: &str| options.observe.iter().any(|pattern| ratel_tensor::matches(pattern, name));
        let mut observed: Vec<_> = self.named.iter().filter(|named| wanted(&named.name)).cloned().collect();
        let mut modules = self.named.clone();
        let mut kept: Vec<NodeId> = observed.iter().map(|named| named.node).collect();
        fuse(&mut self, &options.rules, &kept);
        if options.rules.contains(&Rule::SplitK) {
            let place = split(&mut self, target);
            observed.iter_mut().chain(&mut modules).for_each(|named| named.node = place[named.node]);
            kept.iter_mut().for_each(|node| *node = place[*node]);
        }
        let live = self.live(&kept);

        let mut plan = Plan {
            target: *target,
            steps: vec![],
            slots: vec![],
            weights: vec![],
            inputs: vec![],
            outputs: vec![],
            observed: vec![],
            modules: vec![],
        };
        // every live tensor gets a memory; computed ones that are no output share slots
        let mut memory: BTreeMap<NodeId, Memory> = BTreeMap::new();
        let mut tenants: Vec<(NodeId, Interval)> = Vec::new();
        let step_of: BTreeMap<NodeId, usize> = (0..self.nodes.len())
            .filter(|&id| live[id] && matches!(self.nodes[id].kind, NodeKind::Op(_)))
            .zip(0..)
            .collect();
        for (id, node) in self.nodes.iter().enumerate().filter(|(id, _)| live[*id]) {
            let bytes = operand_bytes(node.role, node.shape.count(), target);
            let limit = target.limits.buffer_bytes;
            if bytes > limit {
                return Err(PlanError::TooLarge { label: node.label.clone(), bytes, limit });
            }
            match &node.kind {
                NodeKind::Input { name } => {
                    memory.insert(id, Memory::Input(plan.inputs.len()));
                    plan.inputs.push(Port { name: name.clone(), shape: node.shape, role: node.role, bytes });
                }
                NodeKind::Weight { key, layout } => {
                    memory.insert(id, Memory::Weight(plan.weights.len()));
                    let (key, layout, role, shape) = (key.clone(), *layout, node.role, node.shape);
                    plan.weights.push(Weight { key, layout, role, shape, bytes });
                }
                NodeKind::Op(_) => {
                    if let Some((name, _, shape)) = self.outputs.iter().find(|(_, output, _)| *output == id) {
                        memory.insert(id, Memory::Output(plan.outputs.len()));
                        plan.outputs.push(Port { name: name.clone(), shape: *shape, role: node.role, bytes });
                    } else {
                        let first = step_of[&id];
                        let readers =
                            step_of.iter().filter(|(reader, _)| self.reads(**reader, id)).map(|(_, step)| *step);
                        let last = readers.max().unwrap_or(first);
                        tenants.push((id, Interval { first, last, bytes }));
                    }
                }
            }
        }
        let intervals: Vec<_> = tenants.iter().map(|(_, interval)| *interval).collect();
        let (chosen, slots) = assign(&intervals);
        plan.slots = slots;
        memory.extend(tenants.iter().zip(chosen).map(|((id, _), slot)| (*id, Memory::Slot(slot))));

        let mut last_part: BTreeMap<NodeId, usize> = BTreeMap::new();
        for &id in step_of.keys() {
            let node = &self.nodes[id];
            let NodeKind::Op(op) = &node.kind else { continue };
            let place = |operand: &Operand, node: NodeId| Place {
                memory: memory[&node],
                offset: 0,
                bytes: operand.bytes(target),
            };
            let operands = op.operands();
            let places: Vec<Place> = operands
                .iter()
                .enumerate()
                .map(|(i, operand)| {
                    let given = node.inputs.iter().find(|(name, _)| *name == operand.name).map(|(_, node)| *node);
                    place(operand, if i + 1 == operands.len() { id } else { given.unwrap_or(id) })
                })
                .collect();
            for (op, operands) in bands::split(op, &places, target) {
                let choice = if target.twins { None } else { Some(pick(&node.label, &op, target)?) };
                plan.steps.push(Step { label: node.label.clone(), op, choice, operands });
            }
            last_part.insert(id, plan.steps.len() - 1);
        }
        let readable = |named: Named| {
            let bytes = operand_bytes(self.nodes[named.node].role, named.shape.count(), target);
            let place = Place { memory: memory[&named.node], offset: 0, bytes };
            Observed { name: named.name, shape: named.shape, step: last_part.get(&named.node).copied(), place }
        };
        plan.observed = observed.into_iter().map(readable).collect();
        modules.retain(|named| live[named.node] && last_part.contains_key(&named.node));
        plan.modules = modules.into_iter().map(readable).collect();
        Ok(plan)
    }

    /// Which tensors the outputs and `kept` depend on.
    fn live(&self, kept: &[NodeId]) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        let mut queue: Vec<NodeId> = kept.iter().copied().chain(self.outputs.iter().map(|(_, id, _)| *id)).collect();
        while let Some(id) = queue.pop() {
            if !std::mem::replace(&mut live[id], true) {
                queue.extend(self.nodes[id].inputs.iter().map(|(_, input)| *input));
            }
        }
        live
    }

    fn reads(&self, reader: NodeId, id: NodeId) -> bool {
        self.nodes[reader].inputs.iter().any(|(_, input)| *input == id)
    }
}

/// Bytes of a tensor of a role, rounded up to whole words.
fn operand_bytes(role: Role, count: usize, target: &Target) -> u64 {
    Operand { name: "", role, count, touched: count }.bytes(target)
}

/// The kernel for an op, or why there is none.
fn pick(label: &str, op: &ratel_kernels::Op, target: &Target) -> Result<ratel_kernels::Choice, PlanError> {
    let no_kernel = |why| PlanError::NoKernel { label: label.to_owned(), op: op.name(), why };
    let limit = target.limits.binding_bytes;
    if let Some(operand) = op.operands().iter().find(|operand| operand.bytes(target) > limit) {
        return Err(no_kernel(format!(
            "{} takes {} bytes, a binding at most {limit}",
            operand.name,
            operand.bytes(target)
        )));
    }
    choose(op, target).ok_or_else(|| no_kernel("none can be scheduled".to_owned()))
}
