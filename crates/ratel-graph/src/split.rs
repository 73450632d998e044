//! Matrix products in parts: a node with a small result and long sums becomes two.

use crate::graph::{Finished, Node, NodeId, NodeKind};
use ratel_kernels::{Role, Target};

/// Splits the products that are better computed in parts on this target.
pub(crate) fn split(graph: &mut Finished, target: &Target) {
    let mut place: Vec<NodeId> = Vec::with_capacity(graph.nodes.len());
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes.len());
    for mut node in graph.nodes.drain(..) {
        node.inputs.iter_mut().for_each(|(_, input)| *input = place[*input]);
        let halves = match &node.kind {
            NodeKind::Op(op) => ratel_kernels::split(op, target),
            _ => None,
        };
        if let Some((first, second)) = halves {
            let factors = |name: &str| ["x", "x2", "w"].contains(&name);
            let (inputs, others) = node.inputs.iter().partition(|(name, _)| factors(name));
            let shape = [first.output().count].into();
            nodes.push(Node { kind: NodeKind::Op(first), inputs, role: Role::Vector, shape, ..node.clone() });
            node.inputs = others;
            node.inputs.push(("parts", nodes.len() - 1));
            node.kind = NodeKind::Op(second);
        }
        nodes.push(node);
        place.push(nodes.len() - 1);
    }
    graph.nodes = nodes;
    graph.outputs.iter_mut().for_each(|(_, node, _)| *node = place[*node]);
    graph.named.iter_mut().for_each(|named| named.node = place[named.node]);
}
