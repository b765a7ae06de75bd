//! Kernel densities of many widths, and how much of each makes rows likeliest that it has not seen.
//! It stands between a [`Sample`] and the curve: no single width fits a column that is smooth here and a spike there.

use super::Kernel;
use super::sample::Sample;

/// Widths in units of the reference rule's.
const FACTORS: [f64; 5] = [1.2, 0.6, 0.3, 0.15, 0.075];
/// Widths that follow the density: rows on either side that a stretch holds, in units of the root of all rows.
const NEIGHBOURS: [f64; 2] = [0.25, 1.0];
/// Widest kernel in units of the reference rule's width, where widths follow the density.
const WIDEST: f64 = 1.5;
/// Distance in widths beyond which a kernel counts nothing.
const REACH: f64 = 6.0;
/// Width of the normal density that stands for what no row has shown, in deviations, and rows that it is given to begin
/// with. It keeps the curve from falling steeply where the rows end.
const BROAD: f64 = 2.0;
const BROAD_ROWS: f64 = 2.0;
/// The farthest row lies at most as many of its widths out.
const BROAD_REACH: f64 = 4.0;
/// Rounds of expectation and maximisation.
const ROUNDS: usize = 100;
/// Mass below which a density is left out.
const LEAST_SHARE: f64 = 1e-3;

const ROOT_TAU: f64 = 2.506_628_274_631_000_5;

/// Kernel densities with their parts of the mass.
#[derive(Debug)]
pub(super) struct Stack {
    /// Widths of the kernels of each density, group by group, and its part.
    densities: Vec<(Vec<f64>, f64)>,
    broad: Kernel,
    /// Logarithm of the density at each group under the other rows.
    pub left_out: Vec<f64>,
}

impl Stack {
    /// The parts by which rows are likeliest under the density of the other rows: a mixture whose components are known
    /// (Smyth and Wolpert, "Linearly combining density estimators via stacking", 1999). Equal values count as one row, and all of
    /// them are left out together, because a spike would otherwise be the better the narrower it is.
    pub fn fit(sample: &Sample) -> Self {
        let mut densities = widths(sample);
        let groups = &sample.groups;
        let farthest = [&groups[0], &groups[groups.len() - 1]].map(|group| (group.place - sample.mean).abs());
        let width = (BROAD * sample.std).max(farthest[0].max(farthest[1]) / BROAD_REACH);
        let broad = Kernel { place: sample.mean, width, share: 0.0 };
        let mut unseen: Vec<Vec<f64>> = densities.iter().map(|widths| left_out(sample, widths)).collect();
        unseen.push(groups.iter().map(|group| broad.density(group.place)).collect());
        let shares = mixed(sample, &unseen);
        let density = |group: usize| {
            shares.iter().zip(&unseen).map(|(share, densities)| share * densities[group]).sum::<f64>()
        };
        let left_out = (0..groups.len()).map(|group| density(group).max(f64::MIN_POSITIVE).ln()).collect();
        let mut stack: Vec<(Vec<f64>, f64)> = densities.drain(..).zip(shares.iter().copied()).collect();
        stack.retain(|(_, share)| *share >= LEAST_SHARE);
        let broad_share = shares[shares.len() - 1];
        let total = broad_share + stack.iter().map(|(_, share)| share).sum::<f64>();
        stack.iter_mut().for_each(|(_, share)| *share /= total);
        Self { densities: stack, broad: Kernel { share: broad_share / total, ..broad }, left_out }
    }

    /// The kernels of all densities; their shares sum to 1.
    pub fn kernels(&self, sample: &Sample) -> Vec<Kernel> {
        let of = |(widths, part): &(Vec<f64>, f64)| -> Vec<Kernel> {
            let groups = sample.groups.iter().zip(widths);
            groups
                .map(|(group, &width)| Kernel { place: group.place, width, share: part * group.share })
                .collect()
        };
        self.densities.iter().flat_map(of).chain([self.broad]).collect()
    }
}

impl Kernel {
    fn density(&self, at: f64) -> f64 {
        let from = (at - self.place) / self.width;
        (-0.5 * from * from).exp() / (self.width * ROOT_TAU)
    }
}

/// The widths of each density's kernels, group by group.
fn widths(sample: &Sample) -> Vec<Vec<f64>> {
    // Scott's rule (1992) for a normal density.
    let reference = 1.06 * sample.spread * sample.count.powf(-0.2);
    // A group's own variance is part of its kernel's.
    let width = |wanted: f64, variance: f64| (wanted.max(sample.least_width).powi(2) + variance).sqrt();
    let variances = || sample.groups.iter().map(|group| group.variance);
    let equal = |factor: &f64| variances().map(|variance| width(factor * reference, variance)).collect();
    let mut all: Vec<Vec<f64>> = FACTORS.iter().map(equal).collect();
    for neighbours in NEIGHBOURS {
        let stretches = sample.stretches((neighbours * sample.count.sqrt()).max(3.0));
        let log = |(stretch, group): (&f64, &super::sample::Group)| {
            group.share * stretch.max(sample.least_width).ln()
        };
        let middle = stretches.iter().zip(&sample.groups).map(log).sum::<f64>().exp();
        all.extend(FACTORS.iter().map(|factor| {
            let wanted = stretches
                .iter()
                .map(|stretch| (factor * reference * stretch / middle).min(WIDEST * reference));
            wanted.zip(variances()).map(|(wanted, variance)| width(wanted, variance)).collect::<Vec<f64>>()
        }));
    }
    all
}

/// The density at each group of the kernels with these `widths`, less what a row and those equal to it add themselves.
fn left_out(sample: &Sample, widths: &[f64]) -> Vec<f64> {
    let groups = &sample.groups;
    let mut density = vec![0.0; groups.len()];
    for (index, (group, &width)) in groups.iter().zip(widths).enumerate() {
        let height = group.share / (width * ROOT_TAU);
        density[index] += height * (1.0 - 1.0 / group.values);
        let mut add = |other: usize| {
            let from = (groups[other].place - group.place) / width;
            density[other] += height * (-0.5 * from * from).exp();
            from.abs() < REACH
        };
        let _ = (index + 1..groups.len()).all(&mut add);
        let _ = (0..index).rev().all(&mut add);
    }
    // The others' mass is 1.
    let rest = groups.iter().map(|group| 1.0 - group.share / group.values);
    density.iter().zip(rest).map(|(density, rest)| density / rest.max(f64::EPSILON)).collect()
}

/// The shares of a mixture whose components have the densities `unseen` at each group; the last one is the broad one.
fn mixed(sample: &Sample, unseen: &[Vec<f64>]) -> Vec<f64> {
    let rows: Vec<f64> =
        sample.groups.iter().map(|group| sample.count * group.share * group.values / group.rows).collect();
    let mut shares = vec![1.0 / unseen.len() as f64; unseen.len()];
    let mut sums = vec![0.0; sample.groups.len()];
    for _ in 0..ROUNDS {
        sums.fill(0.0);
        for (share, densities) in shares.iter().zip(unseen) {
            sums.iter_mut().zip(densities).for_each(|(sum, density)| *sum += share * density);
        }
        sums.iter_mut().zip(&rows).for_each(|(sum, row)| *sum = row / sum.max(f64::MIN_POSITIVE));
        for (share, densities) in shares.iter_mut().zip(unseen) {
            *share *= densities.iter().zip(&sums).map(|(density, factor)| density * factor).sum::<f64>();
        }
        if let Some(broad) = shares.last_mut() {
            *broad += BROAD_ROWS;
        }
        let total = shares.iter().sum::<f64>();
        shares.iter_mut().for_each(|share| *share /= total);
    }
    shares
}
