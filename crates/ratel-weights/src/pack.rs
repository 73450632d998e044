//! From a tensor's bytes in a file to the bytes that go to a device: another element type, another order.

use half::{bf16, f16};
use ratel_tensor::Elem;
use rayon::prelude::*;

/// A value that can't be packed: not a number, infinite, or too large for half precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadValue {
    NotFinite,
    TooLarge,
}

/// `N` rows of `C * T` values, in a file, as `T * C` rows of `N` values: PyTorch's `(out, in, taps)` to `(taps, in, out)`,
/// the transpose of a matrix where `taps` is 1. `taps == 0` keeps the order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub n: usize,
    pub c: usize,
    pub taps: usize,
}

impl Order {
    /// So many values as they are.
    pub(crate) fn keep(count: usize) -> Self {
        Order { n: 1, c: count, taps: 0 }
    }
}

/// Converts and reorders.
pub(crate) fn pack(bytes: &[u8], from: Elem, to: Elem, order: Order) -> Result<Vec<u8>, BadValue> {
    match to {
        Elem::F16 => {
            let halves = pack_as::<f16>(bytes, from, order)?;
            Ok(bytemuck::cast_slice(&halves).to_vec())
        }
        Elem::F32 | Elem::BF16 => {
            let floats = pack_as::<f32>(bytes, from, order)?;
            Ok(bytemuck::cast_slice(&floats).to_vec())
        }
    }
}

/// An element type of the device.
trait Packed: Copy + Default + Send + Sync {
    fn of(value: f32) -> Self;
    fn is_finite(self) -> bool;
}

impl Packed for f32 {
    fn of(value: f32) -> Self {
        value
    }
    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }
}

impl Packed for f16 {
    fn of(value: f32) -> Self {
        f16::from_f32(value)
    }
    fn is_finite(self) -> bool {
        f16::is_finite(self)
    }
}

fn pack_as<T: Packed>(bytes: &[u8], from: Elem, order: Order) -> Result<Vec<T>, BadValue> {
    match from {
        Elem::F32 => reorder(bytes.as_chunks::<4>().0, f32::from_le_bytes, order),
        Elem::F16 => reorder(bytes.as_chunks::<2>().0, |b| f16::from_le_bytes(b).to_f32(), order),
        Elem::BF16 => reorder(bytes.as_chunks::<2>().0, |b| bf16::from_le_bytes(b).to_f32(), order),
    }
}

/// Input channels that one task takes. Reading 16 neighbours of each row uses whole cache lines.
const BLOCK: usize = 16;

fn reorder<B: Copy + Sync, T: Packed>(
    source: &[B],
    widen: impl Fn(B) -> f32 + Sync,
    order: Order,
) -> Result<Vec<T>, BadValue> {
    let Order { n, c, taps } = order;
    let mut out = vec![T::default(); source.len()];
    if source.is_empty() {
        return Ok(out);
    }
    if taps == 0 {
        out.par_chunks_mut(1 << 16).zip(source.par_chunks(1 << 16)).try_for_each(|(out, source)| {
            out.iter_mut().zip(source).try_for_each(|(out, value)| put(out, widen(*value)))
        })?;
        return Ok(out);
    }
    // a task has the rows of some input channels, in the part of every tap
    let mut tasks: Vec<Vec<&mut [T]>> = (0..c.div_ceil(BLOCK)).map(|_| Vec::with_capacity(taps)).collect();
    for tap in out.chunks_mut(c * n) {
        for (task, rows) in tasks.iter_mut().zip(tap.chunks_mut(BLOCK * n)) {
            task.push(rows);
        }
    }
    tasks.into_par_iter().enumerate().try_for_each(|(block, mut parts)| {
        let first = block * BLOCK;
        for channel in first..(first + BLOCK).min(c) {
            for row in 0..n {
                let at = (row * c + channel) * taps;
                for (tap, value) in source[at..at + taps].iter().enumerate() {
                    put(&mut parts[tap][(channel - first) * n + row], widen(*value))?;
                }
            }
        }
        Ok(())
    })?;
    Ok(out)
}

fn put<T: Packed>(out: &mut T, value: f32) -> Result<(), BadValue> {
    *out = T::of(value);
    match (value.is_finite(), out.is_finite()) {
        (true, true) => Ok(()),
        (true, false) => Err(BadValue::TooLarge),
        (false, _) => Err(BadValue::NotFinite),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    #[test]
    fn a_matrix_is_transposed() {
        let (n, c) = (37, 53);
        let values: Vec<f32> = (0..n * c).map(|i| i as f32).collect();
        let packed = pack(bytemuck::cast_slice(&values), Elem::F32, Elem::F32, Order { n, c, taps: 1 });
        let packed = floats(&packed.expect("finite numbers"));
        for row in 0..n {
            for column in 0..c {
                assert_eq!(packed[column * n + row], values[row * c + column]);
            }
        }
    }

    #[test]
    fn a_convolution_goes_tap_by_tap() {
        let (n, c, taps) = (5, 33, 9);
        let values: Vec<f32> = (0..n * c * taps).map(|i| i as f32).collect();
        let packed = pack(bytemuck::cast_slice(&values), Elem::F32, Elem::F32, Order { n, c, taps });
        let packed = floats(&packed.expect("finite numbers"));
        for (i, value) in packed.iter().enumerate() {
            let (tap, channel, row) = (i / (c * n), i / n % c, i % n);
            assert_eq!(*value, values[(row * c + channel) * taps + tap]);
        }
    }

    #[test]
    fn halves_and_their_limits() {
        let pack_half = |value: f32| pack(&value.to_le_bytes(), Elem::F32, Elem::F16, Order::keep(1));
        assert_eq!(pack_half(1.0), Ok(f16::ONE.to_le_bytes().to_vec()));
        assert_eq!(pack_half(70_000.0), Err(BadValue::TooLarge));
        assert_eq!(pack_half(f32::NAN), Err(BadValue::NotFinite));
        let wide = pack(&bf16::from_f32(1.5).to_le_bytes(), Elem::BF16, Elem::F32, Order::keep(1));
        assert_eq!(wide, Ok(1.5f32.to_le_bytes().to_vec()));
    }
}
