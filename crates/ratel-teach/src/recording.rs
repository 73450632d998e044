//! The data of a page. All of it is the run's own: nothing is computed again for show.

use crate::{Histogram, Tensor, Term};
use ratel_profile::{Bound, Run};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A run looked into.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recording {
    /// The version of these fields: 1.
    pub version: u32,
    /// What was run and on what, with the device's roof.
    pub run: Run,
    /// What was asked for.
    pub settings: Settings,
    /// Why latents are cheaper, in this run's figures.
    pub figures: Figures,
    /// Text encoder, UNet and decoder, in the order in which they ran.
    pub components: Vec<Component>,
    /// Each kernel that ran, by [`Node::kernel`].
    pub kernels: BTreeMap<String, KernelPage>,
    /// Values of layers, by number.
    pub tensors: Vec<Tensor>,
    /// Elements that the program took apart by itself, so that what the page computes can be held against it.
    pub samples: Vec<Sample>,
    /// The run, and one beside it to compare with, if it was asked for.
    pub sides: Vec<Side>,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The step of the UNet, from 0, whose layers are shown.
    pub step: usize,
    /// Modules whose values are kept: names or patterns.
    pub only: Vec<String>,
    /// Bytes that kept values may take in the page.
    pub limit: u64,
    /// Bytes that the values of all fitting modules would take.
    pub wanted: u64,
    /// Bytes that they take.
    pub kept: u64,
    /// Latents' rows, columns and channels.
    pub latents: [usize; 3],
    /// The seed, in digits: numbers of JavaScript are exact to 2^53 only.
    #[serde(with = "digits")]
    pub seed: u64,
}

/// Why latents are cheaper: the same UNet over latents, as it ran, and over pixels, as it is planned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// Numbers of a picture.
    pub picture_elements: usize,
    /// Numbers of its latents.
    pub latent_elements: usize,
    /// Floating-point operations of one call of the UNet on the latents, without what is computed once for many calls.
    pub unet_flops: f64,
    /// Bytes that its dispatches must move.
    pub unet_bytes: f64,
    /// Bytes of memory for its activations.
    pub unet_memory: u64,
    /// The same UNet with a place for each pixel instead of each latent: its operations, from its plan.
    pub pixel_flops: Option<f64>,
    /// Bytes that its dispatches would move.
    pub pixel_bytes: Option<f64>,
    /// Bytes of memory for its activations.
    pub pixel_memory: Option<u64>,
    /// Operations of the decoder, which is run once.
    pub decoder_flops: f64,
}

/// A part of the model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Component {
    /// `text_encoder`, `unet` or `vae`: what its modules' names begin with.
    pub name: String,
    /// How often it ran.
    pub calls: usize,
    /// Values of its parameters.
    pub parameters: usize,
    /// Bytes of them on the device.
    pub weight_bytes: u64,
    /// Bytes of slots, inputs and outputs.
    pub activation_bytes: u64,
    /// Its dispatches in order.
    pub nodes: Vec<Node>,
    /// How many of them, the first, ran once for many calls.
    pub once: usize,
    /// Bytes of each slot of memory.
    pub slots: Vec<u64>,
    /// Who lives where, from which dispatch to which.
    pub tenants: Vec<Tenant>,
}

/// One dispatch of a component.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// The module, in diffusers' spelling, with the component in front.
    pub module: String,
    /// Modules whose outputs this dispatch's output is, those that `ratel trace` would show: one, or each of those that were
    /// joined in one dispatch.
    pub is: Vec<Module>,
    /// The op: its plain kernel's name.
    pub op: String,
    /// Its sizes in a few characters.
    pub shape: String,
    /// The kernel with its variant: a key of [`Recording::kernels`].
    pub kernel: String,
    /// The op's scalars by name.
    pub params: BTreeMap<String, f64>,
    /// The activation function that is applied last, if any.
    pub act: String,
    /// Inputs, then the output.
    pub operands: Vec<NodeOperand>,
    /// Workgroups along x, y, z; none for a CPU twin.
    pub workgroups: Option<[u32; 3]>,
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes that it must move.
    pub bytes: f64,
    /// Nanoseconds that it took each time it ran, in order.
    pub ns: Vec<u64>,
    /// Operations a second that what does its arithmetic reaches at best, where that is known.
    pub peak: Option<f64>,
    /// Nanoseconds that it takes at least by the device's roof, where that is known.
    pub least_ns: Option<f64>,
    /// What binds it then.
    pub bound: Option<Bound>,
}

/// A module's output within a dispatch's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Module {
    /// In diffusers' spelling, with the component in front.
    pub name: String,
    /// Values before it.
    pub offset: usize,
    /// Its extents, channels last.
    pub shape: Vec<usize>,
}

/// An operand of a dispatch: an edge of the graph.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeOperand {
    /// Its name in the WGSL.
    pub name: String,
    /// Its extents, channels last.
    pub shape: Vec<usize>,
    /// Bytes on the device.
    pub bytes: u64,
    /// Where it comes from.
    pub from: Source,
    /// Values before it in what that dispatch or input holds: of projections that were joined, this may be the second.
    pub offset: usize,
    /// Its values: a number in [`Recording::tensors`].
    pub tensor: Option<usize>,
    /// How its values are distributed, where they were looked at.
    pub values: Option<Histogram>,
}

/// Where an operand comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Written by the dispatch of this number.
    Node(usize),
    /// An input of the component.
    Input(String),
    /// A parameter of the checkpoint, or several that lie one behind the other.
    Weight(Vec<String>),
    /// This dispatch writes it.
    Output,
}

/// A tensor in a slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// The slot.
    pub slot: usize,
    /// The dispatch that writes it.
    pub first: usize,
    /// The last that reads it.
    pub last: usize,
    /// Its bytes.
    pub bytes: u64,
}

/// A kernel as it ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KernelPage {
    /// Its name.
    pub name: String,
    /// The element types and constants.
    pub variant: String,
    /// The file, with the folder in front.
    pub file: String,
    /// The file's text with the variant's constants filled in, every line at its number, then what it imports.
    pub text: String,
    /// Lines of it that are the file's own.
    pub own_lines: usize,
    /// The lines that were filled in, from 1.
    pub filled: Vec<usize>,
    /// The equation: what the file's first line says.
    pub equation: String,
    /// What a workgroup and an invocation do, as the file's comment says.
    pub grid: String,
    /// Invocations of a workgroup, where they can be told from the text.
    pub lanes: Option<u32>,
}

/// An element that the program took apart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// The component's number.
    pub component: usize,
    /// The dispatch's.
    pub node: usize,
    /// The element's place among the output's values.
    pub element: usize,
    /// How many terms its sum has, and the first few of them.
    pub terms: (usize, Vec<Term>),
    /// What the twin's arithmetic gives.
    pub value: f32,
    /// What the device has there.
    pub device: f32,
}

/// A run of the sampler.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Side {
    /// What is to be seen.
    pub prompt: String,
    /// What is not.
    pub negative_prompt: String,
    /// Guidance.
    pub cfg_scale: f32,
    /// The prompt's words with their tokens, and the tokens around them.
    pub words: Vec<Word>,
    /// Step by step.
    pub steps: Vec<SideStep>,
    /// The result as a data URL.
    pub picture: String,
}

/// A word of a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// As it is written.
    pub text: String,
    /// Its tokens: from, and up to without.
    pub tokens: [usize; 2],
    /// Whether it is in the prompt; otherwise a mark of its beginning, end or padding.
    pub real: bool,
}

/// A step of the sampler, seen from within.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SideStep {
    /// The step, from 0.
    pub step: usize,
    /// The training timestep that the model was told.
    pub timestep: f32,
    /// How noisy the latents are, as a multiple of the picture in them; none where there is no picture in them yet.
    pub sigma: Option<f64>,
    /// `x`, then `noise.NAME` and `x0.NAME` for each prediction: `unconditional`, `conditional`, `guided`.
    pub latents: BTreeMap<String, Tensor>,
    /// The root of the mean square of each.
    pub sizes: BTreeMap<String, f64>,
    /// The decoded `x` and predicted `x0`, as data URLs.
    pub pictures: BTreeMap<String, String>,
    /// What each place attends to.
    pub heat: Heat,
}

/// Cross-attention of a step to the prompt's words.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Heat {
    /// A map for each cross-attention layer that was recorded.
    pub layers: Vec<HeatLayer>,
}

/// Cross-attention of a layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeatLayer {
    /// The module.
    pub module: String,
    /// `(words, rows, columns)`: the share of attention that each place gives each of [`Side::words`], its heads' mean.
    pub maps: Tensor,
}

/// Numbers as text.
mod digits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&number.to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
