//! What each place of a picture attends to.

use crate::Word;
use ratel_kernels::attention::Attention;

/// The shares of attention that each query of an image gives each key, `(queries, keys)`: the softmax of the scaled scores,
/// averaged over the heads. `q` is `(batch, queries, heads dim)`, `k` `(batch, keys, heads dim)`.
pub fn attention_maps(op: &Attention, q: &[f32], k: &[f32], image: usize) -> Vec<f32> {
    let Attention { heads, dim, queries, keys, causal, .. } = *op;
    let (row, scale) = (heads * dim, (dim as f32).sqrt().recip());
    let (q, k) = (&q[image * queries * row..][..queries * row], &k[image * keys * row..][..keys * row]);
    let mut shares = vec![0.0; queries * keys];
    for (i, shares) in shares.chunks_exact_mut(keys).enumerate() {
        let seen = if causal { keys.min(i + 1) } else { keys };
        for head in 0..heads {
            let of = |values: &[f32], at: usize, d: usize| values[at * row + head * dim + d];
            let score = |j: usize| scale * (0..dim).map(|d| of(q, i, d) * of(k, j, d)).sum::<f32>();
            let mut weights: Vec<f32> = (0..seen).map(score).collect();
            let greatest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            weights.iter_mut().for_each(|weight| *weight = (*weight - greatest).exp());
            let all = weights.iter().sum::<f32>() * heads as f32;
            shares.iter_mut().zip(&weights).for_each(|(share, weight)| *share += weight / all);
        }
    }
    shares
}

/// The shares of tokens `(queries, keys)` as maps of words `(words, queries)`: a word's is the sum of its tokens'.
pub fn per_word(shares: &[f32], keys: usize, words: &[Word]) -> Vec<f32> {
    let of = |row: &[f32], word: &Word| {
        let [from, to] = word.tokens.map(|at| at.min(keys));
        row[from.min(to)..to].iter().sum::<f32>()
    };
    words.iter().flat_map(|word| shares.chunks_exact(keys).map(move |row| of(row, word))).collect()
}

/// Rows and columns of a map of so many places over latents of this size, halved so often as it takes (a half is rounded
/// up, as the UNet's convolutions do); `None` if no number of halvings gives it.
pub fn map_size(places: usize, [mut h, mut w]: [usize; 2]) -> Option<[usize; 2]> {
    while h * w > places && (h > 1 || w > 1) {
        (h, w) = (h.div_ceil(2), w.div_ceil(2));
    }
    (h * w == places).then_some([h, w])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_one_and_follow_the_scores() {
        let op = Attention { batch: 2, heads: 2, dim: 2, queries: 2, keys: 3, causal: false };
        let q = vec![0.0; 8].into_iter().chain([4.0, 0.0, 4.0, 0.0, 0.0, 4.0, 0.0, 4.0]).collect::<Vec<_>>();
        let one = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        let k = [one, one].concat();
        let flat = attention_maps(&op, &q, &k, 0);
        assert!(flat.iter().all(|share| (share - 1.0 / 3.0).abs() < 1e-6));
        let shares = attention_maps(&op, &q, &k, 1);
        assert!((shares.iter().sum::<f32>() - 2.0).abs() < 1e-5);
        let e = (4.0 / 2f32.sqrt()).exp();
        assert!((shares[0] - e / (e + 2.0)).abs() < 1e-6 && (shares[4] - e / (e + 2.0)).abs() < 1e-6, "{shares:?}");
        let words = [("a", [0, 2]), ("b", [2, 3])].map(|(text, tokens)| Word { text: text.into(), tokens, real: true });
        let maps = per_word(&shares, 3, &words);
        assert_eq!(maps, [shares[0] + shares[1], shares[3] + shares[4], shares[2], shares[5]]);
    }

    #[test]
    fn sizes_of_maps() {
        assert_eq!(map_size(64, [16, 16]), Some([8, 8]));
        assert_eq!(map_size(15, [9, 5]), Some([5, 3]));
        assert_eq!(map_size(63, [16, 16]), None);
        assert_eq!(map_size(0, [16, 16]), None);
    }
}
