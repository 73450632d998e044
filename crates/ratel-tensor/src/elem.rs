use std::fmt;

/// The type of one element in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Elem {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16. On a device without 16-bit floats two of them share a `u32` (`pack2x16float`);
    /// the bytes are the same.
    F16,
    /// The upper half of an `F32`. Only in files: it is widened to `F32` on the way to a device.
    BF16,
}

impl Elem {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Elem::F32 => 4,
            Elem::F16 | Elem::BF16 => 2,
        }
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Elem::F32 => "f32",
            Elem::F16 => "f16",
            Elem::BF16 => "bf16",
        })
    }
}
