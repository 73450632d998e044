//! From a tensor's bytes in a file to the bytes that go to a device: another element type, another order.

use crate::checkpoint::Sink;
use bytemuck::Pod;
use half::f16;
use half::slice::HalfFloatSliceExt;
use ratel_tensor::{Elem, PANEL};
use rayon::prelude::*;
use std::ops::Range;

/// Why a tensor was not packed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A value is not a number, or infinite.
    NotFinite,
    /// A value is too large for half precision.
    TooLarge,
    /// No device has elements of this type.
    NoSuchElem(Elem),
    /// Whoever took the values failed.
    Sink(Box<dyn std::error::Error + Send + Sync>),
}

/// The order of the values on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// As they are in the file.
    Kept,
    /// `(n, c, taps)` in the file; on the device the matrix `(taps, c, n)` of `n` columns, in panels. None is 0.
    Turned { n: usize, c: usize, taps: usize },
}

/// Bytes of a piece, about: small enough to stay in a cache, large enough to be worth a task for each core.
const PIECE: usize = 8 << 20;

/// Converts and reorders, a piece at a time. A piece begins on a whole word, and but for the last ends on one.
pub(crate) fn pack(bytes: &[u8], from: Elem, to: Elem, order: Order, sink: &mut Sink) -> Result<(), Failure> {
    match (from, to) {
        (Elem::F32, Elem::F32) => pack_as(Source { bytes, size: 4, convert: f32_to_f32 }, order, sink),
        (Elem::F16, Elem::F32) => pack_as(Source { bytes, size: 2, convert: f16_to_f32 }, order, sink),
        (Elem::BF16, Elem::F32) => pack_as(Source { bytes, size: 2, convert: bf16_to_f32 }, order, sink),
        (Elem::F32, Elem::F16) => pack_as(Source { bytes, size: 4, convert: f32_to_f16 }, order, sink),
        (Elem::F16, Elem::F16) => pack_as(Source { bytes, size: 2, convert: f16_to_f16 }, order, sink),
        (Elem::BF16, Elem::F16) => pack_as(Source { bytes, size: 2, convert: bf16_to_f16 }, order, sink),
        (_, Elem::BF16) => Err(Failure::NoSuchElem(to)),
    }
}

/// Values in a file, of `size` bytes each, and how a run of them becomes values of a device.
#[derive(Clone, Copy)]
struct Source<'a, T> {
    bytes: &'a [u8],
    size: usize,
    convert: fn(&[u8], &mut [T]) -> Result<(), Failure>,
}

impl<T> Source<'_, T> {
    /// Converts the values from number `first` on, as many as `out` holds.
    fn read(&self, first: usize, out: &mut [T]) -> Result<(), Failure> {
        (self.convert)(&self.bytes[first * self.size..][..out.len() * self.size], out)
    }
}

fn pack_as<T: Pod + Send + Sync>(source: Source<'_, T>, order: Order, sink: &mut Sink) -> Result<(), Failure> {
    match order {
        Order::Kept => keep(source, sink),
        Order::Turned { n, c, taps } => turn(source, n, c, taps, sink),
    }
}

fn keep<T: Pod + Send + Sync>(source: Source<'_, T>, sink: &mut Sink) -> Result<(), Failure> {
    const TASK: usize = 1 << 16;
    let count = source.bytes.len() / source.size;
    let most = PIECE / size_of::<T>();
    let mut piece = vec![T::zeroed(); count.min(most)];
    for first in (0..count).step_by(most) {
        let piece = &mut piece[..(count - first).min(most)];
        let tasks = piece.par_chunks_mut(TASK).enumerate();
        tasks.try_for_each(|(task, out)| source.read(first + task * TASK, out))?;
        sink((first * size_of::<T>()) as u64, bytemuck::cast_slice(piece)).map_err(Failure::Sink)?;
    }
    Ok(())
}

/// What is a column of the matrix on the device is a row of the file, so a panel is some rows there, as many values.
fn turn<T: Pod + Send + Sync>(
    source: Source<'_, T>,
    n: usize,
    c: usize,
    taps: usize,
    sink: &mut Sink,
) -> Result<(), Failure> {
    let rows = taps * c;
    let size = size_of::<T>();
    let most = (PIECE / (rows * size)).next_multiple_of(PANEL).max(PANEL);
    let mut piece = vec![T::zeroed(); rows * n.min(most)];
    for first in (0..n).step_by(most) {
        let columns = (n - first).min(most);
        let piece = &mut piece[..rows * columns];
        let panels = piece.par_chunks_mut(rows * PANEL).enumerate();
        panels.try_for_each(|(panel, out)| turn_panel(source, first + panel * PANEL, c, taps, out))?;
        sink((first * rows * size) as u64, bytemuck::cast_slice(piece)).map_err(Failure::Sink)?;
    }
    Ok(())
}

/// Turns the panel whose first column is `first` of the matrix: to `(taps, c, width)`.
fn turn_panel<T: Pod + Send + Sync>(
    source: Source<'_, T>,
    first: usize,
    c: usize,
    taps: usize,
    panel: &mut [T],
) -> Result<(), Failure> {
    // channels of a task: neighbours in a row of the file, so that whole cache lines are used
    let block = if taps == 1 { 32 } else { 16 };
    let width = panel.len() / (taps * c);
    let mut tasks: Vec<Vec<&mut [T]>> = Vec::new();
    tasks.resize_with(c.div_ceil(block), || Vec::with_capacity(taps));
    for tap in panel.chunks_exact_mut(c * width) {
        for (task, part) in tasks.iter_mut().zip(tap.chunks_mut(block * width)) {
            task.push(part);
        }
    }
    tasks.into_par_iter().enumerate().try_for_each(|(task, mut parts)| {
        let start = task * block;
        turn_block(source, first..first + width, c, start..(start + block).min(c), &mut parts)
    })
}

/// Turns some channels of a panel's columns, for which `parts` has `channels.len() x columns.len()` values for each tap.
fn turn_block<T: Pod>(
    source: Source<'_, T>,
    columns: Range<usize>,
    c: usize,
    channels: Range<usize>,
    parts: &mut [&mut [T]],
) -> Result<(), Failure> {
    /// Columns of a tile: it is converted one by one and stays in the nearest cache until it is written row by row.
    const COLUMNS: usize = 32;
    let taps = parts.len();
    let run = channels.len() * taps;
    let width = columns.len();
    let mut tile = vec![T::zeroed(); COLUMNS.min(width) * run];
    for first in (0..width).step_by(COLUMNS) {
        let some = COLUMNS.min(width - first);
        for (column, out) in tile.chunks_exact_mut(run).take(some).enumerate() {
            source.read(((columns.start + first + column) * c + channels.start) * taps, out)?;
        }
        for (tap, part) in parts.iter_mut().enumerate() {
            for channel in 0..channels.len() {
                let row = tile[channel * taps + tap..].iter().step_by(run);
                let out = &mut part[channel * width + first..][..some];
                out.iter_mut().zip(row).for_each(|(out, value)| *out = *value);
            }
        }
    }
    Ok(())
}

// Each conversion looks for values that are not finite by their exponents, all ones, in one pass without branches.

fn finite(none_found: bool) -> Result<(), Failure> {
    if none_found { Ok(()) } else { Err(Failure::NotFinite) }
}

const F32_EXPONENT: u32 = 0x7f80_0000;
const F16_EXPONENT: u16 = 0x7c00;

fn f32_to_f32(from: &[u8], to: &mut [f32]) -> Result<(), Failure> {
    let mut bad = false;
    for (to, from) in to.iter_mut().zip(from.as_chunks::<4>().0) {
        *to = f32::from_le_bytes(*from);
        bad |= to.to_bits() & F32_EXPONENT == F32_EXPONENT;
    }
    finite(!bad)
}

fn bf16_to_f32(from: &[u8], to: &mut [f32]) -> Result<(), Failure> {
    let mut bad = false;
    for (to, from) in to.iter_mut().zip(from.as_chunks::<2>().0) {
        *to = f32::from_bits(u32::from(u16::from_le_bytes(*from)) << 16);
        bad |= to.to_bits() & F32_EXPONENT == F32_EXPONENT;
    }
    finite(!bad)
}

fn f16_to_f16(from: &[u8], to: &mut [f16]) -> Result<(), Failure> {
    let mut bad = false;
    for (to, from) in to.iter_mut().zip(from.as_chunks::<2>().0) {
        *to = f16::from_le_bytes(*from);
        bad |= to.to_bits() & F16_EXPONENT == F16_EXPONENT;
    }
    finite(!bad)
}

/// Values that are converted at once by the processor's own instructions, by way of a buffer of the right alignment.
const RUN: usize = 64;

fn f16_to_f32(from: &[u8], to: &mut [f32]) -> Result<(), Failure> {
    let mut halves = [f16::ZERO; RUN];
    for (to, from) in to.chunks_mut(RUN).zip(from.chunks(RUN * 2)) {
        let halves = &mut halves[..to.len()];
        f16_to_f16(from, halves)?;
        halves.convert_to_f32_slice(to);
    }
    Ok(())
}

fn f32_to_f16(from: &[u8], to: &mut [f16]) -> Result<(), Failure> {
    narrow(from, 4, f32_to_f32, to)
}

fn bf16_to_f16(from: &[u8], to: &mut [f16]) -> Result<(), Failure> {
    narrow(from, 2, bf16_to_f32, to)
}

fn narrow(
    from: &[u8],
    size: usize,
    widen: fn(&[u8], &mut [f32]) -> Result<(), Failure>,
    to: &mut [f16],
) -> Result<(), Failure> {
    let mut floats = [0.0; RUN];
    for (to, from) in to.chunks_mut(RUN).zip(from.chunks(RUN * size)) {
        let floats = &mut floats[..to.len()];
        widen(from, floats)?;
        to.convert_from_f32_slice(floats);
        if to.iter().fold(false, |bad, half| bad | (half.to_bits() & F16_EXPONENT == F16_EXPONENT)) {
            return Err(Failure::TooLarge);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use ratel_tensor::panel_index;

    /// Packs, and puts the pieces together as a device would: each byte once, on whole words.
    fn packed(bytes: &[u8], from: Elem, to: Elem, order: Order) -> Result<(Vec<u8>, usize), Failure> {
        let length = bytes.len() / from.size() * to.size();
        let (mut all, mut given, mut pieces) = (vec![0; length], vec![false; length], 0);
        pack(bytes, from, to, order, &mut |offset, piece| {
            let place = offset as usize..offset as usize + piece.len();
            assert!(place.start.is_multiple_of(4), "a piece begins within a word");
            assert!(place.end.is_multiple_of(4) || place.end == length, "a piece ends within a word");
            assert!(!given[place.clone()].contains(&true), "a byte is given twice");
            given[place.clone()].fill(true);
            all[place].copy_from_slice(piece);
            pieces += 1;
            Ok(())
        })?;
        assert!(!given.contains(&false), "a byte is never given");
        Ok((all, pieces))
    }

    /// Turns numbers that say where they were, and looks for each. A half has 11 bits of a number.
    fn turns(n: usize, c: usize, taps: usize, to: Elem) -> usize {
        const MOST: usize = 2039;
        let values: Vec<f32> = (0..n * c * taps).map(|i| (i % MOST) as f32).collect();
        let result = packed(bytemuck::cast_slice(&values), Elem::F32, to, Order::Turned { n, c, taps });
        let (bytes, pieces) = result.expect("finite numbers");
        let value = |i: usize| match to {
            Elem::F32 => f32::from_le_bytes(bytes.as_chunks::<4>().0[i]),
            _ => f16::from_le_bytes(bytes.as_chunks::<2>().0[i]).to_f32(),
        };
        for (i, expected) in values.iter().enumerate() {
            let (column, channel, tap) = (i / taps / c, i / taps % c, i % taps);
            let place = panel_index(tap * c + channel, column, taps * c, n);
            assert_eq!(value(place), *expected, "{n} {c} {taps} {to} at {i}");
        }
        pieces
    }

    #[test]
    fn matrices_and_convolutions_turn() {
        for to in [Elem::F32, Elem::F16] {
            let sizes =
                [(1, 1, 1), (37, 53, 1), (64, 32, 1), (150, 40, 1), (5, 33, 9), (3, 1, 9), (97, 17, 4), (1, 65, 2)];
            for (n, c, taps) in sizes {
                assert_eq!(turns(n, c, taps, to), 1);
            }
        }
    }

    #[test]
    fn large_ones_come_in_pieces() {
        for to in [Elem::F32, Elem::F16] {
            assert!(turns(2203, 2207, 1, to) > 1, "a matrix of odd sides");
            assert!(turns(610, 999, 9, to) > 1, "a convolution, the last panel narrower");
            assert_eq!(turns(70, 33_001, 9, to), 2, "panels larger than a piece");
        }
        let values = vec![1.5f32; PIECE / 4 * 2 + 1];
        let (bytes, pieces) =
            packed(bytemuck::cast_slice(&values), Elem::F32, Elem::F32, Order::Kept).expect("finite numbers");
        assert_eq!((bytes.len(), pieces), (PIECE * 2 + 4, 3));
    }

    #[test]
    fn every_type_becomes_every_other() {
        let values: Vec<f32> = (0..200).map(|i| (i as f32 - 100.0) * 0.25).collect(); // exact in all types
        let halves: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        let floats: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let short: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        for (from, bytes) in [(Elem::F32, &floats), (Elem::F16, &halves), (Elem::BF16, &short)] {
            // a byte further on, since nothing says that a file's tensors are aligned
            let moved = [&[0u8], &bytes[..]].concat();
            for (to, expected) in [(Elem::F32, &floats), (Elem::F16, &halves)] {
                let (found, _) = packed(&moved[1..], from, to, Order::Kept).expect("finite numbers");
                assert_eq!(found, *expected, "{from} to {to}");
            }
            assert!(matches!(packed(bytes, from, Elem::BF16, Order::Kept), Err(Failure::NoSuchElem(Elem::BF16))));
        }
    }

    #[test]
    fn bad_values_are_found_wherever_they_are() {
        let count = 150;
        for at in [0, 63, 64, 149] {
            for (bad, to, too_large) in [
                (f32::NAN, Elem::F32, false),
                (f32::NEG_INFINITY, Elem::F32, false),
                (f32::NAN, Elem::F16, false),
                (f32::INFINITY, Elem::F16, false),
                (-70_000.0, Elem::F16, true),
            ] {
                let mut values = vec![1.0f32; count];
                values[at] = bad;
                for order in [Order::Kept, Order::Turned { n: 15, c: 10, taps: 1 }] {
                    let floats = packed(bytemuck::cast_slice(&values), Elem::F32, to, order);
                    let short: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
                    for found in [floats, packed(&short, Elem::BF16, to, order)] {
                        match found {
                            Err(Failure::TooLarge) => assert!(too_large, "{bad} at {at}"),
                            Err(Failure::NotFinite) => assert!(!too_large, "{bad} at {at}"),
                            other => panic!("{bad} at {at} for {to}: {other:?}"),
                        }
                    }
                }
                let halves: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
                assert!(matches!(packed(&halves, Elem::F16, to, Order::Kept), Err(Failure::NotFinite)));
            }
        }
    }

    #[test]
    fn the_limits_of_half_precision() {
        let half = |value: f32| packed(&value.to_le_bytes(), Elem::F32, Elem::F16, Order::Kept).map(|(bytes, _)| bytes);
        assert_eq!(half(65_504.0).expect("fits"), f16::MAX.to_le_bytes());
        assert_eq!(half(65_519.0).expect("is rounded down"), f16::MAX.to_le_bytes());
        assert!(matches!(half(65_520.0), Err(Failure::TooLarge)));
        assert_eq!(half(1e-9).expect("is too small to be seen"), f16::ZERO.to_le_bytes());
    }

    #[test]
    fn a_sink_that_fails_is_heard() {
        for order in [Order::Kept, Order::Turned { n: 1, c: 1, taps: 1 }] {
            let failed = pack(&[0; 4], Elem::F32, Elem::F32, order, &mut |_, _| Err("full".into()));
            assert!(matches!(failed, Err(Failure::Sink(why)) if why.to_string() == "full"));
        }
    }
}
