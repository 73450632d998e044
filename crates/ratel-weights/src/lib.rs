//! Checkpoints: safetensors by memory map, layouts, key maps, element conversion.
