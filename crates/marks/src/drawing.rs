//! Marks drawn as bits.

/// The 32 bits of a mask, the highest first, in groups of four: `#` for a used one.
pub fn bits(mask: u32) -> String {
    let each = (0..32).rev().map(|bit| if mask >> bit & 1 == 1 { '#' } else { '.' });
    grouped(each)
}

/// What stands above such a line: the numbers of the bits, tens and ones.
pub fn ruler() -> [String; 2] {
    let digit = |n: u32| char::from_digit(n, 10).unwrap_or('?');
    let tens = (0..32).rev().map(|bit| if bit % 4 == 3 { digit(bit / 10) } else { ' ' });
    let ones = (0..32).rev().map(|bit| if bit % 4 == 3 { digit(bit % 10) } else { ' ' });
    [grouped(tens), grouped(ones)]
}

fn grouped(each: impl Iterator<Item = char>) -> String {
    let mut text = String::new();
    for (i, c) in each.enumerate() {
        if i > 0 && i % 4 == 0 {
            text.push(' ');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ruler_stands_above_the_bits() {
        let [tens, ones] = ruler();
        assert_eq!(tens, "3    2    2    1    1    1    0    0   ");
        assert_eq!(ones, "1    7    3    9    5    1    7    3   ");
        assert_eq!(bits(0xc000_4001), "##.. .... .... .... .#.. .... .... ...#");
    }
}
