//! How common words are, and how much a word's absence says: small tables, made by training from
//! questions of many kinds.

use std::collections::HashMap;

use super::table::Reader;

/// Rareness of a word that the table does not know.
const UNKNOWN: f32 = 1.0;

/// Per stem: how rare it is, and how often prompts of which only one has it mean different things.
#[derive(Clone, Debug, Default)]
pub struct Rarity {
    words: HashMap<u32, (u8, i8)>,
}

// === impl Rarity ===

impl Rarity {
    /// From stems, by the lower half of their hash, to rareness (255 the rarest) and harm (in
    /// sixteenths of a logit).
    pub fn new(words: HashMap<u32, (u8, i8)>) -> Self {
        Self { words }
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
    }

    /// Reads what [`Rarity::encode`] wrote.
    pub fn decode(from: &mut Reader<'_>) -> Option<Self> {
        let count = from.u32()?;
        let mut words = HashMap::new();
        for _ in 0..count {
            let stem = from.u32()?;
            let bytes = from.take(2)?;
            words.insert(stem, (bytes[0], bytes[1] as i8));
        }
        Some(Self { words })
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
