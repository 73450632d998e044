//! A plan's weights: packed into few large buffers, filled piece by piece.

use crate::buffer::{Allocation, Region};
use crate::{Engine, EngineError, Progress};
use ratel_graph::{Place, Weight};
use ratel_kernels::{Role, Target};
use ratel_tensor::Elem;
use std::sync::mpsc::{SyncSender, sync_channel};

/// Weights share buffers of up to so many bytes; a larger weight has its own.
const CHUNK: u64 = 256 << 20;

/// Loads of pieces that may lie in the host's memory between being read and being uploaded, and the bytes from which on a load
/// is handed over: one by one, small pieces would wake a thread each. A checkpoint's large ones have some 8 MiB.
const WAITING: usize = 4;
const LOAD: usize = 1 << 20;

/// Takes a piece of a weight: its offset in bytes, and its bytes.
pub type WeightSink<'a> = dyn FnMut(u64, &[u8]) -> Result<(), EngineError> + 'a;

/// Where weights come from: a checkpoint, or numbers made up for a benchmark. They are read by another thread than the one
/// that uploads them.
pub trait WeightSource: Sync {
    /// Gives one weight to `sink`, as elements of type `elem` (`f32` or `f16`, little-endian) in the layout that
    /// `weight.layout` names, in pieces of any size: their offset in bytes, and the bytes. Offsets must be multiples of
    /// 4, so only the last piece may end within a word. Each byte must be given once.
    ///
    /// # Errors
    /// If the weight can't be read; and what `sink` returns, which must be passed on.
    fn read(
        &self,
        weight: &Weight,
        elem: Elem,
        sink: &mut WeightSink,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// The weights of a plan in memory.
#[derive(Debug)]
pub(crate) struct Weights {
    chunks: Vec<Allocation>,
    /// For each weight its chunk, and its offset there.
    places: Vec<(usize, u64)>,
}

impl Weights {
    /// Allocates and fills: one thread reads and converts, this one uploads what is ready meanwhile. `go_on` is asked before
    /// each piece, and its error ends the load.
    pub(crate) fn load(
        engine: &Engine,
        target: &Target,
        weights: &[Weight],
        source: &dyn WeightSource,
        go_on: &dyn Fn() -> Result<(), EngineError>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Weights, EngineError> {
        let (places, sizes) = pack(weights, u64::from(target.limits.offset_alignment), CHUNK);
        let chunks = sizes.iter().map(|bytes| engine.allocate("weights", *bytes)).collect::<Result<Vec<_>, _>>()?;
        let total = weights.iter().map(|weight| weight.bytes).sum();
        std::thread::scope(|scope| {
            let (sender, pieces) = sync_channel(WAITING);
            let reader = scope.spawn(move || read(target, weights, source, &sender));
            let mut done = 0;
            let uploaded = pieces.iter().flatten().try_for_each(|Piece { weight, at, bytes }| {
                go_on()?;
                done += bytes.len() as u64;
                progress(Progress { done: done.min(total), total });
                let (chunk, offset) = places[weight];
                chunks[chunk].write(offset + at, &bytes)
            });
            drop(pieces); // a reader that waits for room is told
            let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            uploaded.and(read)
        })?;
        engine.finish()?;
        progress(Progress { done: total, total });
        Ok(Weights { chunks, places })
    }

    /// A range of weight number `i`.
    pub(crate) fn region(&self, i: usize, place: &Place) -> Option<Region<'_>> {
        let (chunk, offset) = *self.places.get(i)?;
        Some(self.chunks[chunk].region(offset.checked_add(place.offset)?, place.bytes))
    }
}

/// A piece of weight number `weight` on its way from the reader to the device.
struct Piece {
    weight: usize,
    /// Its offset in the weight.
    at: u64,
    bytes: Vec<u8>,
}

/// Reads all weights, in order, and sees to it that each is whole.
fn read(
    target: &Target,
    weights: &[Weight],
    source: &dyn WeightSource,
    sender: &SyncSender<Vec<Piece>>,
) -> Result<(), EngineError> {
    let mut load: Vec<Piece> = Vec::new();
    // nobody takes pieces once the upload has failed, which is the error that counts
    let send = |load: &mut Vec<Piece>| sender.send(std::mem::take(load)).map_err(|_| EngineError::Cancelled);
    for (i, weight) in weights.iter().enumerate() {
        let elem = match weight.role {
            Role::Weight => target.weight.elem(),
            Role::Activation => target.elem,
            _ => Elem::F32,
        };
        let mut given = 0;
        let mut sink = |at: u64, bytes: &[u8]| {
            if at.checked_add(bytes.len() as u64).is_none_or(|end| end > weight.bytes) {
                let (key, whole, length) = (&weight.key, weight.bytes, bytes.len());
                return Err(EngineError::Plan(format!("{key} has {whole} bytes; its source gave {length} at {at}")));
            }
            given += bytes.len() as u64;
            load.push(Piece { weight: i, at, bytes: bytes.to_vec() });
            let full = load.iter().map(|piece| piece.bytes.len()).sum::<usize>() >= LOAD;
            if full { send(&mut load) } else { Ok(()) }
        };
        source.read(weight, elem, &mut sink).map_err(|error| match error.downcast::<EngineError>() {
            Ok(ours) => *ours,
            Err(theirs) => EngineError::Source(theirs),
        })?;
        let bytes = weight.shape.count() as u64 * elem.size() as u64;
        if given != bytes {
            return Err(EngineError::Plan(format!("{} has {bytes} bytes; its source gave {given}", weight.key)));
        }
    }
    send(&mut load)
}

/// For each weight its chunk and its offset there; and the chunks' sizes. Weights that follow each other stay together.
fn pack(weights: &[Weight], alignment: u64, cap: u64) -> (Vec<(usize, u64)>, Vec<u64>) {
    let mut sizes: Vec<u64> = Vec::new();
    let mut places = Vec::with_capacity(weights.len());
    let mut open = None; // the chunk that still takes weights
    for together in weights.chunk_by(|_, next| next.follows) {
        let bytes = together.iter().map(|weight| weight.bytes).sum();
        let begun: Option<(usize, u64)> = open.map(|chunk: usize| (chunk, sizes[chunk].next_multiple_of(alignment)));
        let (chunk, mut at) = match begun {
            Some((chunk, at)) if at + bytes <= cap => {
                sizes[chunk] = at + bytes;
                (chunk, at)
            }
            _ => {
                sizes.push(bytes);
                if bytes < cap {
                    open = Some(sizes.len() - 1);
                }
                (sizes.len() - 1, 0)
            }
        };
        for weight in together {
            places.push((chunk, at));
            at += weight.bytes;
        }
    }
    (places, sizes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratel_tensor::Layout;

    #[test]
    fn packs_at_aligned_offsets_below_the_cap() {
        let weight = |(bytes, follows): (u64, bool)| Weight {
            key: String::new(),
            layout: Layout::AsIs,
            role: Role::Vector,
            shape: [bytes as usize / 4].into(),
            bytes,
            follows,
        };
        let alone = [100, 60, 2000, 40, 900].map(|bytes| weight((bytes, false)));
        let (places, sizes) = pack(&alone, 64, 1024);
        assert_eq!(places, [(0, 0), (0, 128), (1, 0), (0, 192), (2, 0)]);
        assert_eq!(sizes, [232, 2000, 900]);
        let some_follow = [(700, false), (200, false), (100, true), (100, true), (8, false)].map(weight);
        let (places, sizes) = pack(&some_follow, 64, 1024);
        assert_eq!(places, [(0, 0), (1, 0), (1, 200), (1, 300), (1, 448)]);
        assert_eq!(sizes, [700, 456]);
    }
}
