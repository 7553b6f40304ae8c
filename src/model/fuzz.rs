//! For tests: what somebody hostile sends. Good inputs are changed at random, a few bytes at a time, so that they get past the first
//! line of a parser; bytes without a beginning, as proptest or bolero make them on a stable compiler, do not, and cargo-fuzz wants
//! another compiler.
//!
//! Each run is the same, unless `RINGER_FUZZ_SEED` says otherwise; `RINGER_FUZZ_ROUNDS` is how many inputs each test tries (`make fuzz`).

use std::hash::{DefaultHasher, Hash, Hasher};

/// Inputs of a test unless somebody wants more.
const ROUNDS: u64 = 2000;

/// Changes of one input at most.
const CHANGES: u64 = 8;

/// Where numbers end, and what separates, nests and escapes in most of what we read.
const WORDS: [&[u8]; 28] = [
    b"0",
    b"-1",
    b"255",
    b"256",
    b"65535",
    b"65536",
    b"2147483648",
    b"4294967296",
    b"18446744073709551615",
    b"1e999",
    b"\0",
    b"\xff",
    b"\xc3\x28",
    b"\n",
    b"\r\n",
    b"\\",
    b"\"",
    b"'",
    b"/",
    b"..",
    b":",
    b",",
    b"=",
    b"{",
    b"[",
    b"$",
    b"%",
    b"\xe2\x80\xae",
];

/// Shows `look` every good input, and then what becomes of them. What made it panic is printed.
pub fn each(good: &[&[u8]], mut look: impl FnMut(&[u8])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (rounds, seed) = (number("RINGER_FUZZ_ROUNDS").unwrap_or(ROUNDS), number("RINGER_FUZZ_SEED").unwrap_or(1));
    let mut random = Random::new(seed, good);
    for input in good {
        look(input);
    }
    for _ in 0..rounds {
        let input = random.change(good);
        let shown = Shown(&input);
        look(&input);
        std::mem::forget(shown);
    }
}

/// Prints what it holds when it is dropped in a panic.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        eprintln!("the input was \"{}\"", self.0.escape_ascii());
    }
}

/// xorshift64*, which has no bad seed but 0.
struct Random(u64);

impl Random {
    fn new(seed: u64, good: &[&[u8]]) -> Self {
        let mut hash = DefaultHasher::new();
        (seed, good).hash(&mut hash);
        Self(hash.finish() | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap_or(0) % limit
    }

    fn one_of<'a>(&mut self, all: &[&'a [u8]]) -> &'a [u8] {
        all[self.below(all.len())]
    }

    /// A part of an input.
    fn part<'a>(&mut self, input: &'a [u8]) -> &'a [u8] {
        let start = self.below(input.len() + 1);
        let length = self.below(input.len() - start + 1);
        &input[start..start + length.min(64)]
    }

    fn change(&mut self, good: &[&[u8]]) -> Vec<u8> {
        let mut input = self.one_of(good).to_vec();
        for _ in 0..=self.next() % CHANGES {
            let at = self.below(input.len() + 1);
            match self.below(8) {
                0 if at < input.len() => input[at] ^= 1 << self.below(8),
                1 if at < input.len() => input[at] = self.next().to_le_bytes()[3],
                2 => input.truncate(at),
                3 => {
                    let end = at + self.below(input.len() - at + 1).min(16);
                    input.drain(at..end);
                }
                4 => {
                    let part = self.part(&input).to_vec();
                    input.splice(at..at, part);
                }
                5 => {
                    let other = self.one_of(good);
                    let part = self.part(other).to_vec();
                    input.splice(at..at, part);
                }
                6 => {
                    let word = self.one_of(&WORDS);
                    let end = (at + word.len()).min(input.len());
                    input.splice(at..end, word.iter().copied());
                }
                _ => {
                    let word = self.one_of(&WORDS);
                    input.splice(at..at, word.iter().copied());
                }
            }
        }
        input
    }
}

#[test]
fn inputs_are_changed_and_every_run_is_the_same() {
    let good: [&[u8]; 2] = [b"one input", b"another one"];
    let inputs = || {
        let mut random = Random::new(1, &good);
        (0..100).map(|_| random.change(&good)).collect::<Vec<_>>()
    };
    let first = inputs();
    assert_eq!(first, inputs());
    assert!(first.iter().filter(|input| good.contains(&input.as_slice())).count() < 20);
}
