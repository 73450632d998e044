//! The projections to queries, keys and values as one product: layers of one size over one input become one op, which
//! attention reads in slices.

use crate::graph::{Finished, Node, NodeId, NodeKind};
use ratel_kernels::activation::Act;
use ratel_kernels::matmul::{Layers, Matmul};
use ratel_kernels::{Op, Operand, Target};
use ratel_tensor::Shape;
use std::collections::BTreeMap;

/// Products that are to become one.
struct Group {
    members: Vec<NodeId>,
    op: Matmul,
}

/// Joins what attention reads as queries, keys and values, or as keys and values, where the device can bind the slices.
pub(crate) fn join(graph: &mut Finished, kept: &[NodeId], target: &Target) {
    let groups = groups(graph, kept, target);
    // the last member's place is where all inputs are there
    let last: BTreeMap<NodeId, &Group> =
        groups.iter().map(|group| (group.members[group.members.len() - 1], group)).collect();
    let old = std::mem::take(&mut graph.nodes);
    let mut nodes: Vec<Node> = Vec::with_capacity(old.len() + 4 * groups.len());
    let mut place: Vec<NodeId> = vec![0; old.len()];
    for (id, node) in old.iter().enumerate() {
        if groups.iter().any(|group| group.members.contains(&id)) && !last.contains_key(&id) {
            continue;
        }
        let Some(Group { members, op }) = last.get(&id) else {
            let inputs = node.inputs.iter().map(|(name, input)| (*name, place[*input])).collect();
            nodes.push(Node { inputs, ..node.clone() });
            place[id] = nodes.len() - 1;
            continue;
        };
        let label = joined_label(members.iter().map(|member| old[*member].label.as_str()));
        let mut inputs = Vec::new();
        for (name, input) in &node.inputs {
            if matches!(old[*input].kind, NodeKind::Weight { .. }) {
                let of = |member: &NodeId| input_of(&old[*member], name).map(|weight| ("part", place[weight]));
                let parts: Vec<_> = members.iter().filter_map(of).collect();
                let shape = Shape::from([parts.len(), old[*input].shape.count()]);
                nodes.push(Node {
                    kind: NodeKind::Stack,
                    inputs: parts,
                    label: label.clone(),
                    shape,
                    ..old[*input].clone()
                });
                inputs.push((*name, nodes.len() - 1));
            } else {
                inputs.push((*name, place[*input]));
            }
        }
        let whole = nodes.len();
        let shape = Shape::from([members.len(), node.shape.count()]);
        nodes.push(Node { kind: NodeKind::Op((*op).into()), inputs, label, shape, ..node.clone() });
        for (i, member) in members.iter().enumerate() {
            let kind = NodeKind::Slice { first: i * node.shape.count() };
            nodes.push(Node { kind, inputs: vec![("whole", whole)], ..old[*member].clone() });
            place[*member] = nodes.len() - 1;
        }
    }
    graph.nodes = nodes;
    graph.outputs.iter_mut().for_each(|(_, node, _)| *node = place[*node]);
    graph.named.iter_mut().for_each(|named| named.node = place[named.node]);
}

fn groups(graph: &Finished, kept: &[NodeId], target: &Target) -> Vec<Group> {
    let live = graph.live(kept);
    let mut uses = vec![0; graph.nodes.len()];
    for (node, _) in graph.nodes.iter().zip(&live).filter(|(_, live)| **live) {
        node.inputs.iter().for_each(|(_, input)| uses[*input] += 1);
    }
    kept.iter().chain(graph.outputs.iter().map(|(_, node, _)| node)).for_each(|node| uses[*node] += 1);
    let attentions = graph
        .nodes
        .iter()
        .zip(&live)
        .filter(|(node, live)| **live && matches!(node.kind, NodeKind::Op(Op::Attention(_))));
    let groups = attentions.filter_map(|(attention, _)| {
        let [q, k, v] = ["q", "k", "v"].map(|name| input_of(attention, name));
        let (q, k, v) = (q?, k?, v?);
        let candidates = [vec![q, k, v], vec![k, v]];
        candidates.into_iter().find_map(|members| group(&graph.nodes, members, &uses, target))
    });
    groups.collect()
}

/// These products as one, if they are alike and no one else reads them.
fn group(nodes: &[Node], mut members: Vec<NodeId>, uses: &[usize], target: &Target) -> Option<Group> {
    let product = |id: NodeId| match &nodes[id].kind {
        NodeKind::Op(Op::Matmul(op)) if uses[id] == 1 => Some(*op),
        _ => None,
    };
    let op = product(members[0])?;
    let plain = op.act == Act::None && !op.residual && op.image_rows.is_none() && !op.gated && op.layers.count() == 1;
    let x = |id: NodeId| (input_of(&nodes[id], "x"), input_of(&nodes[id], "x2"));
    let own = |id: NodeId, name: &str| {
        input_of(&nodes[id], name).is_none_or(|w| uses[w] == 1 && matches!(nodes[w].kind, NodeKind::Weight { .. }))
    };
    let alike = members.iter().all(|&id| {
        product(id) == Some(op)
            && x(id) == x(members[0])
            && own(id, "w")
            && own(id, "bias")
            && input_of(&nodes[id], "w").is_some()
    });
    (plain && alike).then_some(())?;
    // attention reads them in the order in which they were said
    members.sort_unstable();
    let joined = Matmul { layers: Layers::new(members.len()), ..op };
    let bindable = |operand: Operand| operand.bytes(target) <= target.limits.binding_bytes;
    let aligned = (op.m * op.n) as f64 * Op::from(op).output().elem_size(target);
    let whole_words = |operand: &Operand| operand.count as f64 * operand.elem_size(target) % 4.0 == 0.0;
    let fits = Op::from(joined).operands().into_iter().all(bindable)
        && aligned % f64::from(target.limits.offset_alignment) == 0.0
        && Op::from(op).operands().iter().all(whole_words);
    fits.then_some(Group { members, op: joined })
}

fn input_of(node: &Node, name: &str) -> Option<NodeId> {
    node.inputs.iter().find(|(known, _)| *known == name).map(|(_, input)| *input)
}

/// `attn1.to_q`, `attn1.to_k` and `attn1.to_v` as `attn1.to_q+to_k+to_v`.
fn joined_label<'a>(labels: impl Iterator<Item = &'a str>) -> String {
    let mut joined = String::new();
    for label in labels {
        match label.rsplit_once('.') {
            Some((_, name)) if !joined.is_empty() => joined.extend(["+", name]),
            _ => joined.push_str(label),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::joined_label;

    #[test]
    fn labels_keep_every_name() {
        let labels = ["unet.attn1.to_q", "unet.attn1.to_k", "unet.attn1.to_v"];
        assert_eq!(joined_label(labels.into_iter()), "unet.attn1.to_q+to_k+to_v");
    }
}
