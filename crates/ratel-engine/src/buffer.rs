//! Memory, on a device or, for the CPU twins, in the host; and typed access to it.

use crate::gpu::Gpu;
use crate::memory::{Counter, Held};
use crate::{EngineError, error::one_line};
use half::f16;
use half::slice::HalfFloatSliceExt;
use ratel_kernels::{Operand, Role, Target, WeightStorage};
use ratel_tensor::Elem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// The most that is copied to or from the host in one piece.
const PIECE: usize = 16 << 20;
/// Bytes that may wait in staging memory before the device is waited for.
const STAGING: u64 = 64 << 20;

/// A piece of memory.
#[derive(Debug)]
pub(crate) enum Allocation {
    /// On the device.
    Device { gpu: Arc<Gpu>, raw: wgpu::Buffer, bytes: u64, _held: Held },
    /// In the host, as words; whoever reads holds a share, so that a write finds out about aliases.
    Host { words: Mutex<Arc<Vec<u32>>>, bytes: u64, _held: Held },
}

impl Allocation {
    /// Memory on the device.
    pub(crate) fn on_device(gpu: &Arc<Gpu>, label: &str, bytes: u64) -> Result<Allocation, EngineError> {
        let bytes = bytes.max(4).next_multiple_of(4);
        let limit = gpu.info.limits.buffer_bytes;
        if bytes > limit {
            return Err(EngineError::TooLarge { what: label.to_owned(), bytes, limit });
        }
        let raw = gpu.guarded(label, || {
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: bytes,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })?;
        Ok(Allocation::Device { gpu: gpu.clone(), raw, bytes, _held: gpu.counter.hold(bytes) })
    }

    /// Memory in the host.
    pub(crate) fn on_host(counter: &Arc<Counter>, label: &str, bytes: u64) -> Result<Allocation, EngineError> {
        let bytes = bytes.max(4).next_multiple_of(4);
        let count = usize::try_from(bytes / 4).unwrap_or(usize::MAX);
        let mut words = Vec::new();
        words.try_reserve_exact(count).map_err(|e| EngineError::OutOfMemory {
            what: label.to_owned(),
            live: counter.live(),
            why: e.to_string(),
        })?;
        words.resize(count, 0);
        Ok(Allocation::Host { words: Mutex::new(Arc::new(words)), bytes, _held: counter.hold(bytes) })
    }

    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Allocation::Device { bytes, .. } | Allocation::Host { bytes, .. } => *bytes,
        }
    }

    pub(crate) fn region(&self, offset: u64, bytes: u64) -> Region<'_> {
        Region { allocation: self, offset, bytes }
    }

    /// Copies bytes in at an offset of whole words; a last word begun is filled up with zeros.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<(), EngineError> {
        let whole = data.len().next_multiple_of(4) as u64;
        if !offset.is_multiple_of(4) || offset.checked_add(whole).is_none_or(|end| end > self.bytes()) {
            return Err(EngineError::Buffer(format!(
                "{} bytes at {offset} can't be written to a buffer of {}: offsets are whole words",
                data.len(),
                self.bytes()
            )));
        }
        let (words, rest) = data.split_at(data.len() / 4 * 4);
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        let last_at = offset + words.len() as u64;
        match self {
            Allocation::Device { gpu, raw, .. } => {
                for (i, piece) in words.chunks(PIECE).enumerate() {
                    gpu.stage(raw, offset + (i * PIECE) as u64, piece)?;
                }
                if rest.is_empty() { Ok(()) } else { gpu.stage(raw, last_at, &last) }
            }
            Allocation::Host { words: memory, .. } => {
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                let memory: &mut [u8] = bytemuck::cast_slice_mut(Arc::<Vec<u32>>::make_mut(&mut memory));
                memory[offset as usize..last_at as usize].copy_from_slice(words);
                if !rest.is_empty() {
                    memory[last_at as usize..last_at as usize + 4].copy_from_slice(&last);
                }
                Ok(())
            }
        }
    }

    /// Copies `bytes` out, from an offset of whole words; waits until the device has done what it was given before.
    pub(crate) fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, EngineError> {
        let whole = bytes.next_multiple_of(4);
        if !offset.is_multiple_of(4) || offset.checked_add(whole).is_none_or(|end| end > self.bytes()) {
            let held = self.bytes();
            return Err(EngineError::Buffer(format!("{bytes} bytes at {offset} can't be read of a buffer of {held}")));
        }
        match self {
            Allocation::Device { gpu, raw, .. } => {
                let mut out = Vec::with_capacity(whole as usize);
                while (out.len() as u64) < whole {
                    let piece = (whole - out.len() as u64).min(PIECE as u64);
                    gpu.fetch(raw, offset + out.len() as u64, piece, &mut out)?;
                }
                out.truncate(bytes as usize);
                Ok(out)
            }
            Allocation::Host { words, .. } => {
                let words = words.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let all: &[u8] = bytemuck::cast_slice(&words);
                Ok(all[offset as usize..(offset + bytes) as usize].to_vec())
            }
        }
    }
}

impl Gpu {
    /// Writes whole words through the queue, and waits when too much has gathered in staging memory.
    fn stage(&self, buffer: &wgpu::Buffer, offset: u64, data: &[u8]) -> Result<(), EngineError> {
        self.guarded("uploading", || self.queue.write_buffer(buffer, offset, data))?;
        let staged = self.staged.fetch_add(data.len() as u64, Ordering::Relaxed) + data.len() as u64;
        if staged < STAGING { Ok(()) } else { self.flush() }
    }

    /// Sends off what is staged and waits for it.
    pub(crate) fn flush(&self) -> Result<(), EngineError> {
        self.staged.store(0, Ordering::Relaxed);
        let submission = self.guarded("uploading", || self.queue.submit([]))?;
        self.wait(Some(submission))
    }

    /// Appends whole words of a buffer to `out`.
    pub(crate) fn fetch(
        &self,
        buffer: &wgpu::Buffer,
        offset: u64,
        bytes: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), EngineError> {
        let _held = self.counter.hold(bytes);
        let (sender, receiver) = mpsc::channel();
        let (staging, submission) = self.guarded("reading back", || {
            let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("reading back"),
                size: bytes,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let mut encoder = self.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, bytes);
            let submission = self.queue.submit([encoder.finish()]);
            staging.map_async(wgpu::MapMode::Read, .., move |result| drop(sender.send(result)));
            (staging, submission)
        })?;
        self.wait(Some(submission))?;
        let unreadable = |why: String| EngineError::Validation { what: "reading back".to_owned(), why };
        match receiver.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(unreadable(one_line(&error.to_string()))),
            Err(_) => return Err(unreadable("the buffer was not mapped".to_owned())),
        }
        let view = staging.get_mapped_range(..).map_err(|e| unreadable(one_line(&e.to_string())))?;
        out.extend_from_slice(&view);
        Ok(())
    }
}

/// A range of a piece of memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region<'a> {
    pub(crate) allocation: &'a Allocation,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// How the elements of a buffer are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    F32,
    F16,
    U32,
    Bytes,
}

/// The values of one operand, on the device or, for the CPU twins, in the host.
#[derive(Debug)]
pub struct Buffer {
    pub(crate) allocation: Allocation,
    role: Role,
    count: usize,
    elem: Elem,
    weight: WeightStorage,
}

impl Buffer {
    pub(crate) fn new(allocation: Allocation, role: Role, count: usize, target: &Target) -> Buffer {
        Buffer { allocation, role, count, elem: target.elem, weight: target.weight }
    }

    /// Bytes of `count` elements of a role under a target, rounded up to whole words.
    pub(crate) fn bytes_of(role: Role, count: usize, target: &Target) -> u64 {
        Operand { name: "", role, count, touched: count }.bytes(target)
    }

    /// What it holds.
    pub fn role(&self) -> Role {
        self.role
    }

    /// How many elements it has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> u64 {
        self.allocation.bytes()
    }

    /// The type of its elements where they are floating-point numbers.
    pub fn elem(&self) -> Option<Elem> {
        match self.stored() {
            Stored::F32 => Some(Elem::F32),
            Stored::F16 => Some(Elem::F16),
            Stored::U32 | Stored::Bytes => None,
        }
    }

    /// How a layer's matrix is stored in it.
    pub(crate) fn weight_storage(&self) -> WeightStorage {
        match (self.role, self.stored()) {
            (Role::Weight, _) => self.weight,
            (_, Stored::F16) => WeightStorage::F16,
            _ => WeightStorage::F32,
        }
    }

    pub(crate) fn region(&self) -> Region<'_> {
        self.allocation.region(0, self.allocation.bytes())
    }

    fn stored(&self) -> Stored {
        let float = |elem| if elem == Elem::F16 { Stored::F16 } else { Stored::F32 };
        match self.role {
            Role::Activation => float(self.elem),
            Role::Weight => float(self.weight.elem()),
            Role::Vector => Stored::F32,
            Role::Ids { .. } => Stored::U32,
            Role::Bytes => Stored::Bytes,
        }
    }

    /// Writes all its values, rounded to half precision (to nearest, ties to even) where it is stored so.
    ///
    /// # Errors
    /// If it holds no floating-point numbers, or another number of them; what the device reports.
    pub fn write_f32(&self, values: &[f32]) -> Result<(), EngineError> {
        self.fits(values.len(), "floating-point numbers", &[Stored::F32, Stored::F16])?;
        match self.stored() {
            Stored::F16 => self.allocation.write(0, bytemuck::cast_slice(&to_f16(values))),
            _ => self.allocation.write(0, bytemuck::cast_slice(values)),
        }
    }

    /// Reads all its values, after what was given to the device before.
    ///
    /// # Errors
    /// If it holds no floating-point numbers; what the device reports.
    pub fn read_f32(&self) -> Result<Vec<f32>, EngineError> {
        self.fits(self.count, "floating-point numbers", &[Stored::F32, Stored::F16])?;
        match self.stored() {
            Stored::F16 => Ok(from_f16(&self.allocation.read(0, self.count as u64 * 2)?)),
            _ => Ok(bytemuck::pod_collect_to_vec(&self.allocation.read(0, self.count as u64 * 4)?)),
        }
    }

    /// Writes all its ids.
    ///
    /// # Errors
    /// If it holds no ids, or another number of them, or one is not below the bound; what the device reports.
    pub fn write_u32(&self, values: &[u32]) -> Result<(), EngineError> {
        self.fits(values.len(), "ids", &[Stored::U32])?;
        if let Role::Ids { bound } = self.role
            && let Some(id) = values.iter().find(|id| **id >= bound)
        {
            return Err(EngineError::Buffer(format!("id {id} is not below {bound}, the number of known ids")));
        }
        self.allocation.write(0, bytemuck::cast_slice(values))
    }

    /// Reads all its ids.
    ///
    /// # Errors
    /// If it holds none; what the device reports.
    pub fn read_u32(&self) -> Result<Vec<u32>, EngineError> {
        self.fits(self.count, "ids", &[Stored::U32])?;
        Ok(bytemuck::pod_collect_to_vec(&self.allocation.read(0, self.count as u64 * 4)?))
    }

    /// Writes all its bytes.
    ///
    /// # Errors
    /// If it does not hold bytes, or another number of them; what the device reports.
    pub fn write_bytes(&self, values: &[u8]) -> Result<(), EngineError> {
        self.fits(values.len(), "bytes", &[Stored::Bytes])?;
        self.allocation.write(0, values)
    }

    /// Reads all its bytes.
    ///
    /// # Errors
    /// If it does not hold bytes; what the device reports.
    pub fn read_bytes(&self) -> Result<Vec<u8>, EngineError> {
        self.fits(self.count, "bytes", &[Stored::Bytes])?;
        self.allocation.read(0, self.count as u64)
    }

    fn fits(&self, count: usize, what: &str, stored: &[Stored]) -> Result<(), EngineError> {
        if count == self.count && stored.contains(&self.stored()) {
            return Ok(());
        }
        let (held, role) = (self.count, self.role);
        Err(EngineError::Buffer(format!("a buffer of {held} values ({role:?}) was given or asked for {count} {what}")))
    }
}

/// Values in half precision, rounded to nearest, ties to even.
pub(crate) fn to_f16(values: &[f32]) -> Vec<f16> {
    let mut halves = vec![f16::ZERO; values.len()];
    halves.convert_from_f32_slice(values);
    halves
}

/// Little-endian halves as `f32`.
pub(crate) fn from_f16(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect()
}
