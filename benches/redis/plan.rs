//! Placement of namespaces in a fleet too large for replicas that hold everything. Sizes of namespaces follow Zipf's law.
//! Each namespace is on a few replicas, chosen by consistent hashing with bounded loads, as a load balancer would choose
//! by the namespace of a request. Entries in Redis follow the slots of their partitions.

/// Bytes of an entry in a replica and in Redis, and entries loaded per second, as this bench measures them with
/// 1,000,000 entries.
const REPLICA_BYTES: f64 = 1904.0;
const REDIS_BYTES: f64 = 3066.0;
const LOADED_PER_SECOND: f64 = 34_000.0;

const NAMESPACES: usize = 10_000;
/// Number of replicas that hold each namespace.
const COPIES: usize = 2;
/// Number of points of each replica on the ring.
const POINTS: u64 = 128;
/// Largest load of a replica, as a multiple of the mean.
const LOAD_MAX: f64 = 1.25;
/// Entries, replicas, exponent of Zipf's law.
const FLEETS: [(f64, u64, f64); 6] =
    [(1e7, 4, 0.8), (1e7, 4, 1.0), (1e8, 12, 0.8), (1e8, 12, 1.0), (1e8, 24, 0.8), (1e8, 24, 1.0)];
const MASTERS: [u16; 5] = [3, 6, 9, 12, 24];
const SLOTS: u16 = 16384;

/// Replicas of each namespace.
type Placement = Vec<Vec<u64>>;

pub fn print() {
    println!("{NAMESPACES} namespaces, {COPIES} replicas for each, at most {LOAD_MAX} times the mean");
    println!("entries   replicas zipf   GB mean   max  max/mean   join  leave (of copies moved)   load");
    for (entries, replicas, exponent) in FLEETS {
        let sizes = zipf(entries, exponent);
        let all: Vec<u64> = (0..replicas).collect();
        let placed = place(&sizes, &all);
        let loads = loads(&sizes, &placed, replicas);
        let (mean, max) =
            (COPIES as f64 * entries / replicas as f64, loads.iter().copied().fold(0.0, f64::max));
        let joined = moved(&sizes, &placed, &place(&sizes, &(0..=replicas).collect::<Vec<_>>()));
        let left = moved(&sizes, &placed, &place(&sizes, &all[1..]));
        let gigabytes = |entries: f64| entries * REPLICA_BYTES / 1e9;
        println!(
            "{entries:>9.0e} {replicas:>6} {exponent:>5.1} {:>9.1} {:>5.1} {:>9.2} {joined:>6.2} {left:>6.2} {:>24.0} s",
            gigabytes(mean),
            gigabytes(max),
            max / mean,
            max / LOADED_PER_SECOND
        );
    }
    println!("masters   partitions max/mean   GB mean and max with 1e8 entries");
    for masters in MASTERS {
        let most = most_partitions(masters);
        let (mean, worst) = (256.0 / f64::from(masters), f64::from(most));
        let gigabytes = |partitions: f64| partitions / 256.0 * 1e8 * REDIS_BYTES / 1e9;
        println!("{masters:>7} {:>21.2} {:>15.0} {:.0}", worst / mean, gigabytes(mean), gigabytes(worst));
    }
}

/// Returns the number of entries of each namespace.
fn zipf(entries: f64, exponent: f64) -> Vec<f64> {
    let weights: Vec<f64> = (1..=NAMESPACES).map(|rank| (rank as f64).powf(-exponent)).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| entries * weight / sum).collect()
}

/// Places the namespaces from the largest to the smallest, each on the next replicas on the ring with room.
fn place(sizes: &[f64], replicas: &[u64]) -> Placement {
    let mut ring: Vec<(u64, u64)> = replicas
        .iter()
        .flat_map(|replica| {
            (0..POINTS).map(move |point| {
                (hash(&[b"replica", &replica.to_le_bytes(), &point.to_le_bytes()]), *replica)
            })
        })
        .collect();
    ring.sort_unstable();
    let total: f64 = sizes.iter().sum();
    let most = LOAD_MAX * COPIES as f64 * total / replicas.len() as f64;
    let mut loads = vec![0.0; replicas.iter().max().map_or(0, |last| *last as usize + 1)];
    let put = |(namespace, size): (usize, &f64)| {
        let from = hash(&[b"namespace", &namespace.to_le_bytes()]);
        let first = ring.partition_point(|(at, _)| *at < from);
        let mut chosen: Vec<u64> = Vec::with_capacity(COPIES);
        // The second round ignores the limit, for large namespaces that fit nowhere.
        for (step, (_, replica)) in ring[first..].iter().chain(&ring).chain(&ring).enumerate() {
            let has_room = loads[*replica as usize] + size <= most || step >= ring.len();
            if chosen.len() < COPIES && !chosen.contains(replica) && has_room {
                loads[*replica as usize] += size;
                chosen.push(*replica);
            }
        }
        chosen
    };
    sizes.iter().enumerate().map(put).collect()
}

fn hash(parts: &[&[u8]]) -> u64 {
    let hash = blake3::hash(&parts.concat());
    hash.as_bytes()[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn loads(sizes: &[f64], placed: &Placement, replicas: u64) -> Vec<f64> {
    let mut loads = vec![0.0; replicas as usize];
    for (size, replicas) in sizes.iter().zip(placed) {
        replicas.iter().for_each(|replica| loads[*replica as usize] += size);
    }
    loads
}

/// Returns the share of copies, by entries, that are on a replica which did not hold them before.
fn moved(sizes: &[f64], before: &Placement, after: &Placement) -> f64 {
    let new_copies =
        |(before, after): (&Vec<u64>, &Vec<u64>)| after.iter().filter(|r| !before.contains(r)).count();
    let moved: f64 = sizes
        .iter()
        .zip(before.iter().zip(after))
        .map(|(size, places)| size * new_copies(places) as f64)
        .sum();
    moved / (COPIES as f64 * sizes.iter().sum::<f64>())
}

/// Returns the number of partitions of the fullest master if the masters share the slots in equal ranges.
fn most_partitions(masters: u16) -> u32 {
    let mut partitions = vec![0; usize::from(masters)];
    for first in 0..=u8::MAX {
        // The hash tag of every name is the first byte of the cache key.
        let tag = format!("{first:02x}");
        partitions[usize::from(slot(&tag)) * usize::from(masters) / usize::from(SLOTS)] += 1;
    }
    partitions.into_iter().max().unwrap_or_default()
}

/// Returns the slot that Redis Cluster computes: CRC16 (XMODEM) of the hash tag.
fn slot(tag: &str) -> u16 {
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(
            crc ^ u16::from(byte) << 8,
            |crc, _| if crc & 0x8000 > 0 { crc << 1 ^ 0x1021 } else { crc << 1 },
        )
    });
    crc % SLOTS
}
