// spec: activations stored in half precision; every kernel computes in f32.

alias Elem = f16;
alias Elem4 = vec4<f16>;

// Two neighbours, as one load gives them to kernels for which a load costs more than the arithmetic on it.
alias ElemPair = u32;

fn pair_values(pair: ElemPair) -> vec2<f32> {
    return unpack2x16float(pair);
}

fn elem_pair(values: vec2<f32>) -> ElemPair {
    return pack2x16float(values);
}
