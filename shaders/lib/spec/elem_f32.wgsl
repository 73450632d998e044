// spec: activations in full precision.

alias Elem = f32;
alias Elem4 = vec4<f32>;

// Two neighbours, as one load gives them to kernels for which a load costs more than the arithmetic on it.
alias ElemPair = vec2<f32>;

fn pair_values(pair: ElemPair) -> vec2<f32> {
    return pair;
}

fn elem_pair(values: vec2<f32>) -> ElemPair {
    return values;
}
