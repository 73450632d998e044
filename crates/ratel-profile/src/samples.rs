//! Repeated measurements of one time.

use serde::Serialize;

/// The middle and the ends of repeated measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Samples {
    /// How many.
    pub count: usize,
    /// The middle one, or between the two middle ones.
    pub median: f64,
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
}

impl Samples {
    /// Of these measurements; all zero for none.
    pub fn of(mut values: Vec<f64>) -> Samples {
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let (Some(&low), Some(&high)) = (values.first(), values.last()) else { return Samples::default() };
        let median = (values[(count - 1) / 2] + values[count / 2]) / 2.0;
        Samples { count, median, low, high }
    }

    /// Of sums: the n-th measurement is the sum of each part's n-th.
    pub fn of_sums<'a>(parts: impl IntoIterator<Item = &'a [u64]>) -> Samples {
        Samples::of(sums(parts))
    }

    /// From the least to the greatest, as a share of the median.
    pub fn spread(&self) -> f64 {
        if self.median > 0.0 { (self.high - self.low) / self.median } else { 0.0 }
    }
}

/// The n-th sum is that of each part's n-th measurement. Runs that lack a part are no measurement of the sum.
pub(crate) fn sums<'a>(parts: impl IntoIterator<Item = &'a [u64]>) -> Vec<f64> {
    let mut parts = parts.into_iter();
    let mut sums: Vec<f64> = parts.next().unwrap_or_default().iter().map(|ns| *ns as f64).collect();
    for part in parts {
        sums.truncate(part.len());
        sums.iter_mut().zip(part).for_each(|(sum, ns)| *sum += *ns as f64);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_ends() {
        assert_eq!(Samples::of(vec![]), Samples::default());
        let odd = Samples::of(vec![3.0, 1.0, 10.0]);
        assert_eq!((odd.count, odd.median, odd.low, odd.high, odd.spread()), (3, 3.0, 1.0, 10.0, 3.0));
        assert_eq!(Samples::of(vec![1.0, 2.0, 4.0, 8.0]).median, 3.0);
    }

    #[test]
    fn sums_are_taken_run_by_run() {
        let parts: [&[u64]; 2] = [&[10, 20, 90], &[5, 1, 1]];
        assert_eq!(Samples::of_sums(parts), Samples::of(vec![15.0, 21.0, 91.0]));
        let ragged: [&[u64]; 2] = [&[10, 20], &[5]];
        assert_eq!(Samples::of_sums(ragged), Samples::of(vec![15.0]));
    }
}
