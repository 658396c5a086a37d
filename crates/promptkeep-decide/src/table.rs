//! The decision table: bins of the features, pooled weights and forest, and word statistics. Training makes it
//! offline; each namespace's learner starts from it. It is one small file, embedded in the binary.

use std::sync::{Arc, LazyLock};

use promptkeep_core::codec::{Malformed, Reader, ensure};

use super::{
    answer,
    boost::{BINS, Forest},
    features::{self, Features},
    rarity::Rarity,
};

/// Inputs of the linear model: the constant one, the features, the forest's logit.
pub const INPUTS: usize = features::COUNT + 2;

/// First bytes of the file.
const MAGIC: &[u8; 8] = b"pkdecide";
/// Version of the format. Changes with the features, their order, the encoding, or the meaning of any number in it.
const VERSION: u32 = 2;

/// Inputs of the linear model for one pair.
pub type Inputs = [f32; INPUTS];

/// The bin of each feature: all that the models see of a pair.
pub type Bins = [u8; features::COUNT];

/// The decision table, see the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// For each feature, the upper bounds of all bins except the last, ascending.
    pub edges: Vec<Vec<f32>>,
    /// For each feature, the standardised mean of each bin.
    pub means: Vec<Vec<f32>>,
    /// The pooled forest.
    pub forest: Forest,
    /// Divisor that scales the forest's logit to a standard deviation of one.
    pub forest_scale: f32,
    /// Pooled weights of the [`Inputs`].
    pub weights: Vec<f32>,
    /// For each feature of two answers, the upper bounds of all bins except the last, ascending.
    pub answer_edges: Vec<Vec<f32>>,
    /// What two answers add to the logit that their prompts give.
    pub answer_forest: Forest,
    /// Statistics of words.
    pub rarity: Rarity,
    /// Hash of the encoded table; 0 before it is encoded and decoded.
    pub fingerprint: u64,
}

/// Why bytes are not a table that this build can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The bytes are not a decision table.
    #[error("not a decision table")]
    NotATable,
    /// The table has another version of the format.
    #[error("decision table of version {found}, this build needs {VERSION}")]
    Version { found: u32 },
    /// The table is truncated or malformed.
    #[error("decision table is damaged")]
    Damaged,
}

// === impl Table ===

impl Table {
    /// Returns the table embedded in this binary, which is decoded once.
    ///
    /// # Errors
    /// [`TableError`] when the build embedded a table of another version.
    pub fn embedded() -> Result<Arc<Self>, TableError> {
        static TABLE: LazyLock<Result<Arc<Table>, TableError>> =
            LazyLock::new(|| Table::decode(include_bytes!("table.bin")).map(Arc::new));
        TABLE.clone()
    }

    /// Returns a hash that identifies the table. State learned with one table is invalid with another.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Returns the bin of each feature.
    pub fn bin(&self, features: &Features) -> Bins {
        bins(&self.edges, features)
    }

    /// Returns the bin of each feature of two answers.
    pub fn bin_answers(&self, features: &answer::Features) -> [u8; answer::COUNT] {
        bins(&self.answer_edges, features)
    }

    /// Returns the log-likelihood ratio of two answers: what they add to the logit of their prompts asking the same.
    pub fn evidence(&self, features: &answer::Features) -> f32 {
        self.answer_forest.logit(&self.bin_answers(features))
    }

    /// Returns the inputs of the linear model for a pair.
    pub fn inputs(&self, bins: &Bins) -> Inputs {
        self.inputs_with(bins, self.forest.logit(bins))
    }

    /// Returns the inputs of the linear model for a pair whose `forest` logit is known.
    pub fn inputs_with(&self, bins: &Bins, forest: f32) -> Inputs {
        let mut inputs = [1.0; INPUTS];
        for (f, bin) in bins.iter().enumerate() {
            inputs[f + 1] = self.means[f][*bin as usize];
        }
        inputs[INPUTS - 1] = forest / self.forest_scale;
        inputs
    }

    /// Returns the little-endian encoding, which [`Table::decode`] reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((features::COUNT as u32).to_le_bytes());
        for (edges, means) in self.edges.iter().zip(&self.means) {
            bytes.push(edges.len() as u8);
            edges.iter().chain(means).for_each(|x| bytes.extend(x.to_le_bytes()));
        }
        bytes.extend(self.forest_scale.to_le_bytes());
        self.weights.iter().for_each(|x| bytes.extend(x.to_le_bytes()));
        self.forest.encode(&mut bytes);
        for edges in &self.answer_edges {
            bytes.push(edges.len() as u8);
            edges.iter().for_each(|x| bytes.extend(x.to_le_bytes()));
        }
        self.answer_forest.encode(&mut bytes);
        self.rarity.encode(&mut bytes);
        bytes
    }

    /// Reads a table written by [`Table::encode`].
    ///
    /// # Errors
    /// [`TableError`] when the bytes are not a table, have another version, or are damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, TableError> {
        let mut from = Reader::new(bytes);
        from.expect(MAGIC, "magic").map_err(|_| TableError::NotATable)?;
        let found = from.u32()?;
        if found != VERSION {
            return Err(TableError::Version { found });
        }
        let mut fingerprint = [0; 8];
        fingerprint.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
        Ok(Self { fingerprint: u64::from_le_bytes(fingerprint), ..Self::read(&mut from)? })
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        ensure(from.u32()? as usize == features::COUNT, "features")?;
        let (mut edges, mut means) = (Vec::new(), Vec::new());
        for _ in 0..features::COUNT {
            let upper = read_edges(from)?;
            means.push(from.repeat(upper.len() + 1, Reader::f32)?);
            edges.push(upper);
        }
        let forest_scale = from.f32()?;
        let weights = from.repeat(INPUTS, Reader::f32)?;
        let forest = Forest::decode(from, features::COUNT)?;
        let answer_edges = from.repeat(answer::COUNT, read_edges)?;
        let answer_forest = Forest::decode(from, answer::COUNT)?;
        let rarity = Rarity::decode(from)?;
        ensure(forest_scale > 0.0, "scale")?;
        from.end()?;
        Ok(Self {
            edges,
            means,
            forest,
            forest_scale,
            weights,
            answer_edges,
            answer_forest,
            rarity,
            fingerprint: 0,
        })
    }
}

impl From<Malformed> for TableError {
    fn from(_: Malformed) -> Self {
        Self::Damaged
    }
}

/// Returns the bin of each value.
fn bins<const N: usize>(edges: &[Vec<f32>], values: &[f32; N]) -> [u8; N] {
    let mut bins = [0; N];
    for ((bin, edges), value) in bins.iter_mut().zip(edges).zip(values) {
        *bin = edges.partition_point(|edge| edge < value) as u8;
    }
    bins
}

/// Reads the upper bounds of a feature's bins.
fn read_edges(from: &mut Reader<'_>) -> Result<Vec<f32>, Malformed> {
    let count = usize::from(from.byte()?);
    ensure(count < BINS, "bins")?;
    from.repeat(count, Reader::f32)
}

/// Divides weighted `values` into bins of about equal weight. Returns the edges between the bins and the standardised
/// mean of each bin.
pub fn bins_of(values: &[(f32, f32)]) -> (Vec<f32>, Vec<f32>) {
    let mut sorted: Vec<(f64, f64)> = values.iter().map(|(v, w)| (f64::from(*v), f64::from(*w))).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = sorted.iter().map(|x| x.1).sum();
    let mean = sorted.iter().map(|(v, w)| v * w).sum::<f64>() / total;
    let variance = sorted.iter().map(|(v, w)| w * (v - mean) * (v - mean)).sum::<f64>() / total;
    let scale = variance.sqrt().max(1e-3);
    let (mut edges, mut means) = (Vec::new(), Vec::new());
    let (mut sum, mut weight, mut since) = (0.0, 0.0, 0.0);
    for (i, (v, w)) in sorted.iter().enumerate() {
        sum += v * w;
        weight += w;
        since += w;
        let next = sorted.get(i + 1).map(|x| x.0);
        let distinct = next.is_some_and(|n| n > *v);
        if distinct && since >= total / (BINS as f64 + 1.0) && edges.len() < BINS - 1 {
            edges.push(((v + next.unwrap_or(*v)) / 2.0) as f32);
            means.push(((sum / weight - mean) / scale) as f32);
            (sum, weight, since) = (0.0, 0.0, 0.0);
        }
    }
    let last = if weight > 0.0 { sum / weight } else { mean };
    means.push(((last - mean) / scale) as f32);
    (edges, means)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_table_decodes_and_encodes_to_its_own_bytes() {
        let table = Table::embedded().unwrap();
        assert_eq!(table.encode(), include_bytes!("table.bin"));
    }

    #[test]
    fn other_files_other_versions_and_damaged_tables_are_refused() {
        let bytes = include_bytes!("table.bin").to_vec();
        assert_eq!(Table::decode(b"something else").err(), Some(TableError::NotATable));
        let mut newer = bytes.clone();
        newer[MAGIC.len()] = 99;
        assert_eq!(Table::decode(&newer).err(), Some(TableError::Version { found: 99 }));
        assert_eq!(Table::decode(&bytes[..bytes.len() - 1]).err(), Some(TableError::Damaged));
    }
}
