//! What the tests of files share.

use ratel_tensor::{Elem, Shape};
use ratel_weights::{Checkpoint, Component, Layout, WeightsError};
use std::path::{Path, PathBuf};

/// A path below `tests/fixtures/models`.
pub(crate) fn model(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models").join(path)
}

/// A weight's bytes as a device gets them.
pub(crate) fn read(
    checkpoint: &Checkpoint,
    component: Component,
    key: &str,
    layout: Layout,
    elem: Elem,
) -> Result<Vec<u8>, WeightsError> {
    let mut all = Vec::new();
    checkpoint.read(component, key, layout, elem, &mut |offset, bytes| {
        assert_eq!(offset, all.len() as u64, "{key}: pieces come in order, without gaps");
        all.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(all)
}

/// The layout that a model asks for a parameter of this shape in.
pub(crate) fn layout(shape: Shape) -> Layout {
    match shape.len() {
        2 => Layout::Linear,
        4 => Layout::Conv,
        _ => Layout::AsIs,
    }
}
