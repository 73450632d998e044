//! Fusion: rules that put one op into another, each by its name, each to be switched off by itself.
//!
//! A rule looks at one node and its inputs, and if it fits rewrites the node in place: the op that was fused in is then
//! read by no one and is dropped. A tensor that something else reads too, or that a trace asked for, is never fused away.

use crate::bands;
use crate::graph::{Finished, Node, NodeId, NodeKind};
use ratel_kernels::activation::Act;
use ratel_kernels::conv2d::Conv2d;
use ratel_kernels::group_norm::GroupNorm;
use ratel_kernels::group_norm_stats::GroupNormStats;
use ratel_kernels::group_norm_whole::GroupNormWhole;
use ratel_kernels::matmul::Matmul;
use ratel_kernels::{Op, Role, Target, choose};

/// A fusion rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A bias into the matrix product or convolution before it.
    Bias,
    /// The time embedding, a row per image, into the convolution before it.
    ImageBias,
    /// An activation function into the matrix product or convolution before it.
    Activation,
    /// SiLU into the group norm before it.
    NormActivation,
    /// A residual into the matrix product or convolution before it.
    Residual,
    /// GEGLU into the matrix product before it.
    Geglu,
    /// Enlargement into the convolution after it.
    Upsample,
    /// Concatenation into the norms, products and convolutions after it, which read two inputs instead.
    Concat,
    /// The two halves of a group norm into one op, where a group fits in workgroup memory.
    GroupNorm,
    /// The projections to queries, keys and values, or to keys and values, into one matrix product.
    Projections,
    /// The opposite of fusion, after all others: matrix products with small results and long sums into two ops, where the
    /// device is a GPU.
    SplitK,
    /// What depends only on tensors that are given once for many runs is computed once for them: the plan's prologue.
    Once,
}

impl Rule {
    /// Every rule, in the order in which they are tried.
    pub const ALL: [Rule; 12] = [
        Rule::Bias,
        Rule::ImageBias,
        Rule::Activation,
        Rule::NormActivation,
        Rule::Residual,
        Rule::Geglu,
        Rule::Upsample,
        Rule::Concat,
        Rule::GroupNorm,
        Rule::Projections,
        Rule::SplitK,
        Rule::Once,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Rule::Bias => "bias",
            Rule::ImageBias => "image-bias",
            Rule::Activation => "activation",
            Rule::NormActivation => "norm-activation",
            Rule::Residual => "residual",
            Rule::Geglu => "geglu",
            Rule::Upsample => "upsample",
            Rule::Concat => "concat",
            Rule::GroupNorm => "group-norm",
            Rule::Projections => "projections",
            Rule::SplitK => "split-k",
            Rule::Once => "once",
        }
    }
}

/// Applies `rules` one after another, each wherever it fits. Tensors in `kept` are not fused away.
pub(crate) fn fuse(graph: &mut Finished, rules: &[Rule], kept: &[NodeId], target: &Target) {
    let mut uses = vec![0usize; graph.nodes.len()];
    for node in &graph.nodes {
        for (_, input) in &node.inputs {
            uses[*input] += 1;
        }
    }
    for &node in kept.iter().chain(graph.outputs.iter().map(|(_, node, _)| node)) {
        uses[node] += 1;
    }
    for &rule in rules {
        for id in 0..graph.nodes.len() {
            // what no one reads was fused into another node, and has no claim on its inputs
            if uses[id] == 0 {
                continue;
            }
            let fused = match rule {
                Rule::Concat => concat(&graph.nodes, id, &uses),
                Rule::GroupNorm => whole_norm(&graph.nodes, id, &uses, target),
                _ => with_input(&graph.nodes, id, rule, &uses),
            };
            if let Some(Fused { node, dropped }) = fused {
                for (_, input) in &graph.nodes[id].inputs {
                    uses[*input] -= 1;
                }
                for (_, input) in &node.inputs {
                    uses[*input] += 1;
                }
                graph.nodes[id] = node;
                // what only the dropped node read is read once less, now that no one reads it
                if uses[dropped] == 0 {
                    for (_, input) in &graph.nodes[dropped].inputs {
                        uses[*input] -= 1;
                    }
                }
            }
        }
    }
}

struct Fused {
    node: Node,
    dropped: NodeId,
}

/// One of the rules that join a node with an input that no one else reads.
fn with_input(nodes: &[Node], id: NodeId, rule: Rule, uses: &[usize]) -> Option<Fused> {
    let NodeKind::Op(op) = &nodes[id].kind else { return None };
    nodes[id].inputs.iter().filter(|(_, input)| uses[*input] == 1).find_map(|&(slot, input)| {
        let NodeKind::Op(before) = &nodes[input].kind else { return None };
        let other = nodes[id].inputs.iter().find(|(name, _)| *name != slot).map(|(_, node)| *node);
        let joined = match (rule, before, op) {
            (Rule::Bias, before, Op::Add(add)) if slot == "a" => {
                let vector = other.filter(|&b| nodes[b].role == Role::Vector && add.span == add.count)?;
                Some(match before {
                    Op::Matmul(mm) if !mm.bias && mm.act == Act::None && !mm.residual && add.period == mm.n => {
                        (Matmul { bias: true, ..*mm }.into(), Some(("bias", vector)))
                    }
                    Op::Conv2d(conv)
                        if !conv.bias && conv.act == Act::None && !conv.residual && add.period == conv.n =>
                    {
                        (Conv2d { bias: true, ..*conv }.into(), Some(("bias", vector)))
                    }
                    _ => return None,
                })
            }
            (Rule::ImageBias, Op::Conv2d(conv), Op::Add(add)) if slot == "a" => {
                let fits = add.period == conv.n && add.span == conv.out_h * conv.out_w * conv.n;
                let free = !conv.image_bias && conv.act == Act::None && !conv.residual;
                let row = other.filter(|&b| fits && free && nodes[b].role == Role::Activation)?;
                Some((Conv2d { image_bias: true, ..*conv }.into(), Some(("image_bias", row))))
            }
            (Rule::Activation, Op::Matmul(mm), Op::Activation(act)) if mm.act == Act::None && !mm.residual => {
                Some((Matmul { act: act.act, ..*mm }.into(), None))
            }
            (Rule::Activation, Op::Conv2d(conv), Op::Activation(act)) if conv.act == Act::None && !conv.residual => {
                Some((Conv2d { act: act.act, ..*conv }.into(), None))
            }
            (Rule::Geglu, Op::Matmul(mm), Op::Geglu(geglu)) if mm.act == Act::None && !mm.residual => {
                Some((Matmul { n: geglu.n, gated: true, ..*mm }.into(), None))
            }
            (Rule::NormActivation, Op::GroupNorm(norm), Op::Activation(act)) if norm.act == Act::None => {
                Some((GroupNorm { act: act.act, ..*norm }.into(), None))
            }
            (Rule::Residual, before, Op::Add(add)) if add.period == add.count => {
                let residual = other.filter(|&other| other != input && nodes[other].role == Role::Activation)?;
                Some(match before {
                    Op::Matmul(mm) if !mm.residual => {
                        (Matmul { residual: true, ..*mm }.into(), Some(("residual", residual)))
                    }
                    Op::Conv2d(conv) if !conv.residual => {
                        (Conv2d { residual: true, ..*conv }.into(), Some(("residual", residual)))
                    }
                    _ => return None,
                })
            }
            (Rule::Upsample, Op::Upsample(up), Op::Conv2d(conv)) if slot == "x" && conv.upsample.is_none() => {
                let conv = Conv2d { h: up.h, w: up.w, upsample: Some([up.out_h, up.out_w]), ..*conv };
                let mut inputs = nodes[id].inputs.clone();
                inputs.retain(|(name, _)| *name != "x");
                inputs.extend(&nodes[input].inputs);
                return Some(Fused { node: replaced(nodes, id, conv.into(), inputs), dropped: input });
            }
            _ => None,
        };
        // the op of the earlier node, with the later node's other input, takes the later node's place
        let (op, extra): (Op, Option<(&'static str, NodeId)>) = joined?;
        let mut inputs = nodes[input].inputs.clone();
        inputs.extend(extra);
        let node = Node { label: nodes[input].label.clone(), ..replaced(nodes, id, op, inputs) };
        Some(Fused { node, dropped: input })
    })
}

/// Reads the two halves of a concatenation instead of the whole, where every reader of it can.
fn concat(nodes: &[Node], id: NodeId, uses: &[usize]) -> Option<Fused> {
    let NodeKind::Op(op) = &nodes[id].kind else { return None };
    let whole = nodes[id].inputs.iter().find(|(name, _)| *name == "x").map(|(_, node)| *node)?;
    let NodeKind::Op(Op::Concat(halves)) = &nodes[whole].kind else { return None };
    let reads = |node: &Node| node.inputs.iter().any(|(name, n)| *n == whole && *name == "x") && reads_two(node);
    let readers = nodes.iter().zip(uses).filter(|(node, uses)| **uses > 0 && reads(node));
    // readers before this one have been rewritten and count no more
    if readers.count() != uses[whole] {
        return None;
    }
    let op = match op {
        Op::Matmul(op) => Matmul { k1: halves.c1, ..*op }.into(),
        Op::Conv2d(op) => Conv2d { c1: halves.c1, ..*op }.into(),
        Op::GroupNormStats(op) => GroupNormStats { c1: halves.c1, ..*op }.into(),
        Op::GroupNorm(op) => GroupNorm { c1: halves.c1, ..*op }.into(),
        _ => return None,
    };
    let mut inputs = nodes[id].inputs.clone();
    inputs.retain(|(name, _)| *name != "x");
    for (name, half) in &nodes[whole].inputs {
        inputs.push((if *name == "a" { "x" } else { "x2" }, *half));
    }
    Some(Fused { node: replaced(nodes, id, op, inputs), dropped: whole })
}

/// A group norm that takes the statistics of its input itself, where a kernel can, and where it need not be done in bands.
fn whole_norm(nodes: &[Node], id: NodeId, uses: &[usize], target: &Target) -> Option<Fused> {
    let NodeKind::Op(Op::GroupNorm(norm)) = &nodes[id].kind else { return None };
    let GroupNorm { batch, pixels, c, c1, groups, eps, act, .. } = *norm;
    let whole = Op::from(GroupNormWhole { batch, pixels, c, c1, groups, eps, act });
    let mut inputs = nodes[id].inputs.clone();
    let (_, stats) = inputs.remove(inputs.iter().position(|(name, _)| *name == "stats")?);
    let fits = !target.twins && uses[stats] == 1 && bands::fits(&whole, target) && choose(&whole, target).is_some();
    fits.then(|| Fused { node: replaced(nodes, id, whole, inputs), dropped: stats })
}

/// Whether a node's op can read its input from two tensors, and does not yet.
fn reads_two(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Op(Op::Matmul(op)) => op.k1 == op.k,
        NodeKind::Op(Op::Conv2d(op)) => op.c1 == op.c,
        NodeKind::Op(Op::GroupNormStats(op)) => op.c1 == op.c,
        NodeKind::Op(Op::GroupNorm(op)) => op.c1 == op.c,
        _ => false,
    }
}

fn replaced(nodes: &[Node], id: NodeId, op: Op, inputs: Vec<(&'static str, NodeId)>) -> Node {
    Node { kind: NodeKind::Op(op), inputs, ..nodes[id].clone() }
}

#[cfg(test)]
mod tests {
    use crate::{Graph, PlanOptions};
    use ratel_kernels::{Role, Target};
    use ratel_tensor::Shape;

    /// The ops of a group norm over eight groups of `edge x edge` pixels and four channels.
    fn norm(edge: usize, target: &Target) -> Vec<&'static str> {
        let catalogue = ["norm.weight", "norm.bias"].map(|key| (key.to_owned(), Shape::new(&[32])));
        let graph = Graph::new("net", catalogue.into());
        let w = graph.root();
        let x = graph.input("x", [1, edge, edge, 32], Role::Activation);
        x.group_norm(&w.at("norm"), 8, 1e-5).silu().output("y");
        let finished = graph.finish(|_| false).expect("the graph is whole");
        let plan = finished.plan(target, &PlanOptions::default()).expect("every op has a kernel");
        plan.steps.iter().map(|step| step.op.name()).collect()
    }

    #[test]
    fn a_group_norm_is_one_op_where_a_group_fits() {
        // 4 x 30 x 30 values and a number of each of 256 lanes, four bytes each, are just less than 16 KiB
        let halves = ["group_norm_stats", "group_norm"];
        assert_eq!(norm(30, &Target::PLAIN), ["group_norm_whole"]);
        assert_eq!(norm(31, &Target::PLAIN), halves);
        assert_eq!(norm(30, &Target { twins: true, ..Target::PLAIN }), halves, "the twins gain nothing by it");
    }
}
