//! Memory slots: tensors that don't live at the same time share one.

/// A tensor that needs a slot: alive from the step that writes it to the last that reads it, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub first: usize,
    pub last: usize,
    pub bytes: u64,
}

/// A slot for each tensor, and the slots' sizes. Largest tensors choose first, each the smallest slot that is free for its
/// life (greedy by size: Pisarchyk & Lee 2020, arXiv:2001.03288).
pub(crate) fn assign(tensors: &[Interval]) -> (Vec<usize>, Vec<u64>) {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&t| (std::cmp::Reverse(tensors[t].bytes), tensors[t].first));
    let mut slots: Vec<(u64, Vec<usize>)> = Vec::new();
    let mut chosen = vec![0; tensors.len()];
    for t in order {
        let overlaps =
            |other: usize| tensors[t].first <= tensors[other].last && tensors[other].first <= tensors[t].last;
        // slots are in order of falling size, so the last that is free fits tightest
        let free = slots.iter().rposition(|(_, tenants)| !tenants.iter().any(|&other| overlaps(other)));
        let slot = free.unwrap_or_else(|| {
            slots.push((tensors[t].bytes, Vec::new()));
            slots.len() - 1
        });
        slots[slot].1.push(t);
        chosen[t] = slot;
    }
    (chosen, slots.into_iter().map(|(bytes, _)| bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_needs_two() {
        let chain: Vec<_> = (0..10).map(|i| Interval { first: i, last: i + 1, bytes: 64 }).collect();
        let (chosen, slots) = assign(&chain);
        assert_eq!(slots, [64, 64]);
        assert!(chosen.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_slot_is_as_large_as_its_largest_tenant() {
        let tensors = [
            Interval { first: 0, last: 1, bytes: 10 },
            Interval { first: 1, last: 2, bytes: 100 },
            Interval { first: 2, last: 3, bytes: 50 },
        ];
        let (chosen, slots) = assign(&tensors);
        assert_eq!(slots, [100, 50]);
        assert_eq!(chosen, [1, 0, 1]);
    }
}
