/// How a parameter is rearranged on its way from a checkpoint to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layout {
    /// As it is.
    AsIs,
    /// PyTorch's `(out, in)`, or `(out, in, 1, 1)`, to the matrix `(in, out)`, in panels ([`crate::panel_index`]).
    Linear,
    /// PyTorch's `(out, in, rows, columns)` to `(rows, columns, in, out)`: a matrix with a row for each
    /// `(row, column, in)`, in panels.
    Conv,
}
