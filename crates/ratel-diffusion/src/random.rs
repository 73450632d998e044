//! Random normals, the same numbers that torch and AUTOMATIC1111 draw from the same seed.
//!
//! A seed means the same picture only if the noise is the same, so both sources follow their originals draw by draw:
//!
//! - [`TorchGenerator`]: `torch.randn(..., generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)`.
//! - [`PhiloxGenerator`]: what torch draws on an NVIDIA GPU, as AUTOMATIC1111's "NV" source computes it on the CPU.
//!
//! The values agree to f32 rounding, not bit for bit: torch's own vector code differs from its scalar code in the last
//! digits. Both number their output in NCHW order, one image after the other.

use std::f64::consts::TAU;

/// Where an image's noise comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RandomSource {
    /// torch's CPU generator (Mersenne Twister): diffusers' and ComfyUI's noise.
    #[default]
    Torch,
    /// Philox: AUTOMATIC1111's "NV" noise.
    Philox,
}

/// A generator of either source.
#[derive(Clone, Debug)]
pub enum Generator {
    /// See [`TorchGenerator`].
    Torch(Box<TorchGenerator>),
    /// See [`PhiloxGenerator`].
    Philox(PhiloxGenerator),
}

impl Generator {
    /// A generator of `source` that starts from `seed`. torch reads a negative seed as its two's complement: pass
    /// `seed as u64`.
    pub fn new(source: RandomSource, seed: u64) -> Generator {
        match source {
            RandomSource::Torch => Generator::Torch(Box::new(TorchGenerator::new(seed))),
            RandomSource::Philox => Generator::Philox(PhiloxGenerator::new(seed)),
        }
    }

    /// Draws `count` standard normals, as one call of `randn` would; the next call goes on from there.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        match self {
            Generator::Torch(generator) => generator.normal(count),
            Generator::Philox(generator) => generator.normal(count),
        }
    }
}

/// torch's CPU generator, restricted to f32 standard normals.
///
/// Source: pytorch, `aten/src/ATen/core/MT19937RNGEngine.h`, `native/cpu/DistributionTemplates.h` (normal_fill) and
/// `core/DistributionsHelper.h` (normal_distribution).
#[derive(Clone, Debug)]
pub struct TorchGenerator {
    engine: MersenneTwister,
    /// The second half of a Box-Muller pair, kept from one element, and one call, to the next.
    spare: Option<f64>,
}

/// From this many elements on, torch fills blocks of 16 from 24-bit uniforms; below it, one 53-bit pair at a time.
const BLOCK: usize = 16;

impl TorchGenerator {
    /// A generator as after `manual_seed(seed)`. The engine is seeded with the low 32 bits only, as torch's is.
    pub fn new(seed: u64) -> TorchGenerator {
        TorchGenerator { engine: MersenneTwister::new(seed as u32), spare: None }
    }

    /// Draws what `torch.randn(count)` returns next.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        if count < BLOCK {
            return (0..count).map(|_| self.one_normal() as f32).collect();
        }
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform24()).collect();
        for block in values.as_chunks_mut::<BLOCK>().0 {
            normals_from_uniforms(block);
        }
        // A length that is not whole blocks redraws its last sixteen, overlapping the block before.
        if !count.is_multiple_of(BLOCK)
            && let Some(last) = values.last_chunk_mut::<BLOCK>()
        {
            last.fill_with(|| self.uniform24());
            normals_from_uniforms(last);
        }
        values
    }

    fn one_normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (angle, square) = (TAU * self.uniform53(), self.uniform53());
        let radius = (-2.0 * (-square).ln_1p()).sqrt();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }

    fn uniform24(&mut self) -> f32 {
        (self.engine.next() & 0xFF_FFFF) as f32 / 16_777_216.0
    }

    fn uniform53(&mut self) -> f64 {
        let (high, low) = (u64::from(self.engine.next()), u64::from(self.engine.next()));
        ((high << 32 | low) & ((1 << 53) - 1)) as f64 / (1_u64 << 53) as f64
    }
}

/// Box-Muller in place: element j and element j + 8 make a pair.
fn normals_from_uniforms(block: &mut [f32; BLOCK]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * f64::from(1.0 - *a).ln()).sqrt();
        let (sin, cos) = (TAU * f64::from(*b)).sin_cos();
        (*a, *b) = ((radius * cos) as f32, (radius * sin) as f32);
    }
}

/// MT19937 (Matsumoto and Nishimura, 1998).
#[derive(Clone, Debug)]
struct MersenneTwister {
    state: [u32; STATE],
    next: usize,
}

const STATE: usize = 624;
const MIDDLE: usize = 397;

impl MersenneTwister {
    fn new(seed: u32) -> MersenneTwister {
        let mut state = [seed; STATE];
        for i in 1..STATE {
            let before = state[i - 1];
            state[i] = 1_812_433_253_u32.wrapping_mul(before ^ before >> 30).wrapping_add(i as u32);
        }
        MersenneTwister { state, next: STATE }
    }

    fn next(&mut self) -> u32 {
        if self.next == STATE {
            self.twist();
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= y << 7 & 0x9D2C_5680;
        y ^= y << 15 & 0xEFC6_0000;
        y ^ y >> 18
    }

    fn twist(&mut self) {
        for i in 0..STATE {
            let joined = self.state[i] & 0x8000_0000 | self.state[(i + 1) % STATE] & 0x7FFF_FFFF;
            let feedback = if joined & 1 == 1 { 0x9908_B0DF } else { 0 };
            self.state[i] = self.state[(i + MIDDLE) % STATE] ^ joined >> 1 ^ feedback;
        }
    }
}

/// Philox4x32-10, numbered and turned into normals as AUTOMATIC1111's `modules/rng_philox.py` does: element i of the
/// n-th call takes counter [n, 0, i, 0]; words 2 and 3 of the result are not used.
#[derive(Clone, Debug)]
pub struct PhiloxGenerator {
    seed: u64,
    calls: u32,
}

impl PhiloxGenerator {
    /// A generator whose key is `seed`.
    pub fn new(seed: u64) -> PhiloxGenerator {
        PhiloxGenerator { seed, calls: 0 }
    }

    /// Draws `count` standard normals; each call has its own stream.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        /// 2^-32 as f32, which is how the original holds it.
        const SCALE: f64 = 2.328_306_4e-10_f32 as f64;
        const ANGLE_SCALE: f64 = (2.328_306_4e-10 * 6.283_185_5) as f32 as f64;
        let call = self.calls;
        self.calls = self.calls.wrapping_add(1);
        let element = |i| {
            let [x, y, _, _] = philox([call, 0, i, 0], self.seed);
            let u = f64::from(x) * SCALE + SCALE / 2.0;
            let v = f64::from(y) * ANGLE_SCALE + ANGLE_SCALE / 2.0;
            ((-2.0 * u.ln()).sqrt() * v.sin()) as f32
        };
        (0..count).map(|i| element(i as u32)).collect()
    }
}

/// Philox4x32 with ten rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
fn philox(mut counter: [u32; 4], seed: u64) -> [u32; 4] {
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let [a, b, c, d] = counter;
        let (left, right) = (0xD251_1F53 * u64::from(a), 0xCD9E_8D57 * u64::from(c));
        counter = [(right >> 32) as u32 ^ b ^ key[0], right as u32, (left >> 32) as u32 ^ d ^ key[1], left as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::{MersenneTwister, philox};

    #[test]
    fn mersenne_twister_equals_its_authors_output() {
        let mut engine = MersenneTwister::new(5489);
        let first: Vec<u32> = (0..3).map(|_| engine.next()).collect();
        assert_eq!(first, [3_499_211_612, 581_869_302, 3_890_346_734]);
        let ten_thousandth = (3..10_000).map(|_| engine.next()).last();
        assert_eq!(ten_thousandth, Some(4_123_659_995));
    }

    #[test]
    fn philox_equals_its_authors_output() {
        assert_eq!(philox([0; 4], 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], u64::MAX), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }
}
