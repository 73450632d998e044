//! Key paths: dotted names in diffusers' spelling, such as `unet.down_blocks.0.resnets.0.conv1`.

/// `parent.child`, or just `child` under the empty path.
pub fn join(parent: &str, child: &str) -> String {
    if parent.is_empty() { child.to_owned() } else { format!("{parent}.{child}") }
}

/// Whether `key` fits `pattern`, in which `*` stands for any run of characters, dots included. A pattern without a
/// `*` fits the key itself and everything under it.
pub fn matches(pattern: &str, key: &str) -> bool {
    if !pattern.contains('*') {
        return key.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| key.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins() {
        assert_eq!(join("", "unet"), "unet");
        assert_eq!(join("unet", "conv_in"), "unet.conv_in");
    }

    #[test]
    fn patterns() {
        assert!(matches("unet.mid_block", "unet.mid_block.attentions.0"));
        assert!(!matches("unet.mid", "unet.mid_block"));
        assert!(matches("unet.*.attn2", "unet.mid_block.attentions.0.transformer_blocks.0.attn2"));
        assert!(!matches("unet.*.attn2", "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q"));
        assert!(matches("*conv*", "vae.decoder.conv_in"));
    }
}
