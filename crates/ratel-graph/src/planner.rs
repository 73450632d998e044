//! From a graph to a plan: fusion, order, kernels, slots.

use crate::fuse::{Rule, fuse};
use crate::graph::{Finished, Named, Node, NodeId, NodeKind};
use crate::slots::{Interval, assign};
use crate::split::split;
use crate::{Memory, Observed, Place, Plan, Port, Step, Weight, bands, projections};
use ratel_kernels::{Operand, Role, Target, choose};
use std::collections::{BTreeMap, BTreeSet};

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
    /// limits split into parts. What runs share comes first ([`Rule::Once`]).
    ///
    /// # Errors
    /// An op that no kernel can do within the device's limits.
    pub fn plan(mut self, target: &Target, options: &PlanOptions) -> Result<Plan, PlanError> {
        let wanted = |name: &str| options.observe.iter().any(|pattern| ratel_tensor::matches(pattern, name));
        let kept = |graph: &Finished| -> Vec<NodeId> {
            graph.named.iter().filter(|named| wanted(&named.name)).map(|named| named.node).collect()
        };
        let keep = kept(&self);
        fuse(&mut self, &options.rules, &keep, target);
        if options.rules.contains(&Rule::Projections) {
            projections::join(&mut self, &keep, target);
        }
        if options.rules.contains(&Rule::SplitK) {
            split(&mut self, target);
        }
        let live = self.live(&kept(&self));
        let stacked: BTreeSet<NodeId> = (self.nodes.iter().zip(&live))
            .filter(|(node, live)| **live && matches!(node.kind, NodeKind::Stack))
            .flat_map(|(node, _)| node.inputs.iter().map(|(_, part)| *part))
            .collect();

        let mut plan = Plan {
            target: *target,
            steps: vec![],
            prologue: 0,
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
        let computed = |id: &NodeId| live[*id] && matches!(self.nodes[*id].kind, NodeKind::Op(_));
        let mut order: Vec<NodeId> = (0..self.nodes.len()).filter(computed).collect();
        let mut prologue = 0;
        if options.rules.contains(&Rule::Once) {
            let once = self.once();
            order.sort_by_key(|id| !once[*id]);
            prologue = order.iter().filter(|id| once[**id]).count();
        }
        let step_of: BTreeMap<NodeId, usize> = order.iter().copied().zip(0..).collect();
        for (id, node) in self.nodes.iter().enumerate().filter(|(id, _)| live[*id]) {
            let bytes = operand_bytes(node.role, node.shape.count(), target);
            let limit = target.limits.buffer_bytes;
            if bytes > limit {
                return Err(PlanError::TooLarge { label: node.label.clone(), bytes, limit });
            }
            match &node.kind {
                NodeKind::Input { name, .. } => {
                    memory.insert(id, Memory::Input(plan.inputs.len()));
                    plan.inputs.push(Port { name: name.clone(), shape: node.shape, role: node.role, bytes });
                }
                NodeKind::Weight { .. } if stacked.contains(&id) => {}
                NodeKind::Weight { .. } => {
                    memory.insert(id, Memory::Weight(plan.weights.len()));
                    plan.weights.extend(self.weight(id, false, target));
                }
                NodeKind::Stack => {
                    memory.insert(id, Memory::Weight(plan.weights.len()));
                    let parts = node.inputs.iter().enumerate();
                    plan.weights.extend(parts.filter_map(|(i, (_, part))| self.weight(*part, i > 0, target)));
                }
                NodeKind::Slice { .. } => {}
                NodeKind::Op(_) => {
                    if let Some((name, _, shape)) = self.outputs.iter().find(|(_, output, _)| *output == id) {
                        memory.insert(id, Memory::Output(plan.outputs.len()));
                        plan.outputs.push(Port { name: name.clone(), shape: *shape, role: node.role, bytes });
                    } else {
                        let first = step_of[&id];
                        let readers =
                            step_of.iter().filter(|(reader, _)| self.reads(**reader, id)).map(|(_, step)| *step);
                        let last = match readers.max().unwrap_or(first) {
                            // read in every run, so nothing else may ever take its place
                            last if first < prologue && last >= prologue => order.len(),
                            last => last,
                        };
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
        for (i, &id) in order.iter().enumerate() {
            let node = &self.nodes[id];
            let NodeKind::Op(op) = &node.kind else { continue };
            let place = |operand: &Operand, node: NodeId| {
                let (whole, first) = self.whole(node);
                let offset = (first as f64 * operand.elem_size(target)) as u64;
                Place { memory: memory[&whole], offset, bytes: operand.bytes(target) }
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
            if i < prologue {
                plan.prologue = plan.steps.len();
            }
        }
        let readable = |named: &Named| {
            let (whole, first) = self.whole(named.node);
            let role = self.nodes[named.node].role;
            let [offset, bytes] = [first, named.shape.count()].map(|count| operand_bytes(role, count, target));
            let place = Place { memory: memory[&whole], offset, bytes };
            Observed { name: named.name.clone(), shape: named.shape, step: last_part.get(&whole).copied(), place }
        };
        let written = |named: &&Named| live[named.node] && last_part.contains_key(&self.whole(named.node).0);
        plan.observed = self.named.iter().filter(|named| wanted(&named.name)).map(readable).collect();
        plan.modules = self.named.iter().filter(written).map(readable).collect();
        Ok(plan)
    }

    /// Which tensors the outputs and `kept` depend on.
    pub(crate) fn live(&self, kept: &[NodeId]) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        let mut queue: Vec<NodeId> = kept.iter().copied().chain(self.outputs.iter().map(|(_, id, _)| *id)).collect();
        while let Some(id) = queue.pop() {
            if !std::mem::replace(&mut live[id], true) {
                queue.extend(self.nodes[id].inputs.iter().map(|(_, input)| *input));
            }
        }
        live
    }

    /// Which tensors depend on no input that is given before every run.
    fn once(&self) -> Vec<bool> {
        let mut once: Vec<bool> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            once.push(match &node.kind {
                NodeKind::Input { once, .. } => *once,
                NodeKind::Weight { .. } => true,
                _ => node.inputs.iter().all(|(_, input)| once[*input]),
            });
        }
        once
    }

    fn reads(&self, reader: NodeId, id: NodeId) -> bool {
        self.nodes[reader].inputs.iter().any(|(_, input)| self.whole(*input).0 == id)
    }

    /// The tensor whose memory a tensor lies in, and at which of its values: itself, but for a slice.
    fn whole(&self, id: NodeId) -> (NodeId, usize) {
        match (&self.nodes[id].kind, &self.nodes[id].inputs[..]) {
            (NodeKind::Slice { first }, [(_, whole)]) => {
                let (whole, at) = self.whole(*whole);
                (whole, at + first)
            }
            _ => (id, 0),
        }
    }

    fn weight(&self, id: NodeId, follows: bool, target: &Target) -> Option<Weight> {
        let Node { kind: NodeKind::Weight { key, layout }, role, shape, .. } = &self.nodes[id] else { return None };
        let bytes = operand_bytes(*role, shape.count(), target);
        Some(Weight { key: key.clone(), layout: *layout, role: *role, shape: *shape, bytes, follows })
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
