//! A checkpoint: a diffusers folder or a single file, behind one set of names.

use crate::config::{Family, TextFacts, UnetFacts, VaeFacts};
use crate::file::{Entry, TensorFile};
use crate::folder;
use crate::ldm::{self, Kind, Meaning, Names};
use crate::pack::{Failure, Order, pack};
use crate::{Defaults, Files, WeightsError};
use ratel_tensor::{Elem, Layout, Shape};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A part of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The text encoder.
    TextEncoder = 0,
    /// The noise predictor.
    Unet = 1,
    /// The autoencoder.
    Vae = 2,
}

impl Component {
    /// Every component.
    pub const ALL: [Component; 3] = [Component::TextEncoder, Component::Unet, Component::Vae];

    /// Its name: that of its folder, and the first part of its keys.
    pub const fn name(self) -> &'static str {
        match self {
            Component::TextEncoder => "text_encoder",
            Component::Unet => "unet",
            Component::Vae => "vae",
        }
    }
}

/// What the model predicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// `epsilon`, `v_prediction` or `sample`, as diffusers writes it.
    pub kind: String,
    /// Why that was taken, if the checkpoint does not say.
    pub guess: Option<String>,
}

impl Prediction {
    /// What a single file says, or what is the rule for its family, as diffusers' `single_file_utils.py` has it. `inputs` are
    /// its UNet's input channels.
    fn of_file(file: &TensorFile, family: Family, inputs: Option<usize>) -> Self {
        let says = |kind: &str| Prediction { kind: kind.to_owned(), guess: None };
        let guessed = |kind: &str, why: &str, other: &str| Prediction {
            kind: kind.to_owned(),
            guess: Some(format!(
                "a single file of SD 2.x does not say what it predicts; taken for {why}; --prediction {other} if the \
                 pictures are wrong"
            )),
        };
        // Stability's ModelSpec
        match file.metadata.get("modelspec.prediction_type").map(String::as_str) {
            Some("v") => return says("v_prediction"),
            Some("epsilon") => return says("epsilon"),
            _ => {}
        }
        /// Steps that SD 2's 512 model was trained for.
        const BASE_STEPS: i64 = 875_000;
        let steps = file.tensors.get(ldm::GLOBAL_STEP).and_then(|entry| file.integer(entry));
        match family {
            _ if file.tensors.contains_key(ldm::V_MARK) => says("v_prediction"),
            Family::Sd1 => says("epsilon"),
            Family::Sd2 if steps == Some(BASE_STEPS) => guessed("epsilon", "noise (as SD 2's 512 model)", "v"),
            Family::Sd2 if inputs.is_some_and(|channels| channels > 4) => {
                guessed("epsilon", "noise (as SD 2's inpainting model)", "v")
            }
            Family::Sd2 => guessed("v_prediction", "v (as SD 2.1's 768 model)", "eps"),
        }
    }
}

/// An opened checkpoint. Its tensors stay in its files until they are read.
#[derive(Debug)]
pub struct Checkpoint {
    pub(crate) path: PathBuf,
    pub(crate) files: Files,
    pub(crate) shards: Vec<TensorFile>,
    pub(crate) components: [BTreeMap<String, Stored>; 3],
    /// Tensors that no component has a place for, with their file's names.
    pub unknown: Vec<String>,
    /// The family it is of.
    pub family: Family,
    /// What the UNet's weights can't tell.
    pub unet: UnetFacts,
    /// What the text encoder's weights can't tell.
    pub text: TextFacts,
    /// What the VAE's weights can't tell; `None` for a model without a VAE, which works on pictures themselves.
    pub vae: Option<VaeFacts>,
    /// What it predicts.
    pub prediction: Prediction,
    /// `scheduler_config.json`, of a folder that has one: where it is, and what it says.
    pub scheduler: Option<(PathBuf, Value)>,
    /// The tokenizer's folder, of a folder that has one.
    pub tokenizer: Option<PathBuf>,
    /// What to draw with unless something else is asked for.
    pub defaults: Defaults,
}

/// Where a weight lies.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub file: usize,
    /// Its name in the file.
    pub name: String,
    /// The rows of the file's tensor that it is, if not all.
    rows: Option<Range<usize>>,
    pub shape: Shape,
    pub elem: Elem,
}

impl Checkpoint {
    /// Opens a diffusers folder or a `.safetensors` file, on the disk or inside the program.
    ///
    /// # Errors
    /// What is not there or can't be read; a damaged or lying file; a family or a part that is not supported.
    pub fn open(files: Files, path: &Path) -> Result<Self, WeightsError> {
        if files.is_folder(path) { folder::open(files, path) } else { Self::open_file(files, path) }
    }

    fn open_file(files: Files, path: &Path) -> Result<Self, WeightsError> {
        let invalid = |problem: &str| WeightsError::Invalid { path: path.to_owned(), problem: problem.to_owned() };
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
        if matches!(extension.as_str(), "ckpt" | "pt" | "pth" | "bin") {
            return Err(invalid(
                "a pickle file can run any code when it is read, so it is not; convert it to safetensors, for example \
                 with diffusers' save_pretrained(..., safe_serialization=True)",
            ));
        }
        let file = TensorFile::open(files, path)?;
        let has = |kind| ldm::has_prefix(file.tensors.keys().map(String::as_str), kind);
        if has(Kind::Sdxl) {
            return Err(invalid("an SDXL checkpoint; only SD 1.x and SD 2.x are supported so far"));
        }
        if !has(Kind::Unet) {
            return Err(invalid(
                "not a whole checkpoint: it has no model.diffusion_model.* tensors; a single component of a diffusers \
                 folder must be opened by the folder that holds model_index.json",
            ));
        }
        if !has(Kind::Vae) {
            return Err(invalid("it has no VAE (first_stage_model.* tensors)"));
        }
        let family = match (has(Kind::Clip), has(Kind::OpenClip)) {
            (true, _) => Family::Sd1,
            (false, true) => Family::Sd2,
            (false, false) => return Err(invalid("it has no text encoder (cond_stage_model.* tensors)")),
        };
        let names = Names::new(file.tensors.keys().map(String::as_str));
        let mut builder = Builder::default();
        for (name, entry) in &file.tensors {
            for meaning in names.meanings(name) {
                match meaning {
                    Meaning::Weight { component, key, third } => {
                        builder.add(component, key, 0, name, entry, third, path)?;
                    }
                    Meaning::Ignored => {}
                    Meaning::Unknown => builder.unknown.push(name.clone()),
                }
            }
        }
        let [text, unet, _] = &builder.components;
        let channels: Vec<usize> = (0..)
            .map_while(|i: usize| unet.get(&format!("down_blocks.{i}.resnets.0.conv1.weight"))?.shape.first().copied())
            .collect();
        let text_channels = text.get("final_layer_norm.weight").map_or(0, |s| s.shape.last());
        let inputs = unet.get("conv_in.weight").and_then(|stored| stored.shape.get(1).copied());
        let prediction = Prediction::of_file(&file, family, inputs);
        let text = TextFacts::of_family(family, text_channels);
        let unet = UnetFacts {
            sample_size: if prediction.kind == "v_prediction" { 96 } else { 64 },
            ..UnetFacts::of_family(family, &channels)
        };
        Ok(Checkpoint {
            path: path.to_owned(),
            files,
            shards: vec![file],
            components: builder.components,
            unknown: builder.unknown,
            family,
            unet,
            text,
            vae: Some(VaeFacts::known()),
            prediction,
            scheduler: None,
            tokenizer: None,
            defaults: Defaults::default(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its path leads.
    pub fn files(&self) -> Files {
        self.files
    }

    /// What to call it: its folder's name, or its file's without the ending.
    pub fn name(&self) -> String {
        let path = match self.files {
            // `.` has a name, too
            Files::Disk => self.path.canonicalize().unwrap_or_else(|_| self.path.clone()),
            Files::Embedded(_) => self.path.clone(),
        };
        let name = if self.files.is_folder(&path) { path.file_name() } else { path.file_stem() };
        name.unwrap_or_default().to_string_lossy().into_owned()
    }

    /// A component's keys (below the component: `conv_in.weight`) with the shapes that PyTorch has for them.
    pub fn catalogue(&self, component: Component) -> BTreeMap<String, Shape> {
        self.components[component as usize].iter().map(|(key, stored)| (key.clone(), stored.shape)).collect()
    }

    pub(crate) fn stored(&self, component: Component) -> &BTreeMap<String, Stored> {
        &self.components[component as usize]
    }

    /// The widest element type of a component's matrices.
    pub fn elem(&self, component: Component) -> Elem {
        let matrices = self.components[component as usize].values().filter(|stored| stored.shape.len() > 1);
        if matrices.clone().all(|stored| stored.elem == Elem::F16) { Elem::F16 } else { Elem::F32 }
    }

    /// Gives a weight to `sink`, laid out and converted to `f32` or `f16` for a device, in pieces of some megabytes: their
    /// offset in bytes and their bytes. Offsets are multiples of 4 and each byte is given once, in no order. The file's pages
    /// are let go afterwards.
    ///
    /// # Errors
    /// A key that is not there; a shape that the layout can't be of; a value that is not finite, or too large for half
    /// precision; what `sink` returns.
    pub fn read(
        &self,
        component: Component,
        key: &str,
        layout: Layout,
        elem: Elem,
        sink: &mut Sink,
    ) -> Result<(), WeightsError> {
        let full = || ratel_tensor::join(component.name(), key);
        let missing = || WeightsError::Missing { path: self.path.clone(), key: full() };
        let stored = self.components[component as usize].get(key).ok_or_else(missing)?;
        let file = &self.shards[stored.file];
        let entry = file.tensors.get(&stored.name).ok_or_else(missing)?;
        let order = match (layout, &*stored.shape) {
            (Layout::AsIs, _) => Order::Kept,
            (Layout::Linear, &[n, c] | &[n, c, 1, 1]) => Order::Turned { n, c, taps: 1 },
            (Layout::Conv, &[n, c, r, s]) => Order::Turned { n, c, taps: r * s },
            _ => return Err(WeightsError::Layout { path: self.path.clone(), key: full(), shape: stored.shape }),
        };
        let bytes = file.bytes(entry);
        let bytes = match &stored.rows {
            None => bytes,
            Some(rows) => {
                let row = stored.shape.count() / stored.shape[0].max(1) * stored.elem.size();
                &bytes[rows.start * row..rows.end * row]
            }
        };
        pack(bytes, stored.elem, elem, order, sink).map_err(|failure| {
            let problem = match failure {
                Failure::NotFinite => "holds a value that is not a number or infinite; the file is damaged".to_owned(),
                Failure::TooLarge => "holds a value too large for f16; use --precision f32".to_owned(),
                Failure::NoSuchElem(elem) => format!("was asked for as {elem}, which no device computes with"),
                Failure::Sink(error) => return WeightsError::Sink(error),
            };
            WeightsError::Tensor { path: file.path.clone(), key: stored.name.clone(), problem }
        })?;
        file.release(entry);
        Ok(())
    }
}

/// Takes a piece of a weight: its offset in bytes, and its bytes.
pub type Sink<'a> = dyn FnMut(u64, &[u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Components being filled.
#[derive(Default)]
pub(crate) struct Builder {
    pub components: [BTreeMap<String, Stored>; 3],
    pub unknown: Vec<String>,
}

impl Builder {
    /// Adds a weight, or one third of a fused one.
    pub(crate) fn add(
        &mut self,
        component: usize,
        key: String,
        file: usize,
        name: &str,
        entry: &Entry,
        third: Option<usize>,
        path: &Path,
    ) -> Result<(), WeightsError> {
        let wrong = |problem: String| WeightsError::Tensor { path: path.to_owned(), key: name.to_owned(), problem };
        let elem =
            entry.elem.ok_or_else(|| wrong(format!("is of type {}; weights are f32, f16 or bf16", entry.dtype)))?;
        let mut shape = entry.shape.ok_or_else(|| wrong("has more than four axes".to_owned()))?;
        if shape.is_empty() || shape.count() == 0 {
            return Err(wrong(format!("is {shape}, which no weight is")));
        }
        let mut rows = None;
        if let (Some(part), Some(&all)) = (third, shape.first()) {
            if all % 3 != 0 {
                return Err(wrong(format!("is {shape}, which can't be split into query, key and value")));
            }
            let range = ldm::third(all, part);
            let mut extents = shape.to_vec();
            extents[0] = range.len();
            shape = Shape::new(&extents);
            rows = Some(range);
        }
        let stored = Stored { file, name: name.to_owned(), rows, shape, elem };
        if self.components[component].insert(key.clone(), stored).is_some() {
            return Err(wrong(format!("is there twice: another tensor is {key}, too")));
        }
        Ok(())
    }
}
