//! Noise for a batch of latents.

use crate::random::{Generator, RandomSource};
use ratel_tensor::HostTensor;

/// Draws noise for a batch: each picture has a generator of its own, seeded with the first seed plus its number, so that
/// a picture does not depend on the batch it is made in.
pub(crate) struct Source {
    generators: Vec<Generator>,
    /// One picture's `(1, C, H, W)`.
    shape: [usize; 4],
}

impl Source {
    /// Noise for latents of `(N, C, H, W)`.
    pub(crate) fn new(source: RandomSource, seed: u64, shape: [usize; 4]) -> Self {
        let [n, c, h, w] = shape;
        let generators = (0..n as u64).map(|i| Generator::new(source, seed.wrapping_add(i))).collect();
        Source { generators, shape: [1, c, h, w] }
    }

    /// The next noise, `(N, H, W, C)`. It is drawn with channels first, as the reference does.
    pub(crate) fn draw(&mut self) -> HostTensor {
        let [_, c, h, w] = self.shape;
        let mut all = Vec::with_capacity(self.generators.len() * c * h * w);
        for generator in &mut self.generators {
            let values = generator.normal(c * h * w);
            all.extend(HostTensor::new(self.shape, values).channels_last().data);
        }
        HostTensor::new([self.generators.len(), h, w, c], all)
    }
}
