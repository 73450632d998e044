// time_embedding: y[i] = [cos(t_i f_j) | sin(t_i f_j)]    with    f_j = ratio^j = max_period^(-j / (HALF - shift))
//
//   t  (COUNT)        f32    0 to 2^24, may be fractional
//   y  (COUNT, DIM)   Elem   j < HALF = DIM / 2; sines first unless cos_first; the last value is 0 where DIM is odd
//
// A device's exp, and its cos of an angle of many turns, are off by up to some 1e-4. So the angle is worked out in
// integers, as a fraction of a turn with 32 bits: whole turns overflow and are gone.
//
// Grid    one invocation per value of y
// Cost    8 COUNT DIM flop; reads t, writes y once
// Source  Vaswani et al. 2017, arXiv:1706.03762; diffusers' get_timestep_embedding
// Twin    crates/ratel-kernels/src/time_embedding.rs

import package::spec::{Elem};
import package::lib::grid::workgroup_number;

override WG: u32 = 64u;

// ratio has 32 bits after the point.
struct Params { count: u32, dim: u32, cos_first: u32, ratio: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> t: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<Elem>;

@compute @workgroup_size(WG)
fn time_embedding(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let number = workgroup_number(wg, grid) * WG + lane;
    if number >= p.count * p.dim { return; }
    let i = number / p.dim;
    let c = number % p.dim;
    let half = p.dim / 2u;
    if c >= 2u * half {
        y[number] = Elem(0.0);
        return;
    }
    let cos_sin = cos_sin_of_turn(turn(t[i], frequency(c % half)));
    let is_cos = (c < half) == (p.cos_first != 0u);
    y[number] = Elem(select(cos_sin.y, cos_sin.x, is_cos));
}

// f_j with 32 bits after the point, by squaring.
fn frequency(j: u32) -> u32 {
    var f = 0xffffffffu;   // as near to 1 as it gets
    var power = p.ratio;
    for (var n = j; n > 0u; n >>= 1u) {
        if (n & 1u) == 1u { f = fraction_product(f, power); }
        power = fraction_product(power, power);
    }
    return f;
}

// t f / 2 pi less its whole turns, with 32 bits after the point.
fn turn(t: f32, f: u32) -> u32 {
    let turns = fraction_product(f, 0xa2f9836eu);   // f times 2 / pi: f / 2 pi with 34 bits after the point
    let bits = bitcast<u32>(t);
    let mantissa = (bits & 0x7fffffu) | 0x800000u;   // t is mantissa 2^(exponent - 150)
    let exponent = bits >> 23u;
    let angle = product(turns, mantissa);
    let drop = 152u - exponent;   // bits of the angle beyond the 32nd after the point: 34 + 150 - exponent - 32
    if drop >= 64u { return 0u; }
    if drop >= 32u { return angle.high >> (drop - 32u); }
    return (angle.high << (32u - drop)) | (angle.low >> drop);
}

// Cosine and sine of a fraction of a turn: by the nearest quarter, and Taylor's series for the rest, an eighth at most.
fn cos_sin_of_turn(turn: u32) -> vec2<f32> {
    let quarter = (turn + 0x20000000u) >> 30u;
    let x = f32(bitcast<i32>(turn - (quarter << 30u))) * (6.283185307179586 / 4294967296.0);
    let x2 = x * x;
    let c = 1.0 + x2 * (-1.0 / 2.0 + x2 * (1.0 / 24.0 + x2 * (-1.0 / 720.0 + x2 * (1.0 / 40320.0))));
    let s = x + x * x2 * (-1.0 / 6.0 + x2 * (1.0 / 120.0 + x2 * (-1.0 / 5040.0 + x2 * (1.0 / 362880.0))));
    switch quarter {
        case 0u: { return vec2(c, s); }
        case 1u: { return vec2(-s, c); }
        case 2u: { return vec2(-c, -s); }
        default: { return vec2(s, -c); }
    }
}

// a b of numbers with 32 bits after the point, rounded to as many.
fn fraction_product(a: u32, b: u32) -> u32 {
    let exact = product(a, b);
    return exact.high + (exact.low >> 31u);
}

struct U64 { high: u32, low: u32 }

fn product(a: u32, b: u32) -> U64 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let middle1 = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let middle2 = (a & 0xffffu) * (b >> 16u) + (middle1 & 0xffffu);
    return U64((a >> 16u) * (b >> 16u) + (middle1 >> 16u) + (middle2 >> 16u), a * b);
}
