//! Values as they go into a page, and how they are distributed.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use half::f16;
use serde::{Deserialize, Serialize};

/// Values of a tensor, exactly: in `f16` where every one of them is one, else in `f32`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// Extents, channels last.
    pub shape: Vec<usize>,
    /// `f16` or `f32`.
    pub elem: String,
    /// The values' bytes, little-endian, in base64.
    pub data: String,
}

impl Tensor {
    /// Values under a shape.
    pub fn new(shape: &[usize], values: &[f32]) -> Tensor {
        let halves: Option<Vec<u8>> = values.iter().try_fold(Vec::new(), |mut bytes, &value| {
            let half = f16::from_f32(value);
            (half.to_f32().to_bits() == value.to_bits()).then(|| {
                bytes.extend(half.to_le_bytes());
                bytes
            })
        });
        let (elem, bytes) = match halves {
            Some(bytes) => ("f16", bytes),
            None => ("f32", values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        };
        Tensor { shape: shape.to_vec(), elem: elem.to_owned(), data: BASE64_STANDARD.encode(bytes) }
    }

    /// The values again; empty if the data is damaged.
    pub fn values(&self) -> Vec<f32> {
        let bytes = BASE64_STANDARD.decode(&self.data).unwrap_or_default();
        match self.elem.as_str() {
            "f16" => bytes.as_chunks().0.iter().map(|two| f16::from_le_bytes(*two).to_f32()).collect(),
            _ => bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect(),
        }
    }
}

/// Bytes as a URL that holds them, for pictures.
pub fn data_url(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", BASE64_STANDARD.encode(bytes))
}

/// Bins of a [`Histogram`].
const BINS: usize = 40;

/// How values are distributed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Values.
    pub count: usize,
    /// The least.
    pub min: f32,
    /// The greatest.
    pub max: f32,
    /// Their mean.
    pub mean: f64,
    /// The root of their mean squared difference from it.
    pub deviation: f64,
    /// How many lie in each of the equal parts from `min` to `max`.
    pub bins: Vec<usize>,
    /// Values that are no numbers, or infinite: they are in nothing above but `count`.
    pub odd: usize,
}

impl Histogram {
    /// Of values.
    pub fn of(values: &[f32]) -> Histogram {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let number = finite().count();
        let (min, max) = finite().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let (min, max) = if number == 0 { (0.0, 0.0) } else { (min, max) };
        let share = 1.0 / number.max(1) as f64;
        let mean = finite().map(f64::from).sum::<f64>() * share;
        let square = finite().map(|value| (f64::from(value) - mean).powi(2)).sum::<f64>() * share;
        let mut bins = vec![0; BINS];
        let width = (f64::from(max) - f64::from(min)).max(f64::MIN_POSITIVE);
        for value in finite() {
            let at = (f64::from(value) - f64::from(min)) / width * BINS as f64;
            bins[(at as usize).min(BINS - 1)] += 1;
        }
        Histogram { count: values.len(), min, max, mean, deviation: square.sqrt(), bins, odd: values.len() - number }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_bit_for_bit() {
        for (values, elem) in [(vec![0.5, -2.0, 65504.0], "f16"), (vec![0.1, 1e-30, 70_000.0], "f32")] {
            let tensor = Tensor::new(&[3], &values);
            assert_eq!((tensor.elem.as_str(), tensor.values()), (elem, values));
        }
    }

    #[test]
    fn every_value_is_in_a_bin() {
        let values: Vec<f32> = (0..100).map(|i| i as f32).chain([f32::NAN]).collect();
        let histogram = Histogram::of(&values);
        assert_eq!((histogram.min, histogram.max, histogram.count, histogram.odd), (0.0, 99.0, 101, 1));
        assert_eq!(histogram.bins.iter().sum::<usize>(), 100);
        assert!((histogram.mean - 49.5).abs() < 1e-12 && (histogram.deviation - 28.866).abs() < 1e-3);
        assert_eq!(Histogram::of(&[]).count, 0);
        assert_eq!(Histogram::of(&[3.0; 5]).bins[0], 5);
    }
}
