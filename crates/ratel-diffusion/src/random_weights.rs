//! Random weights, made in memory: a known architecture runs with them before any checkpoint of it is at hand. Its pictures
//! mean nothing.

use half::f16;
use ratel_engine::{WeightSink, WeightSource};
use ratel_graph::Weight;
use ratel_tensor::Elem;

/// Weights drawn from a seed and their own key, so that each is the same whatever is loaded before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RandomWeights {
    /// Another seed is another model.
    pub seed: u64,
}

impl RandomWeights {
    /// The values of a parameter in the order in which they lie on the device. Matrices are scaled so that activations keep
    /// their size from layer to layer; norms scale by about one.
    fn values(&self, weight: &Weight) -> Vec<f32> {
        let fan_in: usize = weight.shape.iter().skip(1).product();
        let norm = weight.shape.len() == 1 && weight.key.ends_with(".weight");
        let (centre, spread) = match weight.shape.len() {
            1 if norm => (1.0, 0.1),
            1 => (0.0, 0.05),
            _ => (0.0, (3.0 / fan_in.max(1) as f32).sqrt()),
        };
        let mut state = weight.key.bytes().fold(self.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        (0..weight.shape.count()).map(|_| centre + spread * uniform(&mut state)).collect()
    }
}

/// The next number in -1 to 1 (splitmix64, Steele, Lea & Flood 2014).
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

impl WeightSource for RandomWeights {
    fn read(
        &self,
        weight: &Weight,
        elem: Elem,
        sink: &mut WeightSink,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let values = self.values(weight);
        match elem {
            Elem::F32 => sink(0, bytemuck::cast_slice(&values))?,
            Elem::F16 | Elem::BF16 => {
                let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
                sink(0, bytemuck::cast_slice(&halves))?;
            }
        }
        Ok(())
    }
}
