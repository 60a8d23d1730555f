//! What nft(8) keeps for itself with a rule or a set (libnftnl's `udata`): a byte of type, a byte of length, a value.

/// NFTNL_UDATA_RULE_COMMENT.
const RULE_COMMENT: u8 = 0;
/// NFTNL_UDATA_SET_KEYBYTEORDER and NFTNL_UDATA_SET_DATABYTEORDER.
const SET_KEY_ORDER: u8 = 0;
const SET_DATA_ORDER: u8 = 1;
/// nft's own limit (NFTNL_UDATA_COMMENT_MAXLEN), with the zero that ends it.
const LONGEST: usize = 128;

/// The comment of a rule, cut to what nft takes.
pub(super) fn of_rule(comment: &str) -> Vec<u8> {
    let mut end = comment.len().min(LONGEST - 1);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    let mut value = comment.as_bytes()[..end].to_vec();
    value.push(0);
    attribute(RULE_COMMENT, &value)
}

/// The byte orders of a set's key and data: 1 is the host's, 2 is the network's; 0, of more than one field, says nothing.
pub(super) fn of_set(key_order: u32, data_order: Option<u32>) -> Vec<u8> {
    let mut all = attribute(SET_KEY_ORDER, &key_order.to_ne_bytes());
    if let Some(order) = data_order {
        all.extend(attribute(SET_DATA_ORDER, &order.to_ne_bytes()));
    }
    all
}

fn attribute(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, value.len() as u8];
    bytes.extend(value);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_comment_is_cut_between_characters() {
        let long = of_rule(&"ä".repeat(100));
        assert_eq!(long.len(), 2 + 126 + 1);
        assert_eq!(of_rule("ab"), [0, 3, b'a', b'b', 0]);
    }
}
