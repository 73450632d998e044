// act: the activation functions of Stable Diffusion, chosen by a number that is constant in any one pipeline.

const ACT_NONE = 0u;
const ACT_SILU = 1u;
const ACT_GELU = 2u;
const ACT_QUICK_GELU = 3u;

fn act(kind: u32, x: f32) -> f32 {
    switch kind {
        case ACT_SILU: { return x / (1.0 + exp(-x)); }
        case ACT_GELU: { return gelu(x); }
        case ACT_QUICK_GELU: { return x / (1.0 + exp(-1.702 * x)); }
        default: { return x; }
    }
}

fn act4(kind: u32, x: vec4<f32>) -> vec4<f32> {
    if kind == ACT_NONE { return x; }
    return vec4(act(kind, x.x), act(kind, x.y), act(kind, x.z), act(kind, x.w));
}

// x times the normal distribution's integral up to x, by the error function (Hendrycks & Gimpel 2016, arXiv:1606.08415).
fn gelu(x: f32) -> f32 {
    return 0.5 * x * (1.0 + erf(x * 0.70710678118));
}

fn gelu4(x: vec4<f32>) -> vec4<f32> {
    return vec4(gelu(x.x), gelu(x.y), gelu(x.z), gelu(x.w));
}

// The error function, which WGSL lacks; off by 1.5e-7 at most (Abramowitz & Stegun 7.1.26).
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return sign(x) * (1.0 - poly * exp(-x * x));
}
