use crate::{Kernel, Target, Values, ValuesMut};
use ratel_tensor::Elem;

/// What kind of memory an operand lies in, which fixes its element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Activations: `Elem` in WGSL, `f32` or `f16` as the target says.
    Activation,
    /// The matrix of a layer: `Weight` in WGSL, in one of the three [`crate::WeightStorage`]s.
    Weight,
    /// Always `f32`: biases, norms' scales, latents, statistics.
    Vector,
    /// `u32` values below the bound: token ids.
    Ids {
        /// One more than the largest id.
        bound: u32,
    },
    /// Bytes, four in a `u32`: pictures.
    Bytes,
}

/// One binding of an op: its name in WGSL, and how much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// The binding's name in WGSL.
    pub name: &'static str,
    /// What it holds.
    pub role: Role,
    /// How many elements it has.
    pub count: usize,
    /// How many of them must be read or written at least once; `count` for all but tables that are looked up in.
    pub touched: usize,
}

impl Operand {
    /// Activations that are read, or, as the last operand, written.
    pub const fn activation(name: &'static str, count: usize) -> Self {
        Operand { name, role: Role::Activation, count, touched: count }
    }

    /// Rows of `c` values that are read: the first `c1` of each lie in `x`, and what is left, if any, in `x2`.
    pub(crate) fn side_by_side(rows: usize, c: usize, c1: usize) -> Vec<Self> {
        let mut all = vec![Operand::activation("x", rows * c1)];
        if c1 < c {
            all.push(Operand::activation("x2", rows * (c - c1)));
        }
        all
    }

    /// A layer's matrix.
    pub const fn weight(name: &'static str, count: usize) -> Self {
        Operand { name, role: Role::Weight, count, touched: count }
    }

    /// Values that are `f32` whatever the precision of the run.
    pub const fn vector(name: &'static str, count: usize) -> Self {
        Operand { name, role: Role::Vector, count, touched: count }
    }

    /// Bytes of one element under a target.
    pub const fn elem_size(&self, target: &Target) -> f64 {
        match self.role {
            Role::Activation => target.elem.size() as f64,
            Role::Weight => target.weight.elem().size() as f64,
            Role::Vector | Role::Ids { .. } => 4.0,
            Role::Bytes => 1.0,
        }
    }

    /// Bytes of the whole operand under a target, rounded up to whole words.
    pub fn bytes(&self, target: &Target) -> u64 {
        (self.count as f64 * self.elem_size(target) / 4.0).ceil() as u64 * 4
    }
}

/// A scalar that a kernel takes in its `Params`, by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Param {
    /// A size or a switch.
    U32(u32),
    /// An offset that may be negative.
    I32(i32),
    /// A factor.
    F32(f32),
}

impl Param {
    /// The four bytes that go to the device.
    pub fn to_bytes(self) -> [u8; 4] {
        match self {
            Param::U32(v) => v.to_le_bytes(),
            Param::I32(v) => v.to_le_bytes(),
            Param::F32(v) => v.to_le_bytes(),
        }
    }
}

/// The least work an op can be done with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Floating-point operations; a multiply-add is two.
    pub flops: f64,
    /// Bytes that must be moved: every operand once.
    pub bytes: f64,
}

/// What an op's module declares. Sizes are part of the op, so nothing here needs a device.
pub trait Operation {
    /// The op's name: that of its plain kernel.
    fn name(&self) -> &'static str;

    /// The operands that are there, inputs first and in a fixed order, the one output last.
    fn operands(&self) -> Vec<Operand>;

    /// The scalars its kernels may ask for. A kernel's `Params` may name any subset of them.
    fn params(&self) -> Vec<(&'static str, Param)>;

    /// Floating-point operations; a multiply-add is two.
    fn flops(&self) -> f64;

    /// The right answer, computed on the CPU: `inputs` in the order of [`Operation::operands`].
    fn twin(&self, inputs: &[Values], output: ValuesMut);

    /// The kernels that can compute it, the plain one first.
    fn kernels(&self) -> Vec<&'static Kernel>;

    /// How far a kernel may be from the twin: normalised mean square error for activations of this type, given the
    /// same (already rounded) inputs.
    fn tolerance(&self, elem: Elem) -> f64 {
        match elem {
            Elem::F32 => 1e-11,
            // one rounding of the result to 11 bits
            Elem::F16 | Elem::BF16 => 1e-6,
        }
    }
}

/// Declares [`Op`] and its way to the [`Operation`] inside.
macro_rules! ops {
    ($($(#[$doc:meta])* $variant:ident($module:ident::$type:ident),)*) => {
        /// An operation with all its sizes: what is computed, not how.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            $($(#[$doc])* $variant(crate::$module::$type),)*
        }

        impl std::ops::Deref for Op {
            type Target = dyn Operation;
            fn deref(&self) -> &Self::Target {
                match self {
                    $(Op::$variant(op) => op,)*
                }
            }
        }

        $(impl From<crate::$module::$type> for Op {
            fn from(op: crate::$module::$type) -> Op {
                Op::$variant(op)
            }
        })*

        impl Op {
            /// The cases of every op: the models' own shapes, and odd ones.
            pub fn all_cases() -> Vec<Op> {
                let mut cases = Vec::new();
                $(cases.extend(crate::$module::$type::cases().into_iter().map(Op::from));)*
                cases
            }
        }

        /// The text of each op's module, by the module's name: what this program was built from.
        pub(crate) const MODULES: &[(&str, &str)] =
            &[$((stringify!($module), include_str!(concat!(stringify!($module), ".rs"))),)*];
    };
}

ops! {
    /// Product with a layer's matrix.
    Matmul(matmul::Matmul),
    /// Convolution.
    Conv2d(conv2d::Conv2d),
    /// The end of a matrix product in parts.
    SumParts(sum_parts::SumParts),
    /// First half of a group norm.
    GroupNormStats(group_norm_stats::GroupNormStats),
    /// Second half of a group norm.
    GroupNorm(group_norm::GroupNorm),
    /// Group norm in one.
    GroupNormWhole(group_norm_whole::GroupNormWhole),
    /// Layer norm.
    LayerNorm(layer_norm::LayerNorm),
    /// Attention.
    Attention(attention::Attention),
    /// GEGLU.
    Geglu(geglu::Geglu),
    /// SiLU, GELU, quick GELU.
    Activation(activation::Activation),
    /// Sum, with the second operand repeated as need be.
    Add(add::Add),
    /// Token embedding.
    Embedding(embedding::Embedding),
    /// Rows by number.
    IndexSelect(index_select::IndexSelect),
    /// Timestep embedding.
    TimeEmbedding(time_embedding::TimeEmbedding),
    /// Concatenation along the channels.
    Concat(concat::Concat),
    /// Enlargement.
    Upsample(upsample::Upsample),
    /// A sampler's update.
    Combine(combine::Combine),
    /// Classifier-free guidance.
    Guidance(guidance::Guidance),
    /// Latents into a model.
    ScaleLatents(scale_latents::ScaleLatents),
    /// Latents of a picture.
    Posterior(posterior::Posterior),
    /// A picture as bytes.
    Rgb8(rgb8::Rgb8),
    /// Activations as `f32`.
    ToVector(to_vector::ToVector),
    /// How fast memory is copied.
    RoofCopy(roof_copy::RoofCopy),
    /// How fast a device multiplies and adds.
    RoofFma(roof_fma::RoofFma),
    /// How fast a device multiplies cooperative matrices.
    RoofMatrix(roof_matrix::RoofMatrix),
    /// How fast workgroup memory is read.
    RoofWorkgroup(roof_workgroup::RoofWorkgroup),
    /// What a dispatch costs by itself.
    RoofEmpty(roof_empty::RoofEmpty),
}

impl Op {
    /// The least work this op can be done with on a target.
    pub fn cost(&self, target: &Target) -> Cost {
        let bytes = self.operands().iter().map(|o| o.touched as f64 * o.elem_size(target)).sum();
        Cost { flops: self.flops(), bytes }
    }

    /// The operand that is written.
    pub fn output(&self) -> Operand {
        *self.operands().last().expect("every op has an output")
    }
}
