//! `struct nlattr` by itself (linux/netlink.h): for attributes that the bindings hand over as bytes, and for families
//! that they do not know.

/// The bits of a type that are the type; above are NLA_F_NESTED and NLA_F_NET_BYTEORDER.
const KIND: u16 = 0x3fff;
/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;

/// Adds an attribute.
pub fn push(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    into.extend((value.len() as u16 + 4).to_ne_bytes());
    into.extend(kind.to_ne_bytes());
    into.extend(value);
    into.resize(into.len().next_multiple_of(4), 0);
}

/// Adds an attribute that holds the attributes that `write` adds (NLA_F_NESTED).
pub fn nest(into: &mut Vec<u8>, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    push(into, kind | NESTED, &inner);
}

/// Adds a text with the zero that ends it.
pub fn push_text(into: &mut Vec<u8>, kind: u16, text: &str) {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    push(into, kind, &bytes);
}

/// Each attribute's type and value, in order; ends where the bytes make no sense.
pub fn all(mut attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *attributes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = attributes.get(4..length)?;
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & KIND, value))
    })
}

/// The value of the first attribute of this kind.
pub fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    all(attributes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number in the host's byte order.
pub fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// A number in network byte order.
pub fn number_be(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// A text that ends with a zero or with the attribute.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_is_found_and_nonsense_ends_it() {
        let mut bytes = Vec::new();
        push(&mut bytes, 3, b"abc\0");
        push(&mut bytes, 5 | 0x8000, &7_u32.to_ne_bytes());
        assert_eq!(find(&bytes, 3).map(text), Some("abc".into()));
        assert_eq!(find(&bytes, 5).and_then(number), Some(7));
        bytes.extend([3, 0, 1, 0]);
        assert_eq!(all(&bytes).count(), 2, "a length below its own header ends the list");
        bytes.truncate(bytes.len() - 5);
        assert_eq!(all(&bytes).count(), 1, "a value that is cut off is none");
    }
}
