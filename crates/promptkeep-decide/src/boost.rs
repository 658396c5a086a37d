//! Gradient-boosted trees over binned features: small, deterministic, fitted in milliseconds. Used by the
//! training of the table and, with few trees, by the correction that each namespace learns.

use promptkeep_core::codec::{Malformed, Reader, ensure};

/// Leaves of a tree end here, however large the training set.
const LEAVES_MAX: usize = 64;

/// How trees are grown.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    pub trees: usize,
    /// At most `LEAVES_MAX`.
    pub leaves: usize,
    /// Share of each tree's step that is taken.
    pub rate: f32,
    /// Least sum of second derivatives in a leaf: keeps leaves from following single labels.
    pub hessian_min: f32,
    /// Pulls the leaves' values towards zero.
    pub ridge: f32,
    /// Share of the features that one tree may use.
    pub features: f32,
    pub seed: u64,
}

/// Rows of binned features, `width` bytes each.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    pub bins: &'a [u8],
    pub width: usize,
}

/// One example: what the label says and how much it counts.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Probability of the positive class, 0 to 1.
    pub label: f32,
    pub weight: f32,
    /// Logit before the first tree.
    pub logit: f32,
}

/// A sum of trees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forest {
    /// Nodes of all trees; a tree is a run of nodes, its root first.
    nodes: Vec<Node>,
    roots: Vec<u32>,
}

/// A split, or a leaf when `feature` is `LEAF`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node {
    feature: u8,
    /// Rows up to this bin go to the next node, others to `right`.
    bin: u8,
    /// Offset from this node.
    right: u16,
    value: f32,
}

const LEAF: u8 = u8::MAX;
/// Bytes of one encoded node.
const NODE_BYTES: usize = 8;

/// Sums over the rows of a leaf, per feature and bin.
#[derive(Clone, Copy, Default)]
struct Sum {
    gradient: f32,
    hessian: f32,
}

/// A leaf that may still be split.
struct Open {
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

/// Fits a forest to the targets by second-order boosting of the logistic loss.
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

struct Tree<'a> {
    rows: Rows<'a>,
    sums: &'a [Sum],
    used: &'a [bool],
    growth: &'a Growth,
}

// === impl Tree ===

impl Tree<'_> {
    /// Always splits the leaf with the largest gain.
    fn grow(&self) -> Vec<Node> {
        // Children are linked by index while growing and laid out depth first at the end.
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

    fn open(&self, rows: Vec<u32>, node: usize) -> Open {
        let split = self.best_split(&rows);
        Open { rows, node, split }
    }

    fn sum(&self, rows: &[u32]) -> Sum {
        let mut sum = Sum::default();
        rows.iter().for_each(|i| sum.add(self.sums[*i as usize]));
        sum
    }

    fn best_split(&self, rows: &[u32]) -> Option<Split> {
        let width = self.rows.width;
        let mut bins = vec![[Sum::default(); super::table::BINS]; width];
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

    /// The forest's addition to the logit of a row.
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

    /// Number of trees.
    pub fn trees(&self) -> usize {
        self.roots.len()
    }

    /// Little-endian: number of nodes, of trees, the nodes, the roots.
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

    /// Reads what [`Forest::encode`] wrote, for rows of `width` features.
    ///
    /// # Errors
    /// [`Malformed`], also when a walk could leave the nodes.
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
