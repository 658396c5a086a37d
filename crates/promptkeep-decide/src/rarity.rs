//! How common words are, and how much a word's absence says: small tables, made by training from
//! questions of many kinds.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use promptkeep_core::codec::{Malformed, Reader};

/// Rareness of a word that the table does not know.
const UNKNOWN: f32 = 1.0;

/// Numbers of a word's vector.
pub const DIMENSIONS: usize = 24;

/// A word's meaning: a direction, each number scaled to 127.
pub type Vector = [i8; DIMENSIONS];

/// Per stem: how rare it is, and how often prompts of which only one has it mean different things.
#[derive(Clone, Debug, Default)]
pub struct Rarity {
    words: HashMap<u32, (u8, i8), BuildHasherDefault<Stem>>,
    vectors: HashMap<u32, Vector, BuildHasherDefault<Stem>>,
}

/// Stems are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Stem(u64);

impl Hasher for Stem {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u32(&mut self, value: u32) {
        self.0 = u64::from(value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

// === impl Rarity ===

impl Rarity {
    /// From stems, by the lower half of their hash, to rareness (255 the rarest) and harm (in
    /// sixteenths of a logit).
    pub fn new(
        words: impl IntoIterator<Item = (u32, (u8, i8))>,
        vectors: impl IntoIterator<Item = (u32, Vector)>,
    ) -> Self {
        Self { words: words.into_iter().collect(), vectors: vectors.into_iter().collect() }
    }

    /// Little-endian: the number of words, then each, sorted by stem.
    pub fn encode(&self, to: &mut Vec<u8>) {
        let mut words: Vec<_> = self.words.iter().collect();
        words.sort_unstable();
        to.extend((words.len() as u32).to_le_bytes());
        for (stem, (rareness, harm)) in words {
            to.extend(stem.to_le_bytes());
            to.extend([*rareness, *harm as u8]);
        }
        let mut vectors: Vec<_> = self.vectors.iter().collect();
        vectors.sort_unstable();
        to.extend((vectors.len() as u32).to_le_bytes());
        for (stem, vector) in vectors {
            to.extend(stem.to_le_bytes());
            to.extend(vector.map(|x| x as u8));
        }
    }

    /// Reads what [`Rarity::encode`] wrote.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut words = HashMap::default();
        for _ in 0..from.u32()? {
            let stem = from.u32()?;
            let [rareness, harm] = from.array()?;
            words.insert(stem, (rareness, harm as i8));
        }
        let mut vectors = HashMap::default();
        for _ in 0..from.u32()? {
            let stem = from.u32()?;
            vectors.insert(stem, from.array::<DIMENSIONS>()?.map(|x| x as i8));
        }
        Ok(Self { words, vectors })
    }

    /// How near the meanings of two words are, -1 to 1; `None` when one is unknown.
    pub fn likeness(&self, a: u64, b: u64) -> Option<f32> {
        let (a, b) = (self.vectors.get(&(a as u32))?, self.vectors.get(&(b as u32))?);
        let dot: i32 = a.iter().zip(b).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum();
        Some(dot as f32 / (127.0 * 127.0))
    }

    /// 0 for the commonest words, 1 for unknown ones.
    pub fn rareness(&self, stem: u64) -> f32 {
        self.words.get(&(stem as u32)).map_or(UNKNOWN, |w| f32::from(w.0) / 255.0)
    }

    /// Evidence, in logits, that texts of which only one has this word mean different things; 0 when
    /// nothing is known.
    pub fn harm(&self, stem: u64) -> f32 {
        self.words.get(&(stem as u32)).map_or(0.0, |w| f32::from(w.1) / 16.0)
    }
}
