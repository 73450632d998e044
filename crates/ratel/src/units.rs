//! Figures as people read them: three digits and a unit.

/// `12.3 GFLOP/s` for 1.23e10 and `FLOP/s`.
pub(crate) fn si(value: f64, unit: &str) -> String {
    let steps = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // rounded first, so that 999.96 thousand is a million
    let (scale, prefix) = steps.into_iter().find(|(scale, _)| value.abs() >= scale * 0.9995).unwrap_or((1.0, ""));
    format!("{} {prefix}{unit}", digits(value / scale))
}

/// `12.3 ms`.
pub(crate) fn seconds(value: f64) -> String {
    let steps = [(1.0, "s"), (1e-3, "ms"), (1e-6, "us")];
    let (scale, unit) = steps.into_iter().find(|(scale, _)| value.abs() >= scale * 0.9995).unwrap_or((1e-9, "ns"));
    format!("{} {unit}", digits(value / scale))
}

/// `1.2%`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

/// Three digits.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!(si(1.234e10, "FLOP/s"), "12.3 GFLOP/s");
        assert_eq!(si(999_960.0, "B/s"), "1.00 MB/s");
        assert_eq!(si(512.0, "B"), "512 B");
        assert_eq!(si(0.0, "B/s"), "0.00 B/s");
        assert_eq!(seconds(0.0123), "12.3 ms");
        assert_eq!(seconds(99.96e-6), "100 us");
        assert_eq!(seconds(3e-9), "3.00 ns");
        assert_eq!(seconds(75.0), "75.0 s");
        assert_eq!(percent(0.0123), "1.2%");
    }
}
