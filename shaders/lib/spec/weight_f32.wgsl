// spec: matrices of layers in full precision. A WeightWord holds one value, a Weight4 four.

alias WeightWord = f32;
alias Weight4 = vec4<f32>;
const WEIGHTS_PER_WORD = 1u;

// Value number i of the matrix, given the word w[i / WEIGHTS_PER_WORD].
fn weight(word: WeightWord, i: u32) -> f32 {
    return word;
}

// Four consecutive values.
fn weight4(four: Weight4) -> vec4<f32> {
    return four;
}

// Two neighbours, as one load gives them.
alias WeightPair = vec2<f32>;

fn weight_pair(pair: WeightPair) -> vec2<f32> {
    return pair;
}
