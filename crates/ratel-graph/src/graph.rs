//! The graph: what is computed, in the order in which it was said.

use ratel_kernels::{Op, Role};
use ratel_tensor::{Layout, Shape};
use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet};

/// Why a model could not be built of a checkpoint's tensors.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum GraphError {
    /// A tensor that the architecture needs is not there.
    #[error("{key} is missing from the checkpoint")]
    Missing {
        /// Its key.
        key: String,
    },
    /// A parameter does not fit what it is applied to.
    #[error("{key} is {shape}, which does not fit {needed}")]
    Misfit {
        /// Its key.
        key: String,
        /// Its shape.
        shape: Shape,
        /// What it would have to fit.
        needed: String,
    },
    /// Two tensors do not go together, or a size makes no sense.
    #[error("{label}: {problem}")]
    Invalid {
        /// The module at work.
        label: String,
        /// What is wrong.
        problem: String,
    },
    /// Tensors that no layer uses.
    #[error("no layer uses {key}{others}; the file is not a checkpoint of this architecture")]
    Unused {
        /// The first of them.
        key: String,
        /// ` and N more`, or nothing.
        others: String,
    },
}

/// A number of a node in its graph.
pub(crate) type NodeId = usize;

/// One tensor: where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub kind: NodeKind,
    /// By operand name; in no order, but for a stack's.
    pub inputs: Vec<(&'static str, NodeId)>,
    /// The module at work, in diffusers' spelling.
    pub label: String,
    pub role: Role,
    pub shape: Shape,
}

#[derive(Clone, Debug)]
pub(crate) enum NodeKind {
    /// Given before every run, or once for many.
    Input { name: String, once: bool },
    /// A parameter.
    Weight { key: String, layout: Layout },
    /// Computed.
    Op(Op),
    /// Parameters that lie in memory one right after the other: its inputs, in order.
    Stack,
    /// Some consecutive values of its one input, from number `first` on: no memory of its own.
    Slice { first: usize },
}

/// A tensor that has a name: the output of a module.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub name: String,
    pub node: NodeId,
    pub shape: Shape,
}

/// What is computed: tensors, each from earlier ones, over the parameters of one component of a checkpoint.
///
/// Nothing is read and nothing is allocated: a graph knows shapes and keys. Mistakes, such as a parameter that does not
/// fit, are kept and come out of [`Graph::finish`], so that a model reads as mathematics.
#[derive(Debug)]
pub struct Graph {
    component: String,
    catalogue: BTreeMap<String, Shape>,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Node>,
    named: Vec<Named>,
    outputs: Vec<(String, NodeId, Shape)>,
    weights: BTreeMap<String, NodeId>,
    touched: BTreeSet<String>,
    error: Option<GraphError>,
}

/// A graph that was built to its end without a mistake.
#[derive(Clone, Debug)]
pub struct Finished {
    pub(crate) nodes: Vec<Node>,
    pub(crate) named: Vec<Named>,
    pub(crate) outputs: Vec<(String, NodeId, Shape)>,
}

impl Graph {
    /// An empty graph over a component (`unet`) whose checkpoint holds these keys (`conv_in.weight`), shapes as in PyTorch.
    pub fn new(component: &str, catalogue: BTreeMap<String, Shape>) -> Self {
        Graph { component: component.to_owned(), catalogue, state: RefCell::default() }
    }

    /// The component itself as a module: where every path starts.
    pub fn root(&self) -> Module<'_> {
        Module { graph: self, path: String::new() }
    }

    /// A tensor that is given before every run. Latents and timesteps are vectors (`f32`).
    pub fn input(&self, name: &str, shape: impl Into<Shape>, role: Role) -> Tensor<'_> {
        self.given(name, false, shape.into(), role)
    }

    /// A tensor that is given once for many runs, as a prompt is for all steps. What depends on such tensors alone can be
    /// computed once, too: see [`crate::Rule::Once`].
    pub fn constant(&self, name: &str, shape: impl Into<Shape>, role: Role) -> Tensor<'_> {
        self.given(name, true, shape.into(), role)
    }

    fn given(&self, name: &str, once: bool, shape: Shape, role: Role) -> Tensor<'_> {
        let kind = NodeKind::Input { name: name.to_owned(), once };
        let label = ratel_tensor::join(&self.component, name);
        self.push(Node { kind, inputs: vec![], label, role, shape })
    }

    /// The finished graph.
    ///
    /// # Errors
    /// The first mistake made on the way; or the keys that no layer used, except those that `ignored` says are no weights
    /// of the graph that was built (the encoder's, when only the decoder was).
    pub fn finish(self, ignored: impl Fn(&str) -> bool) -> Result<Finished, GraphError> {
        let state = self.state.into_inner();
        if let Some(error) = state.error {
            return Err(error);
        }
        let mut unused = self.catalogue.keys().filter(|key| !state.touched.contains(*key) && !ignored(key));
        if let Some(key) = unused.next() {
            let key = ratel_tensor::join(&self.component, key);
            let others = match unused.count() {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            return Err(GraphError::Unused { key, others });
        }
        Ok(Finished { nodes: state.nodes, named: state.named, outputs: state.outputs })
    }

    pub(crate) fn push(&self, node: Node) -> Tensor<'_> {
        let mut state = self.state.borrow_mut();
        let shape = node.shape;
        state.nodes.push(node);
        Tensor { graph: self, node: state.nodes.len() - 1, shape }
    }

    /// Keeps the first mistake.
    pub(crate) fn fail(&self, error: GraphError) {
        self.state.borrow_mut().error.get_or_insert(error);
    }

    pub(crate) fn node(&self, id: NodeId) -> Ref<'_, Node> {
        Ref::map(self.state.borrow(), |state| &state.nodes[id])
    }
}

/// A tensor of a graph: a value to compute with, cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'g> {
    pub(crate) graph: &'g Graph,
    pub(crate) node: NodeId,
    pub(crate) shape: Shape,
}

impl<'g> Tensor<'g> {
    /// Its extents: `(N, H, W, C)`, `(N, T, C)` or `(N, C)`.
    pub fn shape(self) -> Shape {
        self.shape
    }

    /// The same values under another shape.
    pub fn reshape(self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        if shape.count() != self.shape.count() {
            let problem = format!("a tensor of {} can't be seen as {shape}", self.shape);
            self.graph.fail(GraphError::Invalid { label: self.label(), problem });
        }
        Tensor { shape, ..self }
    }

    /// Names it as the output of a module, so that a trace can show it.
    pub fn named(self, module: &Module) -> Self {
        let name = module.label();
        self.graph.state.borrow_mut().named.push(Named { name, node: self.node, shape: self.shape });
        self
    }

    /// Makes it readable after every run.
    pub fn output(self, name: &str) {
        self.graph.state.borrow_mut().outputs.push((name.to_owned(), self.node, self.shape));
    }

    pub(crate) fn label(self) -> String {
        self.graph.node(self.node).label.clone()
    }
}

/// A place in a checkpoint: the parameters of one module and of those inside it.
#[derive(Clone, Debug)]
pub struct Module<'g> {
    graph: &'g Graph,
    path: String,
}

impl<'g> Module<'g> {
    /// The module inside: `unet.at("mid_block").at("resnets.0")`.
    pub fn at(&self, child: &str) -> Module<'g> {
        Module { graph: self.graph, path: ratel_tensor::join(&self.path, child) }
    }

    /// Its name with the component's in front: `unet.mid_block.resnets.0`.
    pub fn label(&self) -> String {
        ratel_tensor::join(&self.graph.component, &self.path)
    }

    /// Whether it has anything of this name inside: a parameter or a module.
    pub fn has(&self, child: &str) -> bool {
        let path = ratel_tensor::join(&self.path, child);
        let from = self.graph.catalogue.range(path.clone()..);
        from.take_while(|(key, _)| key.starts_with(&path)).any(|(key, _)| ratel_tensor::matches(&path, key))
    }

    /// The modules `child.0`, `child.1`, ... that are there.
    pub fn list(&self, child: &str) -> Vec<Module<'g>> {
        let names = (0..).map(|i| format!("{child}.{i}"));
        names.take_while(|name| self.has(name)).map(|name| self.at(&name)).collect()
    }

    /// The shape of a parameter, or a shape of rank 0 and a mistake kept if it is not there.
    pub fn shape(&self, parameter: &str) -> Shape {
        let key = ratel_tensor::join(&self.path, parameter);
        self.graph.catalogue.get(&key).copied().unwrap_or_else(|| {
            self.graph.fail(GraphError::Missing { key: ratel_tensor::join(&self.graph.component, &key) });
            Shape::from([])
        })
    }

    /// A parameter as a tensor. `fits` says whether its shape (PyTorch's) does, and `needed` what it must fit.
    pub(crate) fn parameter(
        &self,
        name: &str,
        layout: Layout,
        role: Role,
        fits: impl Fn(&[usize]) -> bool,
        needed: impl Fn() -> String,
    ) -> Tensor<'g> {
        let shape = self.shape(name);
        let path = ratel_tensor::join(&self.path, name);
        let key = ratel_tensor::join(&self.graph.component, &path);
        if !shape.is_empty() && !fits(&shape) {
            self.graph.fail(GraphError::Misfit { key: key.clone(), shape, needed: needed() });
        }
        let known = self.graph.state.borrow().weights.get(&key).copied();
        if let Some(node) = known {
            return Tensor { graph: self.graph, node, shape };
        }
        let kind = NodeKind::Weight { key: key.clone(), layout };
        let tensor = self.graph.push(Node { kind, inputs: vec![], label: self.label(), role, shape });
        let mut state = self.graph.state.borrow_mut();
        state.weights.insert(key, tensor.node);
        state.touched.insert(path);
        tensor
    }
}
