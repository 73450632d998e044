//! What the tests of files share.

use ratel_tensor::{Elem, Layout, Shape};
use ratel_weights::{Checkpoint, Component, WeightsError};
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
    let length = checkpoint.catalogue(component).get(key).map_or(0, |shape| shape.count() * elem.size());
    let (mut all, mut given) = (vec![0; length], 0);
    checkpoint.read(component, key, layout, elem, &mut |offset, bytes| {
        assert!(offset.is_multiple_of(4), "{key}: a piece begins within a word");
        all[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        given += bytes.len();
        Ok(())
    })?;
    assert_eq!(given, length, "{key}: as many bytes as it has");
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
