//! ` (did you mean FROM?)`, as dockerd ends its sentences about words that it does not know.

/// How different a word may be; dockerd's number.
const FARTHEST: usize = 3;

/// What follows the sentence: the known word that is nearest, if one is near, in the case of the unknown one.
pub fn suggestion(word: &str, known: &[&str]) -> String {
    if known.iter().all(|candidate| candidate.len() + FARTHEST < word.len()) {
        return String::new();
    }
    let lower = word.to_lowercase();
    let near = known.iter().map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate));
    match near.filter(|(far, _)| *far < FARTHEST).min_by_key(|(far, _)| *far) {
        None | Some((0, _)) => String::new(),
        Some((_, found)) if word == lower => format!(" (did you mean {}?)", found.to_lowercase()),
        Some((_, found)) if word == word.to_uppercase() => format!(" (did you mean {}?)", found.to_uppercase()),
        Some((_, found)) => format!(" (did you mean {found}?)"),
    }
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_word_is_named() {
        assert_eq!(suggestion("FORM", &["run", "from"]), " (did you mean FROM?)");
        assert_eq!(suggestion("b", &["run", "from"]), "");
    }
}
