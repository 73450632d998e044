use std::fmt;
use std::ops::Deref;

/// The extents of a tensor, outermost first; at most [`Shape::MAX_RANK`] of them.
///
/// Feature maps are `(N, H, W, C)` and token sequences `(N, T, C)` inside Ratel; diffusers' `(N, C, H, W)` appears only
/// at the edges (checkpoints, traces, latents files).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    extents: [usize; Self::MAX_RANK],
    rank: usize,
}

impl Shape {
    /// The longest shape there is.
    pub const MAX_RANK: usize = 4;

    /// A shape of these extents.
    ///
    /// # Panics
    /// If there are more than [`Shape::MAX_RANK`]: callers take shapes from strangers only through [`Shape::checked`].
    pub fn new(extents: &[usize]) -> Self {
        Self::checked(extents).expect("a shape has at most four extents")
    }

    /// A shape of these extents, or `None` when there are too many or their product overflows `usize`.
    pub fn checked(extents: &[usize]) -> Option<Self> {
        if extents.len() > Self::MAX_RANK {
            return None;
        }
        extents.iter().try_fold(1usize, |n, &e| n.checked_mul(e))?;
        let mut shape = Shape { extents: [0; Self::MAX_RANK], rank: extents.len() };
        shape.extents[..extents.len()].copy_from_slice(extents);
        Some(shape)
    }

    /// The number of elements; 1 for a shape of rank 0.
    pub fn count(&self) -> usize {
        self.iter().product()
    }

    /// The last extent: channels of a feature map, width of a token. 1 for a shape of rank 0.
    pub fn last(&self) -> usize {
        self.iter().copied().next_back().unwrap_or(1)
    }

    /// The number of vectors along the last axis: `count() / last()`, 0 when `last()` is 0.
    pub fn rows(&self) -> usize {
        self.count().checked_div(self.last()).unwrap_or(0)
    }

    /// The same shape with another last extent.
    pub fn with_last(mut self, extent: usize) -> Self {
        if self.rank > 0 {
            self.extents[self.rank - 1] = extent;
        }
        self
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.extents[..self.rank]
    }
}

impl From<&[usize]> for Shape {
    fn from(extents: &[usize]) -> Self {
        Shape::new(extents)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(extents: [usize; N]) -> Self {
        Shape::new(&extents)
    }
}

impl fmt::Display for Shape {
    /// `2x64x64x320`, the way the field writes sizes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rank == 0 {
            return f.write_str("scalar");
        }
        for (i, extent) in self.iter().enumerate() {
            if i > 0 {
                f.write_str("x")?;
            }
            write!(f, "{extent}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_prints() {
        let shape = Shape::from([2, 9, 17, 32]);
        assert_eq!((shape.count(), shape.last(), shape.rows()), (9792, 32, 306));
        assert_eq!(shape.with_last(4).to_string(), "2x9x17x4");
        assert_eq!((Shape::from([]).count(), Shape::from([]).rows()), (1, 1));
    }

    #[test]
    fn refuses_what_overflows() {
        assert!(Shape::checked(&[usize::MAX, 2]).is_none());
        assert!(Shape::checked(&[1, 1, 1, 1, 1]).is_none());
        assert_eq!(Shape::from([3, 0]).rows(), 0);
    }
}
