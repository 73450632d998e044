// spec: matrices of layers in half precision, on a device that lacks the type. A WeightWord holds two values, the first
// in its low half; a Weight4 four.

alias WeightWord = u32;
alias Weight4 = vec2<u32>;
const WEIGHTS_PER_WORD = 2u;

// Value number i of the matrix, given the word w[i / WEIGHTS_PER_WORD].
fn weight(word: WeightWord, i: u32) -> f32 {
    return unpack2x16float(word)[i % 2u];
}

// Four consecutive values.
fn weight4(four: Weight4) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(four.x), unpack2x16float(four.y));
}

// Two neighbours, as one load gives them.
alias WeightPair = u32;

fn weight_pair(pair: WeightPair) -> vec2<f32> {
    return unpack2x16float(pair);
}
