/// Columns of a panel.
///
/// The matrices of linear layers and convolutions lie in panels, one after the other; the last has the columns that are
/// left. A panel lies row by row. Kernels compute some columns at a time and so read some values of every row: in a panel
/// they follow each other, where the rows of a whole matrix are kilobytes apart. `shaders/lib/panels.wgsl` is the same.
pub const PANEL: usize = 64;

/// The place of the value in row `k` and column `n` of a matrix of `rows` by `columns` that lies in panels.
pub fn panel_index(k: usize, n: usize, rows: usize, columns: usize) -> usize {
    let first = n / PANEL * PANEL;
    first * rows + k * PANEL.min(columns - first) + n - first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_lie_one_after_the_other_and_each_row_by_row() {
        for (rows, columns) in [(1, 1), (3, 4), (2, 64), (3, 65), (5, 150)] {
            let mut places = Vec::new();
            for first in (0..columns).step_by(PANEL) {
                for k in 0..rows {
                    places.extend((first..columns.min(first + PANEL)).map(|n| panel_index(k, n, rows, columns)));
                }
            }
            assert!(places.into_iter().eq(0..rows * columns), "{rows} by {columns}");
        }
    }
}
