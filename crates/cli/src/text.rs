//! Small things about text.

/// `text` with control characters made visible, one character for one, so that no document and no host name can
/// steer the terminal. Line ends and tabs stay.
pub fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// `count` bytes in at most five characters: `999`, `1.0K`, `12M`. Powers of 1024.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    let mut rest = count as f64;
    let mut unit = "";
    for next in UNITS {
        // 999.5 would be printed as 1000
        if rest < 999.5 {
            break;
        }
        rest /= 1024.0;
        unit = next;
    }
    match unit {
        "" => count.to_string(),
        _ if rest < 9.95 => format!("{rest:.1}{unit}"),
        _ => format!("{rest:.0}{unit}"),
    }
}

/// `1 document`, `2 documents`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_keep_their_place() {
        assert_eq!(visible("a\x1b[31mb\tc\nd\x7f\u{9b}"), "a\u{241b}[31mb\tc\nd\u{fffd}\u{fffd}");
    }

    #[test]
    fn bytes_are_short() {
        let shown = [0, 999, 1000, 1024, 10 << 10, 1 << 20, 12_345_678, 5 << 30, u64::MAX].map(bytes);
        assert_eq!(shown, ["0", "999", "1.0K", "1.0K", "10K", "1.0M", "12M", "5.0G", "16E"]);
    }
}
