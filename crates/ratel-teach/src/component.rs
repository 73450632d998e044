//! A component of the model as it was planned, with the times of the same run.

use crate::{Component, Module, Node, NodeOperand, Source, Tenant, shapes};
use ratel_graph::{Memory, Place, Plan};
use ratel_kernels::activation::Act;
use ratel_kernels::{Op, Operand, Param};
use ratel_profile::{Dispatch, Limit, Run, Unit, kernel_variant, shape};
use std::collections::BTreeMap;

/// The component `name` of a run: its plan's dispatches, their memory, and how long each took every time it ran.
/// `dispatches` are those of the component's stage, in order; what belongs to no module of it is left out.
pub fn component(name: &str, plan: &Plan, run: &Run, dispatches: &[&Dispatch]) -> Component {
    let prefix = format!("{name}.");
    let own: Vec<&Dispatch> =
        dispatches.iter().copied().filter(|dispatch| dispatch.module.starts_with(&prefix)).collect();
    let times = times(plan, &own);
    let count = plan.steps.len();
    let mut places = Places::default();
    let mut nodes: Vec<Node> = Vec::with_capacity(count);
    for (i, step) in plan.steps.iter().enumerate() {
        let cost = step.op.cost(&plan.target);
        let unit = Unit::of(&step.op, &plan.target);
        let limit = run.roof.as_ref().map(|roof| Limit::of(roof, cost.flops, cost.bytes, unit));
        let operands = step.op.operands();
        let mut shown: Vec<NodeOperand> = operands
            .iter()
            .zip(&step.operands)
            .zip(shapes(&step.op))
            .enumerate()
            .map(|(at, ((operand, place), shape))| {
                let from = if at + 1 == operands.len() { Source::Output } else { places.source(plan, i, place) };
                let shape = match &from {
                    Source::Node(writer) => given_shape(&nodes, *writer, operand.count).unwrap_or(shape),
                    _ => shape,
                };
                let bytes = operand.bytes(&plan.target);
                let before = match &from {
                    Source::Node(writer) => place.offset.saturating_sub(written(plan, *writer).offset),
                    Source::Input(_) => place.offset,
                    Source::Weight(_) | Source::Output => 0,
                };
                let offset = values_in(before, operand, plan);
                NodeOperand { name: operand.name.to_owned(), shape, bytes, from, offset, tensor: None, values: None }
            })
            .collect();
        let modules = plan.modules.iter().filter(|module| module.step == Some(i));
        let named = modules.clone().next().map(|module| module.shape.to_vec());
        let like_input = || like(&step.op, shown.first()?, operands.last()?.count);
        if let Some(shape) = named.or_else(like_input)
            && let Some(output) = shown.last_mut().filter(|output| size(&output.shape) == size(&shape))
        {
            output.shape = shape;
        }
        if let Some(place) = step.operands.last() {
            places.write(i, place, &step.label, nodes.last().map(|node| node.module.as_str()));
        }
        let is = modules.map(|module| {
            let before = module.place.offset.saturating_sub(written(plan, i).offset);
            let shape = module.shape.to_vec();
            let offset = operands.last().map_or(0, |output| values_in(before, output, plan));
            Module { name: module.name.clone(), offset, shape }
        });
        nodes.push(Node {
            module: step.label.clone(),
            is: is.collect(),
            op: step.op.name().to_owned(),
            shape: shape(&step.op),
            kernel: step.choice.as_ref().map_or_else(
                || format!("{} (twin)", step.op.name()),
                |choice| format!("{} {}", choice.kernel.name, kernel_variant(choice, &plan.target)),
            ),
            params: params(&step.op),
            act: act(&step.op).to_owned(),
            operands: shown,
            workgroups: step.choice.as_ref().map(|choice| choice.schedule.workgroups),
            flops: cost.flops,
            bytes: cost.bytes,
            ns: times[i].clone(),
            peak: run.roof.as_ref().map(|roof| unit.flops(roof)),
            least_ns: limit.map(|limit| limit.ns),
            bound: limit.map(|limit| limit.bound),
        });
    }
    Component {
        name: name.to_owned(),
        calls: times.last().map_or(0, Vec::len),
        parameters: plan.weights.iter().map(|weight| weight.shape.count()).sum(),
        weight_bytes: plan.weight_bytes(),
        activation_bytes: plan.activation_bytes(),
        nodes,
        once: plan.prologue,
        slots: plan.slots.clone(),
        tenants: places.tenants(plan.prologue, count),
    }
}

/// How long each dispatch of a plan took every time it ran. The prologue runs by itself, or before the others in one go.
fn times(plan: &Plan, ran: &[&Dispatch]) -> Vec<Vec<u64>> {
    let mut times = vec![vec![]; plan.steps.len()];
    let mut at = 0;
    for dispatch in ran {
        let is = |i: usize| {
            let planned = plan.steps.get(i)?;
            (planned.label == dispatch.module && planned.op.name() == dispatch.op).then_some(i)
        };
        let first = if at == 0 || at == plan.steps.len() { is(0).or_else(|| is(plan.prologue)) } else { is(at) };
        let Some(i) = first else { break };
        times[i].extend(dispatch.ns.first());
        at = i + 1;
    }
    times
}

/// Where a dispatch's output lies.
fn written(plan: &Plan, step: usize) -> Place {
    plan.steps[step].operands.last().copied().unwrap_or(Place { memory: Memory::Slot(0), offset: 0, bytes: 0 })
}

/// How many values of an operand so many bytes are.
fn values_in(bytes: u64, operand: &Operand, plan: &Plan) -> usize {
    let eight = Operand { count: 8, ..*operand }.bytes(&plan.target);
    (bytes * 8 / eight.max(1)) as usize
}

/// The shape of what a dispatch wrote, if it is of the size that is wanted.
fn given_shape(nodes: &[Node], writer: usize, count: usize) -> Option<Vec<usize>> {
    let shape = &nodes.get(writer)?.operands.last()?.shape;
    (size(shape) == count).then(|| shape.clone())
}

fn size(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The output's shape of an op that leaves every axis but the last as it was.
fn like(op: &Op, input: &NodeOperand, count: usize) -> Option<Vec<usize>> {
    let keeps = match op {
        Op::Matmul(op) => op.layers.count() == 1,
        _ => true,
    } && matches!(
        op,
        Op::Matmul(_)
            | Op::GroupNorm(_)
            | Op::GroupNormWhole(_)
            | Op::LayerNorm(_)
            | Op::Geglu(_)
            | Op::Activation(_)
            | Op::Add(_)
            | Op::Concat(_)
            | Op::Attention(_)
    );
    let (_, rows) = input.shape.split_last()?;
    let rows_size = size(rows).max(1);
    (keeps && !rows.is_empty() && count.is_multiple_of(rows_size)).then(|| [rows, &[count / rows_size]].concat())
}

/// The op's scalars, and what else its arithmetic depends on.
fn params(op: &Op) -> BTreeMap<String, f64> {
    let number = |param| match param {
        Param::U32(value) => f64::from(value),
        Param::I32(value) => f64::from(value),
        Param::F32(value) => f64::from(value),
    };
    op.params().into_iter().map(|(name, param)| (name.to_owned(), number(param))).collect()
}

/// The activation function that an op ends in.
fn act(op: &Op) -> &'static str {
    let act = match op {
        Op::Matmul(op) => op.act,
        Op::Conv2d(op) => op.act,
        Op::GroupNorm(op) => op.act,
        Op::GroupNormWhole(op) => op.act,
        Op::Activation(op) => op.act,
        Op::SumParts(op) => op.act,
        _ => Act::None,
    };
    match act {
        Act::None => "",
        Act::Silu => "silu",
        Act::Gelu => "gelu",
        Act::QuickGelu => "quick_gelu",
    }
}

/// The parameters that `bytes` from the beginning of weight `first` on hold.
fn keys(plan: &Plan, first: usize, bytes: u64) -> Vec<String> {
    let mut keys = vec![plan.weights[first].key.clone()];
    let mut held = plan.weights[first].bytes;
    for weight in plan.weights[first + 1..].iter().take_while(|weight| weight.follows) {
        if held >= bytes {
            break;
        }
        held += weight.bytes;
        keys.push(weight.key.clone());
    }
    keys
}

/// Who wrote what lies where.
#[derive(Default)]
struct Places {
    writers: BTreeMap<Memory, usize>,
    tenants: Vec<Tenant>,
}

impl Places {
    /// Where a dispatch's input comes from; and notes that it lives until then.
    fn source(&mut self, plan: &Plan, step: usize, place: &Place) -> Source {
        if let Memory::Slot(slot) = place.memory
            && let Some(tenant) = self.tenants.iter_mut().rev().find(|tenant| tenant.slot == slot)
        {
            tenant.last = step;
        }
        match place.memory {
            Memory::Weight(i) => Source::Weight(keys(plan, i, place.bytes)),
            Memory::Input(i) => Source::Input(plan.inputs[i].name.clone()),
            memory => self.writers.get(&memory).map_or(Source::Output, |writer| Source::Node(*writer)),
        }
    }

    /// Who lives where; what the prologue leaves for later dispatches stays for the next call.
    fn tenants(self, prologue: usize, count: usize) -> Vec<Tenant> {
        let stays = |tenant: &Tenant| tenant.first < prologue && tenant.last >= prologue;
        let last = |tenant: &Tenant| if stays(tenant) { count - 1 } else { tenant.last };
        self.tenants.into_iter().map(|tenant| Tenant { last: last(&tenant), ..tenant }).collect()
    }

    /// Notes what a dispatch writes. A further band of the same tensor is no new tenant.
    fn write(&mut self, step: usize, place: &Place, label: &str, before: Option<&str>) {
        self.writers.insert(place.memory, step);
        let Memory::Slot(slot) = place.memory else { return };
        let band = place.offset > 0 && before == Some(label);
        match self.tenants.iter_mut().rev().find(|tenant| tenant.slot == slot).filter(|_| band) {
            Some(tenant) => {
                tenant.last = step;
                tenant.bytes = tenant.bytes.max(place.offset + place.bytes);
            }
            None => self.tenants.push(Tenant { slot, first: step, last: step, bytes: place.bytes }),
        }
    }
}
