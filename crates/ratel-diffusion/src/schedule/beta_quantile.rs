//! Quantiles of the symmetric beta distribution Beta(a, a), which scipy calls `beta.ppf(p, a, a)`.

/// The x with P(X <= x) = p for X ~ Beta(a, a), 0 < a < 1, accurate to some 1e-14.
///
/// The distribution is symmetric about 1/2, so only p <= 1/2 needs work. There its integral up to x is the series
/// x^a * sum_k (1-a)(2-a)...(k-a)/k! * x^k / (a+k), whose terms at least halve; twice its value at 1/2 is the whole.
pub(super) fn beta_quantile(a: f64, p: f64) -> f64 {
    if p > 0.5 {
        return 1.0 - beta_quantile(a, 1.0 - p);
    }
    let integral = |x: f64| {
        let (mut coefficient, mut sum) = (1.0, 0.0);
        for k in 0..60 {
            let k = f64::from(k);
            sum += coefficient / (a + k);
            coefficient *= x * (k + 1.0 - a) / (k + 1.0);
        }
        x.powf(a) * sum
    };
    let target = p * 2.0 * integral(0.5);
    if target <= 0.0 {
        return 0.0;
    }
    // The series' first term alone is too small, so this first guess is too large. The integral is concave up to 1/2:
    // Newton steps land left of the root at once and then climb to it.
    let mut x = (a * target).powf(1.0 / a).min(0.5);
    for _ in 0..50 {
        let density = (x * (1.0 - x)).powf(a - 1.0);
        let next = (x + (target - integral(x)) / density).clamp(f64::MIN_POSITIVE, 0.5);
        if (next - x).abs() <= 1e-16 * x {
            break;
        }
        x = next;
    }
    x
}

#[cfg(test)]
mod tests {
    use super::beta_quantile;

    #[test]
    fn equals_scipy() {
        // scipy.stats.beta.ppf(p, 0.6, 0.6)
        let cases = [
            (0.0, 0.0),
            (1e-9, 1.855_882_462_491_41e-15),
            (0.001, 1.855_873_851_745_199e-5),
            (0.1, 0.039_584_405_588_780_85),
            (0.5, 0.5),
            (0.6, 0.637_299_009_246_785_6),
            (0.9, 0.960_415_594_411_219_2),
            (1.0, 1.0),
        ];
        for (p, x) in cases {
            assert!((beta_quantile(0.6, p) - x).abs() <= 1e-13 * x, "at {p}: {}", beta_quantile(0.6, p));
        }
    }
}
