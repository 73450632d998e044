// panels: where the weights of a matrix lie.
//
// A matrix of ROWS by COLUMNS lies in panels of PANEL columns, one after the other; the last has the columns that are left.
// A panel lies row by row. So the weights that a tile of y needs, some columns of every row, follow each other in memory,
// where the rows of a whole matrix would be kilobytes apart.

const PANEL = 64u;

// The place of the weight in row k and column n.
fn panel_index(k: u32, n: u32, rows: u32, columns: u32) -> u32 {
    let first = n / PANEL * PANEL;
    return first * rows + k * panel_width(n, columns) + n - first;
}

// The columns of the panel that has column n: so far lies a weight from the one in the next row.
fn panel_width(n: u32, columns: u32) -> u32 {
    return min(PANEL, columns - n / PANEL * PANEL);
}
