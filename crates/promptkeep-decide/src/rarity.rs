//! Statistics of words: how rare a word is, what it says when only one text has it, and its vector. Training derives
//! them from questions of many kinds.

use promptkeep_core::codec::{Malformed, Reader};

use super::lexicon::WordMap;

/// Rareness of a word that is not in the table.
const UNKNOWN: f32 = 1.0;

/// Components of a word vector.
pub const DIMENSIONS: usize = 24;

/// Word vector: a direction whose components are scaled by 127.
pub type Vector = [i8; DIMENSIONS];

/// Statistics of words, by the lower half of the hash of their stem.
#[derive(Clone, Debug, Default)]
pub struct Rarity {
    /// Rareness and evidence, see [`Rarity::new`].
    words: WordMap<u32, (u8, i8)>,
    vectors: WordMap<u32, Vector>,
}

impl Rarity {
    /// Creates statistics. `words` has for each stem its rareness, from 0 to 255 for the rarest, and its evidence of
    /// a difference in sixteenths of a logit; `vectors` has the word vectors. Both are keyed by the lower half of the
    /// stem's hash.
    pub fn new(
        words: impl IntoIterator<Item = (u32, (u8, i8))>,
        vectors: impl IntoIterator<Item = (u32, Vector)>,
    ) -> Self {
        Self { words: words.into_iter().collect(), vectors: vectors.into_iter().collect() }
    }

    /// Appends the encoding: the number of words and the words, then the number of vectors and the vectors, both
    /// sorted by stem. Little-endian.
    pub fn encode(&self, to: &mut Vec<u8>) {
        let mut words: Vec<_> = self.words.iter().collect();
        words.sort_unstable();
        to.extend((words.len() as u32).to_le_bytes());
        for (stem, (rareness, evidence)) in words {
            to.extend(stem.to_le_bytes());
            to.extend([*rareness, *evidence as u8]);
        }
        let mut vectors: Vec<_> = self.vectors.iter().collect();
        vectors.sort_unstable();
        to.extend((vectors.len() as u32).to_le_bytes());
        for (stem, vector) in vectors {
            to.extend(stem.to_le_bytes());
            to.extend(vector.map(|x| x as u8));
        }
    }

    /// Reads statistics written by [`Rarity::encode`].
    ///
    /// # Errors
    /// [`Malformed`]
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut words = WordMap::default();
        for _ in 0..from.u32()? {
            let stem = from.u32()?;
            let [rareness, evidence] = from.array()?;
            words.insert(stem, (rareness, evidence as i8));
        }
        let mut vectors = WordMap::default();
        for _ in 0..from.u32()? {
            let stem = from.u32()?;
            vectors.insert(stem, from.array::<DIMENSIONS>()?.map(|x| x as i8));
        }
        Ok(Self { words, vectors })
    }

    /// Returns the cosine similarity of two stems' vectors, in [-1, 1]; `None` when one has no vector.
    pub fn similarity(&self, a: u64, b: u64) -> Option<f32> {
        let (a, b) = (self.vectors.get(&(a as u32))?, self.vectors.get(&(b as u32))?);
        let dot: i32 = a.iter().zip(b).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum();
        Some(dot as f32 / (127.0 * 127.0))
    }

    /// Returns the rareness of a stem: 0 for the most common words, 1 for unknown ones.
    pub fn rareness(&self, stem: u64) -> f32 {
        self.words.get(&(stem as u32)).map_or(UNKNOWN, |w| f32::from(w.0) / 255.0)
    }

    /// Returns the evidence, in logits, that two texts mean different things when only one of them has this stem; 0
    /// for unknown stems.
    pub fn evidence(&self, stem: u64) -> f32 {
        self.words.get(&(stem as u32)).map_or(0.0, |w| f32::from(w.1) / 16.0)
    }
}
