//! Gradient-boosted trees over binned features: small, deterministic, fitted in milliseconds. Training uses them for
//! the pooled model, and each namespace's learner, with few trees, for its correction.

use promptkeep_core::codec::{Malformed, Reader, ensure};

/// Bins per feature.
pub const BINS: usize = 64;

/// Maximum number of leaves of a tree.
const LEAVES_MAX: usize = 64;

/// Parameters of [`fit`].
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    /// Number of trees.
    pub trees: usize,
    /// Leaves per tree, at most 64.
    pub leaves: usize,
    /// Learning rate, 0 to 1.
    pub rate: f32,
    /// Minimum sum of second derivatives in a leaf. Keeps leaves from following single labels.
    pub hessian_min: f32,
    /// L2 penalty, which shrinks the values of leaves towards zero.
    pub ridge: f32,
    /// Fraction of the features that a tree may use, 0 to 1.
    pub features: f32,
    /// Seed of the choice of features.
    pub seed: u64,
}

/// Matrix of binned features, row by row.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Bins below [`BINS`]; the length is a multiple of `width`.
    pub bins: &'a [u8],
    /// Features per row.
    pub width: usize,
}

/// Label of a row.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Probability of the positive class, 0 to 1.
    pub label: f32,
    /// Weight of the label.
    pub weight: f32,
    /// Logit to which the trees are added.
    pub logit: f32,
}

/// A sum of trees. The default has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forest {
    /// Nodes of all trees. The nodes of a tree are consecutive, in depth-first order.
    nodes: Vec<Node>,
    /// Index of each tree's root.
    roots: Vec<u32>,
}

/// A split, or a leaf when `feature` is `LEAF`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    feature: u8,
    /// Rows with at most this bin continue at the next node, others at `right`.
    bin: u8,
    /// Offset of the right child from this node.
    right: u16,
    /// Value of a leaf.
    value: f32,
}

const LEAF: u8 = u8::MAX;
/// Size of an encoded node.
const NODE_BYTES: usize = 8;

/// Sums of the first and second derivatives of the loss over some rows.
#[derive(Clone, Copy, Default)]
struct Sum {
    gradient: f32,
    hessian: f32,
}

/// A leaf of a growing tree, with its best split if there is one.
struct OpenLeaf {
    rows: Vec<u32>,
    node: usize,
    split: Option<Split>,
}

#[derive(Clone, Copy)]
struct Split {
    gain: f32,
    feature: u8,
    bin: u8,
}

/// Fits a forest by second-order boosting of the logistic loss. `targets` has one element for each of the `rows`.
/// Equal arguments give equal forests.
pub fn fit(rows: Rows<'_>, targets: &[Target], growth: &Growth) -> Forest {
    let mut forest = Forest::default();
    let mut logits: Vec<f32> = targets.iter().map(|t| t.logit).collect();
    let mut random = fastrand::Rng::with_seed(growth.seed);
    for _ in 0..growth.trees {
        let sums: Vec<Sum> = targets.iter().zip(&logits).map(|(t, z)| Sum::of(t, *z)).collect();
        let used: Vec<bool> = (0..rows.width).map(|_| random.f32() < growth.features).collect();
        let tree = Tree { rows, sums: &sums, used: &used, growth }.grow();
        forest.push(&tree);
        let root = forest.roots.len() - 1;
        for (i, logit) in logits.iter_mut().enumerate() {
            *logit += forest.tree(root, rows.row(i));
        }
    }
    forest
}

// === impl Rows ===

impl<'a> Rows<'a> {
    /// Returns row `i`.
    pub fn row(&self, i: usize) -> &'a [u8] {
        &self.bins[i * self.width..(i + 1) * self.width]
    }
}

// === impl Sum ===

impl Sum {
    fn of(target: &Target, logit: f32) -> Self {
        let p = 1.0 / (1.0 + (-logit).exp());
        Self {
            gradient: target.weight * (target.label - p),
            hessian: target.weight * (p * (1.0 - p)).max(1e-4),
        }
    }

    fn add(&mut self, other: Self) {
        self.gradient += other.gradient;
        self.hessian += other.hessian;
    }

    fn score(self, ridge: f32) -> f32 {
        self.gradient * self.gradient / (self.hessian + ridge)
    }
}

/// Grows one tree.
struct Tree<'a> {
    rows: Rows<'a>,
    /// Of each row.
    sums: &'a [Sum],
    /// Whether the tree may use each feature.
    used: &'a [bool],
    growth: &'a Growth,
}

// === impl Tree ===

impl Tree<'_> {
    /// Splits the leaf with the largest gain until no split helps or the tree has enough leaves.
    fn grow(&self) -> Vec<Node> {
        // Nodes with the indices of their children; laid out depth first at the end.
        let mut nodes = vec![(Node { feature: LEAF, bin: 0, right: 0, value: 0.0 }, 0, 0)];
        let all: Vec<u32> = (0..self.sums.len() as u32).collect();
        let mut open = vec![self.open(all, 0)];
        while open.len() < self.growth.leaves.min(LEAVES_MAX) {
            let best = (0..open.len()).filter(|i| open[*i].split.is_some());
            let gain = |i: &usize| open[*i].split.map_or(0.0, |s| s.gain);
            let Some(best) = best.max_by(|a, b| gain(a).total_cmp(&gain(b))) else { break };
            let leaf = open.swap_remove(best);
            let Some(split) = leaf.split else { break };
            let goes_left = |i: &u32| self.rows.row(*i as usize)[split.feature as usize] <= split.bin;
            let (left, right): (Vec<u32>, Vec<u32>) = leaf.rows.iter().partition(|i| goes_left(i));
            let (l, r) = (nodes.len(), nodes.len() + 1);
            let empty = Node { feature: LEAF, bin: 0, right: 0, value: 0.0 };
            nodes.extend([(empty, 0, 0), (empty, 0, 0)]);
            nodes[leaf.node] = (Node { feature: split.feature, bin: split.bin, right: 0, value: 0.0 }, l, r);
            open.push(self.open(left, l));
            open.push(self.open(right, r));
        }
        for leaf in open {
            let sum = self.sum(&leaf.rows);
            nodes[leaf.node].0.value = self.growth.rate * sum.gradient / (sum.hessian + self.growth.ridge);
        }
        let mut ordered = Vec::with_capacity(nodes.len());
        lay_out(&nodes, 0, &mut ordered);
        ordered
    }

    fn open(&self, rows: Vec<u32>, node: usize) -> OpenLeaf {
        let split = self.best_split(&rows);
        OpenLeaf { rows, node, split }
    }

    fn sum(&self, rows: &[u32]) -> Sum {
        let mut sum = Sum::default();
        rows.iter().for_each(|i| sum.add(self.sums[*i as usize]));
        sum
    }

    fn best_split(&self, rows: &[u32]) -> Option<Split> {
        let width = self.rows.width;
        let mut bins = vec![[Sum::default(); BINS]; width];
        for i in rows {
            let sum = self.sums[*i as usize];
            for (histogram, bin) in bins.iter_mut().zip(self.rows.row(*i as usize)) {
                histogram[*bin as usize].add(sum);
            }
        }
        let total = self.sum(rows);
        let mut best: Option<Split> = None;
        for (feature, histogram) in bins.iter().enumerate().filter(|(f, _)| self.used[*f]) {
            if let Some(split) = self.best_bin(feature, histogram, total)
                && best.is_none_or(|b| split.gain > b.gain)
            {
                best = Some(split);
            }
        }
        best
    }

    fn best_bin(&self, feature: usize, histogram: &[Sum], total: Sum) -> Option<Split> {
        let Growth { ridge, hessian_min, .. } = *self.growth;
        let mut left = Sum::default();
        let mut best: Option<Split> = None;
        for (bin, sum) in histogram.iter().enumerate() {
            left.add(*sum);
            let right =
                Sum { gradient: total.gradient - left.gradient, hessian: total.hessian - left.hessian };
            if left.hessian < hessian_min || right.hessian < hessian_min {
                continue;
            }
            let gain = left.score(ridge) + right.score(ridge) - total.score(ridge);
            if gain > 1e-3 && best.is_none_or(|b| gain > b.gain) {
                best = Some(Split { gain, feature: feature as u8, bin: bin as u8 });
            }
        }
        best
    }
}

/// Appends the tree below node `at` in depth-first order.
fn lay_out(nodes: &[(Node, usize, usize)], at: usize, to: &mut Vec<Node>) {
    let (node, left, right) = nodes[at];
    let place = to.len();
    to.push(node);
    if node.feature != LEAF {
        lay_out(nodes, left, to);
        to[place].right = (to.len() - place) as u16;
        lay_out(nodes, right, to);
    }
}

// === impl Forest ===

impl Forest {
    fn push(&mut self, tree: &[Node]) {
        self.roots.push(self.nodes.len() as u32);
        self.nodes.extend_from_slice(tree);
    }

    /// Returns the forest's contribution to the logit of a row, whose width is that of the training rows.
    pub fn logit(&self, row: &[u8]) -> f32 {
        (0..self.roots.len()).map(|root| self.tree(root, row)).sum()
    }

    fn tree(&self, root: usize, row: &[u8]) -> f32 {
        let mut at = self.roots[root] as usize;
        loop {
            let node = &self.nodes[at];
            if node.feature == LEAF {
                return node.value;
            }
            at += if row[node.feature as usize] <= node.bin { 1 } else { node.right as usize };
        }
    }

    /// Returns the number of trees.
    pub fn trees(&self) -> usize {
        self.roots.len()
    }

    /// Appends the encoding: number of nodes, number of trees, the nodes, the roots. Little-endian.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.extend((self.nodes.len() as u32).to_le_bytes());
        to.extend((self.roots.len() as u32).to_le_bytes());
        for node in &self.nodes {
            to.extend([node.feature, node.bin]);
            to.extend(node.right.to_le_bytes());
            to.extend(node.value.to_le_bytes());
        }
        self.roots.iter().for_each(|root| to.extend(root.to_le_bytes()));
    }

    /// Reads a forest written by [`Forest::encode`], for rows of `width` features.
    ///
    /// # Errors
    /// [`Malformed`], also when evaluation could leave the nodes.
    pub fn decode(from: &mut Reader<'_>, width: usize) -> Result<Self, Malformed> {
        let (nodes, roots) = (from.u32()? as usize, from.u32()? as usize);
        let bytes = from.take(nodes.checked_mul(NODE_BYTES).ok_or(Malformed("length"))?)?;
        let node = |b: &[u8]| Node {
            feature: b[0],
            bin: b[1],
            right: u16::from_le_bytes([b[2], b[3]]),
            value: f32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        };
        let nodes: Vec<Node> = bytes.chunks_exact(NODE_BYTES).map(node).collect();
        let roots: Vec<u32> = from.repeat(roots, Reader::u32)?;
        let inside = |(i, n): (usize, &Node)| {
            let split = (n.feature as usize) < width && n.right > 1 && i + (n.right as usize) < nodes.len();
            n.value.is_finite() && (n.feature == LEAF || split)
        };
        let valid = nodes.iter().enumerate().all(inside) && roots.iter().all(|r| (*r as usize) < nodes.len());
        ensure(valid, "forest").map(|()| Self { nodes, roots })
    }
}
