use crate::Shape;

/// A tensor in host memory: row-major, `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Extents, outermost first.
    pub shape: Shape,
    /// `shape.count()` values, the last axis contiguous.
    pub data: Vec<f32>,
}

impl HostTensor {
    /// A tensor of these values.
    ///
    /// # Panics
    /// If `data` does not hold `shape.count()` values.
    pub fn new(shape: impl Into<Shape>, data: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.count(), data.len(), "{} values for a tensor of {shape}", data.len());
        HostTensor { shape, data }
    }

    /// A tensor of zeros.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        HostTensor { shape, data: vec![0.0; shape.count()] }
    }

    /// `(N, C, H, W)` as `(N, H, W, C)`; tensors of another rank come back as they are.
    pub fn channels_last(self) -> Self {
        match *self.shape {
            [n, c, h, w] => HostTensor { shape: [n, h, w, c].into(), data: transpose_each(&self.data, n, c, h * w) },
            _ => self,
        }
    }

    /// `(N, H, W, C)` as `(N, C, H, W)`; tensors of another rank come back as they are.
    pub fn channels_first(self) -> Self {
        match *self.shape {
            [n, h, w, c] => HostTensor { shape: [n, c, h, w].into(), data: transpose_each(&self.data, n, h * w, c) },
            _ => self,
        }
    }

    /// Relative L2 distance to a reference: `|self - reference| / |reference|`, in f64.
    /// Not a number counts as infinitely far.
    pub fn relative_error(&self, reference: &HostTensor) -> f64 {
        let (mut difference, mut norm) = (0.0f64, 0.0f64);
        for (&a, &b) in self.data.iter().zip(&reference.data) {
            difference += (f64::from(a) - f64::from(b)).powi(2);
            norm += f64::from(b).powi(2);
        }
        let error = (difference / norm.max(f64::MIN_POSITIVE)).sqrt();
        if error.is_nan() || self.shape != reference.shape { f64::INFINITY } else { error }
    }
}

/// Each of `n` matrices of `rows x columns` turned into `columns x rows`.
fn transpose_each(data: &[f32], n: usize, rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; data.len()];
    for image in 0..n {
        let base = image * rows * columns;
        for r in 0..rows {
            for c in 0..columns {
                out[base + c * rows + r] = data[base + r * columns + c];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_last_and_back() {
        let nchw = HostTensor::new([2, 3, 2, 2], (0..24).map(|i| i as f32).collect());
        let nhwc = nchw.clone().channels_last();
        assert_eq!(*nhwc.shape, [2, 2, 2, 3]);
        assert_eq!(nhwc.data[..6], [0.0, 4.0, 8.0, 1.0, 5.0, 9.0]);
        assert_eq!(nhwc.channels_first(), nchw);
    }

    #[test]
    fn nan_is_far() {
        let a = HostTensor::new([2], vec![1.0, 2.0]);
        let b = HostTensor::new([2], vec![1.0, f32::NAN]);
        assert_eq!(a.relative_error(&a), 0.0);
        assert_eq!(b.relative_error(&a), f64::INFINITY);
    }
}
