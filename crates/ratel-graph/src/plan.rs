//! The plan: what is dispatched, in which order, over which memory. Plain data, made without a GPU at hand.

use ratel_kernels::{Choice, Op, Role, Target};
use ratel_tensor::{Layout, Shape};

/// A graph made ready for one target: steps in order, and the memory they work in.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was made for.
    pub target: Target,
    /// Dispatches, in order.
    pub steps: Vec<Step>,
    /// So many of the first steps need not be run again while the tensors given once stay the same: what later steps read of
    /// their results keeps its slots.
    pub prologue: usize,
    /// Bytes of each slot. Tensors that don't live at the same time share one.
    pub slots: Vec<u64>,
    /// What must be uploaded before the first run.
    pub weights: Vec<Weight>,
    /// What is written before every run.
    pub inputs: Vec<Port>,
    /// What can be read after every run.
    pub outputs: Vec<Port>,
    /// Tensors that were asked for by name, readable right after their step.
    pub observed: Vec<Observed>,
    /// Every module's output that a step writes, asked for or not, where fusion has left it whole. It lies there right
    /// after its step; later its memory may be another's.
    pub modules: Vec<Observed>,
}

/// One dispatch.
#[derive(Clone, Debug)]
pub struct Step {
    /// The module it belongs to, in diffusers' spelling: `unet.down_blocks.0.resnets.0.conv1`.
    pub label: String,
    /// What is computed.
    pub op: Op,
    /// Which kernel does it; `None` where the target is the CPU twins.
    pub choice: Option<Choice>,
    /// Where each operand lies, in the order of [`ratel_kernels::Operation::operands`]: the output last.
    pub operands: Vec<Place>,
}

/// A range of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The memory.
    pub memory: Memory,
    /// Bytes to skip; a multiple of the device's offset alignment.
    pub offset: u64,
    /// Bytes there are.
    pub bytes: u64,
}

/// A piece of memory that a plan knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Memory {
    /// `Plan::slots[i]`.
    Slot(usize),
    /// `Plan::weights[i]`.
    Weight(usize),
    /// `Plan::inputs[i]`.
    Input(usize),
    /// `Plan::outputs[i]`.
    Output(usize),
}

/// A parameter of the model, as it must lie in device memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Its key: component, then diffusers' name: `unet.conv_in.weight`.
    pub key: String,
    /// How the file's tensor is rearranged.
    pub layout: Layout,
    /// The memory it is for, which with the target gives its element type.
    pub role: Role,
    /// Its shape in the checkpoint (PyTorch's).
    pub shape: Shape,
    /// Bytes on the device.
    pub bytes: u64,
    /// Whether it lies right behind the weight before it, as an operand that spans both wants.
    pub follows: bool,
}

/// A tensor that goes in or comes out.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Its name: `latents`, `timestep`, `encoder_hidden_states`.
    pub name: String,
    /// Its shape inside Ratel (channels last).
    pub shape: Shape,
    /// The memory it is.
    pub role: Role,
    /// Bytes on the device.
    pub bytes: u64,
}

/// A tensor that was asked for by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The module whose output it is.
    pub name: String,
    /// Its shape inside Ratel (channels last).
    pub shape: Shape,
    /// Index of the step that writes it. (If the module's output is an input of the plan or a view of one: `None`.)
    pub step: Option<usize>,
    /// Where it lies then.
    pub place: Place,
}

impl Plan {
    /// Bytes of all slots, inputs and outputs: the memory a run takes beside the weights.
    pub fn activation_bytes(&self) -> u64 {
        let ports = self.inputs.iter().chain(&self.outputs);
        self.slots.iter().sum::<u64>() + ports.map(|port| port.bytes).sum::<u64>()
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> u64 {
        self.weights.iter().map(|weight| weight.bytes).sum()
    }

    /// Floating-point operations of one run, the prologue among them.
    pub fn flops(&self) -> f64 {
        self.steps.iter().map(|step| step.op.flops()).sum()
    }
}
