//! Which known word did somebody mean?

/// The known word nearest to what was written, if any is near.
///
/// Case, hyphens and underscores do not count, since `onLink` for `on-link` is the likeliest slip of all.
pub(super) fn nearest<'w>(written: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let written = folded(written);
    if written.len() > 64 {
        return None;
    }
    let close_enough = (written.len() / 3).max(1);
    known
        .into_iter()
        .map(|word| (distance(&written, &folded(word)), word))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= close_enough)
        .map(|(_, word)| word)
}

fn folded(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// How many letters to add, drop, replace or swap with their neighbour.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut before = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for i in 0..from.len() {
        let mut row = vec![i + 1];
        for j in 0..to.len() {
            let mut least = (above[j] + usize::from(from[i] != to[j])).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from[i] == to[j - 1] && from[i - 1] == to[j] {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[to.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["name", "addresses", "manage", "default", "neighbours", "on-link"];
        for (written, meant) in [
            ("adresses", Some("addresses")),
            ("address", Some("addresses")),
            ("neighbors", Some("neighbours")),
            ("onLink", Some("on-link")),
            ("Name", Some("name")),
            ("naem", Some("name")),
            ("gateway", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known), meant, "{written}");
        }
    }
}
