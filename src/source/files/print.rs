//! What is kept of a text that has been read: a file's text may hold keys, and is
//! half of what a file takes.

use crate::base::Version;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Tells whether another text is the same, and whether it is this one cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Print {
    whole: Version,
    bytes: usize,
    /// Its first bytes themselves: a text shorter than a part has nothing else.
    head: [u8; PART_BYTES_MAX],
    /// Of each line, or of each part of one that is long; see [`PART_BYTES_MAX`].
    parts: Box<[u16]>,
    /// The last part is no whole line.
    open: bool,
}

/// Two bytes are kept of this many. A text that ends otherwise than its longer
/// predecessor is taken for one that was cut off if it does so in its last part,
/// and has no line end there.
const PART_BYTES_MAX: usize = 16;

impl Print {
    pub(super) fn of(text: &[u8]) -> Self {
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let parts = lines.flat_map(|line| line.chunks(PART_BYTES_MAX)).map(part).collect();
        let open = text.last().is_some_and(|last| *last != b'\n');
        let mut head = [0; PART_BYTES_MAX];
        let first = text.len().min(PART_BYTES_MAX);
        head[..first].copy_from_slice(&text[..first]);
        Self { whole: Version::of(text), bytes: text.len(), head, parts, open }
    }

    /// Whether it looks like the beginning of `before`, as a file that is being
    /// written does. Of a last part without an end only its place is known.
    pub(super) fn is_cut_of(&self, before: &Self) -> bool {
        let known = self.parts.len() - usize::from(self.open);
        let first = self.bytes.min(PART_BYTES_MAX);
        self.bytes < before.bytes
            && self.head[..first] == before.head[..first]
            && before.parts.get(..known) == Some(&self.parts[..known])
    }
}

impl Default for Print {
    fn default() -> Self {
        Self::of(b"")
    }
}

/// Says nothing of what the text is: an equal sum is a hint, never a proof.
#[expect(clippy::cast_possible_truncation, reason = "any bits of it will do")]
fn part(text: &[u8]) -> u16 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish() as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn cut(before: &str, now: &str, expected: bool) {
        let (before, now) = (Print::of(before.as_bytes()), Print::of(now.as_bytes()));
        assert_eq!(now.is_cut_of(&before), expected);
        assert!(!before.is_cut_of(&now), "what is longer is never cut");
        assert!(!before.is_cut_of(&before), "nor is the same");
    }

    #[test]
    fn knows_the_beginning_of_a_text() {
        let text = format!("a: 1\nb: [{}]\nc: 3\n", "x, ".repeat(50));
        for bytes in 0..text.len() {
            cut(&text, &text[..bytes], true);
        }
        cut(&text, "a: 2", false);
        cut(&text, "a: 2\n", false);
        cut(&text, "a: 1\nb: []\n", false);
        cut(&text, &text.replace("x, ", ""), false);
        cut(&text, &text.replace("c: 3\n", "\n"), false);
        let line = format!("{{{}}}", "\"name\": \"value\", ".repeat(50));
        cut(&line, &line.replacen("value", "", 1), false);
    }

    #[test]
    fn equal_texts_alone_are_equal() {
        assert_eq!(Print::of(b"a: 1\n"), Print::of(b"a: 1\n"));
        assert_ne!(Print::of(b"a: 1\n"), Print::of(b"a: 2\n"));
        assert_eq!(Print::of(b""), Print::default());
    }
}
