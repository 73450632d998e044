// spec: matrices of layers in half precision, on a device that has the type. A WeightWord holds one value, a Weight4 four.

alias WeightWord = f16;
alias Weight4 = vec4<f16>;
const WEIGHTS_PER_WORD = 1u;

// Value number i of the matrix, given the word w[i / WEIGHTS_PER_WORD].
fn weight(word: WeightWord, i: u32) -> f32 {
    return f32(word);
}

// Four consecutive values.
fn weight4(four: Weight4) -> vec4<f32> {
    return vec4<f32>(four);
}

// Two neighbours, as one load gives them.
alias WeightPair = u32;

fn weight_pair(pair: WeightPair) -> vec2<f32> {
    return unpack2x16float(pair);
}
