//! Noise for a batch of latents.

use crate::random::{Generator, RandomSource};
use ratel_tensor::HostTensor;

/// Draws noise for a batch: each picture has a generator of its own, seeded with the first seed plus its number, so that
/// a picture does not depend on the batch it is made in.
#[derive(Clone)]
pub struct Source {
    generators: Vec<Generator>,
    /// One picture's `(1, C, H, W)`.
    shape: [usize; 4],
}

impl Source {
    /// Noise for latents of `(N, C, H, W)`.
    pub fn new(source: RandomSource, seed: u64, shape: [usize; 4]) -> Self {
        let [n, c, h, w] = shape;
        let generators = (0..n as u64).map(|i| Generator::new(source, seed.wrapping_add(i))).collect();
        Source { generators, shape: [1, c, h, w] }
    }

    /// The next noise, `(N, H, W, C)`. It is drawn with channels first, as the reference does.
    pub fn draw(&mut self) -> HostTensor {
        let [_, c, h, w] = self.shape;
        let mut all = Vec::with_capacity(self.generators.len() * c * h * w);
        for generator in &mut self.generators {
            let values = generator.normal(c * h * w);
            all.extend(HostTensor::new(self.shape, values).channels_last().data);
        }
        HostTensor::new([self.generators.len(), h, w, c], all)
    }
}

/// The factors of `a` and `b` in what lies between them on the circle through both (spherical interpolation; Shoemake 1985):
/// unlike on the line between them, the length stays, and noise halfway keeps its variance. `t`: 0 is `a`, 1 is `b`. Where
/// they lie in one direction, or opposite, there is no such circle, and the line is taken.
pub fn slerp(a: &[f32], b: &[f32], t: f64) -> [f64; 2] {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    // the limit of AUTOMATIC1111 and of diffusers' scripts; zeros have no direction
    if cosine.is_nan() || cosine.abs() >= 0.9995 {
        return [1.0 - t, t];
    }
    let angle = cosine.acos();
    [((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin()]
}

#[cfg(test)]
mod tests {
    use super::slerp;

    #[test]
    fn between_keeps_the_length() {
        let (a, b) = ([3.0, 0.0, 4.0], [0.0, 5.0, 0.0]);
        for t in [0.0, 0.25, 0.5, 1.0] {
            let [of_a, of_b] = slerp(&a, &b, t);
            let length: f64 = (0..3).map(|i| (of_a * f64::from(a[i]) + of_b * f64::from(b[i])).powi(2)).sum();
            assert!((length - 25.0).abs() < 1e-9, "{t}: {length}");
        }
        assert_eq!(slerp(&a, &a, 0.25), [0.75, 0.25]);
        assert_eq!(slerp(&[0.0; 3], &a, 0.5), [0.5, 0.5]);
    }
}
