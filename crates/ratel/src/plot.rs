//! Curves as SVG files, readable in light and dark.

use std::fmt::Write;

/// A panel of curves over one axis.
pub(crate) struct Panel<'a> {
    /// What it shows.
    pub title: &'a str,
    /// What lies across.
    pub across: &'a str,
    /// Whether the axis up is logarithmic; values of 0 and below are then left out.
    pub logarithmic: bool,
    /// Each curve's name and points.
    pub curves: Vec<(&'a str, Vec<(f64, f64)>)>,
    /// Places across to be marked.
    pub marks: Vec<f64>,
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 340.0;
/// Where a panel's curves are drawn: left, top, right, bottom.
const FRAME: [f64; 4] = [64.0, 40.0, 444.0, 260.0];
/// Told apart by those who see few colours too (Okabe & Ito).
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// Panels side by side.
pub(crate) fn svg(title: &str, panels: &[Panel]) -> String {
    let width = WIDTH * panels.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" height=\"{HEIGHT}\" \
         role=\"img\">\n<title>{}</title>\n<style>\n\
         text {{ font: 12px system-ui, sans-serif; fill: #222 }} .title {{ font-weight: 600 }}\n\
         .paper {{ fill: #fff }} .grid {{ stroke: #8884; fill: none }} .mark {{ stroke: #8888; stroke-dasharray: 2 3 }}\n\
         .curve {{ fill: none; stroke-width: 2 }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} .paper {{ fill: #16181c }} }}\n\
         </style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n",
        escaped(title)
    );
    for (number, panel) in panels.iter().enumerate() {
        let _ = writeln!(out, "<g transform=\"translate({} 0)\">", number as f64 * WIDTH);
        draw(&mut out, panel);
        out += "</g>\n";
    }
    out + "</svg>\n"
}

fn draw(out: &mut String, panel: &Panel) {
    let [left, top, right, bottom] = FRAME;
    let shown = |value: f64| if panel.logarithmic { value.log10() } else { value };
    let points = || panel.curves.iter().flat_map(|(_, points)| points).map(|(x, y)| (*x, shown(*y)));
    let finite = || points().filter(|(x, y)| x.is_finite() && y.is_finite());
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| (least.min(v), most.max(v)))
    };
    let (x0, x1) = ends(&mut finite().map(|(x, _)| x));
    let (mut y0, mut y1) = ends(&mut finite().map(|(_, y)| y));
    if panel.logarithmic {
        (y0, y1) = (y0.floor(), y1.ceil());
    } else {
        y0 = y0.min(0.0);
    }
    if !(x1 > x0 && y1 > y0) {
        return;
    }
    let px = |x: f64| left + (x - x0) / (x1 - x0) * (right - left);
    let py = |y: f64| bottom - (y - y0) / (y1 - y0) * (bottom - top);

    let _ = writeln!(out, "<text class=\"title\" x=\"{left}\" y=\"24\">{}</text>", escaped(panel.title));
    let step = if panel.logarithmic { ((y1 - y0) / 6.0).ceil().max(1.0) } else { (y1 - y0) / 4.0 };
    let lines = ((y1 - y0) / step + 1e-9).floor() as usize;
    for y in (0..=lines).map(|line| y0 + step * line as f64) {
        let label = if panel.logarithmic { power(y) } else { format!("{y:.2}") };
        let at = py(y);
        let _ = writeln!(out, "<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/>");
        let _ = writeln!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", left - 8.0, at + 4.0);
    }
    for x in (0..=4).map(|part| x0 + (x1 - x0) * f64::from(part) / 4.0) {
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{x:.0}</text>", px(x), bottom + 18.0);
    }
    let across = (left + right) / 2.0;
    let _ = writeln!(
        out,
        "<text x=\"{across}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        bottom + 36.0,
        escaped(panel.across)
    );
    for mark in panel.marks.iter().filter(|mark| (x0..=x1).contains(mark)) {
        let _ = writeln!(out, "<path class=\"mark\" d=\"M{:.1} {top}V{bottom}\"/>", px(*mark));
    }
    for (number, (name, points)) in panel.curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let mut path = String::new();
        for (x, y) in points.iter().map(|(x, y)| (*x, shown(*y))).filter(|(x, y)| x.is_finite() && y.is_finite()) {
            let _ = write!(path, "{}{:.1} {:.1}", if path.is_empty() { 'M' } else { 'L' }, px(x), py(y));
        }
        let _ = writeln!(out, "<path class=\"curve\" stroke=\"{colour}\" d=\"{path}\"/>");
        let (key, below) = (left + 140.0 * number as f64, bottom + 60.0);
        let _ = writeln!(out, "<path class=\"curve\" stroke=\"{colour}\" d=\"M{key} {below}h20\"/>");
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", key + 26.0, below + 4.0, escaped(name));
    }
}

/// A power of ten as people write it.
fn power(exponent: f64) -> String {
    match exponent as i32 {
        e @ 0..=4 => 10i64.pow(e as u32).to_string(),
        e @ -4..0 => format!("{:.*}", e.unsigned_abs() as usize, 10f64.powi(e)),
        e => format!("1e{e}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_stay_in_their_frame() {
        let curve = (0..=10).map(|i| (f64::from(i), 10f64.powi(3 - i))).collect();
        let with_zero = vec![(0.0, 0.0), (5.0, 1.0), (10.0, f64::INFINITY)];
        let curves = vec![("falling & more", curve), ("odd", with_zero)];
        let panel = Panel { title: "x < y", across: "step", logarithmic: true, curves, marks: vec![5.0, 99.0] };
        let svg = svg("a plot", &[panel]);
        assert!(svg.contains("x &lt; y") && svg.contains("falling &amp; more"), "{svg}");
        assert_eq!(svg.matches("class=\"mark\"").count(), 1, "what is outside is not marked");
        assert!(svg.contains("M64.0 40.0") && svg.contains("L444.0 260.0"), "from corner to corner: {svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains(">1000<") && svg.contains(">0.001<"), "{svg}");
    }
}
