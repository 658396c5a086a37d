//! What training made offline and every namespace starts from: bins of the features, the pooled weights
//! and forest, and what is known of words. Committed as one small file and embedded in the binary.

use std::sync::{Arc, LazyLock};

use promptkeep_core::codec::{Malformed, Reader, ensure};

use super::{
    boost::Forest,
    features::{self, Features},
    rarity::Rarity,
};

/// Bins per feature.
pub const BINS: usize = 64;
/// Numbers that the linear model sees of a pair: one, the features, the forest's logit.
pub const INPUTS: usize = features::COUNT + 2;

/// First bytes of the file.
const MAGIC: &[u8; 8] = b"pkdecide";
/// Changes with the features, their order, the encoding and the meaning of any number in it.
const VERSION: u32 = 1;

/// What the linear model sees.
pub type Inputs = [f32; INPUTS];

/// A pair, as far as the model can tell it from others.
pub type Bins = [u8; features::COUNT];

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Table {
    /// Upper bounds of all bins but the last, ascending, per feature.
    pub edges: Vec<Vec<f32>>,
    /// Standardised mean of each bin, per feature.
    pub means: Vec<Vec<f32>>,
    /// The pooled forest.
    pub forest: Forest,
    /// Divides the forest's logit to make an input of standard deviation one.
    pub forest_scale: f32,
    /// Pooled weights of the [`Inputs`].
    pub weights: Vec<f32>,
    pub rarity: Rarity,
    /// Of the encoded bytes.
    pub fingerprint: u64,
}

/// A table that this build cannot use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("not a decision table")]
    Foreign,
    #[error("decision table of version {found}, this build needs {VERSION}")]
    Version { found: u32 },
    #[error("decision table is damaged")]
    Damaged,
}

// === impl Table ===

impl Table {
    /// The table embedded in this binary, decoded once.
    ///
    /// # Errors
    /// [`TableError`] when the build embedded a file of another version.
    pub fn embedded() -> Result<Arc<Self>, TableError> {
        static TABLE: LazyLock<Result<Arc<Table>, TableError>> =
            LazyLock::new(|| Table::decode(include_bytes!("table.bin")).map(Arc::new));
        TABLE.clone()
    }

    /// Tells tables apart: what was learned with one means nothing with another.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The bin of every feature.
    pub fn bin(&self, features: &Features) -> Bins {
        let mut bins = [0; features::COUNT];
        for ((bin, edges), value) in bins.iter_mut().zip(&self.edges).zip(features) {
            *bin = edges.partition_point(|edge| edge < value) as u8;
        }
        bins
    }

    /// What the linear model sees of a binned pair.
    pub fn inputs(&self, bins: &Bins) -> Inputs {
        self.inputs_with(bins, self.forest.logit(bins))
    }

    /// The same where the forest's logit is known.
    pub fn inputs_with(&self, bins: &Bins, forest: f32) -> Inputs {
        let mut inputs = [1.0; INPUTS];
        for (f, bin) in bins.iter().enumerate() {
            inputs[f + 1] = self.means[f][*bin as usize];
        }
        inputs[INPUTS - 1] = forest / self.forest_scale;
        inputs
    }

    /// Little-endian; see [`Table::decode`].
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
        self.rarity.encode(&mut bytes);
        bytes
    }

    /// Reads a table.
    ///
    /// # Errors
    /// [`TableError`]: another kind of file, another version, or not what [`Table::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, TableError> {
        let mut from = Reader::new(bytes);
        from.expect(MAGIC, "magic").map_err(|_| TableError::Foreign)?;
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
            let count = usize::from(from.byte()?);
            ensure(count < BINS, "bins")?;
            edges.push(from.repeat(count, Reader::f32)?);
            means.push(from.repeat(count + 1, Reader::f32)?);
        }
        let forest_scale = from.f32()?;
        let weights = from.repeat(INPUTS, Reader::f32)?;
        let forest = Forest::decode(from, features::COUNT)?;
        let rarity = Rarity::decode(from)?;
        ensure(forest_scale > 0.0, "scale")?;
        from.end()?;
        Ok(Self { edges, means, forest, forest_scale, weights, rarity, fingerprint: 0 })
    }
}

impl From<Malformed> for TableError {
    fn from(_: Malformed) -> Self {
        Self::Damaged
    }
}

/// Equally filled bins of weighted values: the edges and, standardised, the means.
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
    fn the_embedded_table_is_of_this_version() {
        let table = Table::embedded().unwrap();
        assert_eq!(table.encode(), include_bytes!("table.bin"));
    }

    #[test]
    fn other_files_and_versions_are_refused() {
        let bytes = include_bytes!("table.bin").to_vec();
        assert_eq!(Table::decode(b"something else").err(), Some(TableError::Foreign));
        let mut newer = bytes.clone();
        newer[MAGIC.len()] = 99;
        assert_eq!(Table::decode(&newer).err(), Some(TableError::Version { found: 99 }));
        assert_eq!(Table::decode(&bytes[..bytes.len() - 1]).err(), Some(TableError::Damaged));
    }
}
