//! Rows with noise that is integrated out: each becomes several, at fixed nodes in the cells of its dequantised columns and
//! along the columns of whose atoms it is at one.
//!
//! Of a grid with very many steps a cell is so narrow that log p hardly bends in it, and its middle with both faces tells as
//! much as many places. Where several cells are narrow, each has its own faces beside the middle of all, and their corners show
//! what bends across. What these values say of their own error decides: where that is more than a little, two more places are
//! taken in each, and then all nodes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::cells::{Axis, Cells, NARROW, narrow};
use crate::data::{Grid, OwnMaps, Preprocessing};
use crate::mixture::log_sum_exp;

/// Width of a cell, by the normal shape of its column, up to which few nodes are tried: that of a column in 300 steps or so.
const NARROW_WIDTH: f64 = 0.02;
/// Most narrow cells whose corners are fewer than all nodes.
const MOST_NARROW: usize = 7;
/// Most error, in nats, that a few nodes may expect of themselves.
const MOST_ERROR: f64 = 1e-4;

/// How many nodes are taken, from the fewest to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Effort {
    /// In narrow cells as many as [`NARROW`] has in this place.
    Narrow(usize),
    All,
}

impl Effort {
    /// One after the other, for the rows that want more.
    pub const IN_TURN: [Self; 3] = [Self::Narrow(0), Self::Narrow(1), Self::All];
}

/// How the rows of a model are spread.
pub(super) struct Spreads<'a> {
    preprocessing: &'a Preprocessing,
    /// Columns on a grid, the narrow ones last.
    grids: Vec<(usize, Grid)>,
    narrow: usize,
    /// Own maps of the columns with atoms, in the order of the preprocessing's atoms.
    own: Vec<OwnMaps>,
    /// The nodes of each set of columns that rows have been at atoms of, few of them or all.
    nodes: Vec<Nodes>,
    places: HashMap<(Vec<bool>, Effort), usize>,
}

/// Where the density of a row is taken.
struct Nodes {
    moves: Vec<Move>,
    /// Numbers for the moves, row-major [K, M]; the same for every row.
    numbers: Vec<f64>,
    /// ln of the weights, with the size of cells and the slopes of own maps: of each of K nodes, or of every group of
    /// [`group`] nodes, where a middle comes before the places beside it.
    log_weights: Vec<f64>,
    narrow: usize,
    /// The places beside the middle of a narrow cell.
    beside: &'static [f64],
}

/// What a node does to a column of a row.
enum Move {
    /// Adds a number to the value of a grid.
    Into(usize, Grid),
    /// Puts a number in its place.
    To(usize),
}

/// Rows that stand for others.
pub(super) struct Spread<'a> {
    /// Row-major [Σ K, D].
    pub rows: Vec<f64>,
    /// The nodes of each row that is stood for.
    of: Vec<&'a Nodes>,
}

impl<'a> Spreads<'a> {
    /// Those of a model with this preprocessing, which has few nodes in narrow cells or, where these are not `few`, never.
    pub(super) fn new(preprocessing: &'a Preprocessing, few: bool) -> Self {
        let is_narrow = |(column, grid): &(usize, Grid)| {
            few && preprocessing.cell_width(*column, grid.step) <= NARROW_WIDTH
        };
        let (narrow, mut grids): (Vec<_>, Vec<_>) =
            preprocessing.dequantized().into_iter().partition(is_narrow);
        grids.extend(&narrow);
        let own = preprocessing.own_maps();
        let narrow = narrow.len();
        Self { preprocessing, grids, narrow, own, nodes: Vec::new(), places: HashMap::new() }
    }

    /// Whether every row stands for itself.
    pub(super) fn are_none(&self) -> bool {
        self.grids.is_empty() && self.own.is_empty()
    }

    /// Most rows that one becomes.
    pub(super) fn most_nodes(&self) -> usize {
        // Few nodes are taken where they are fewer.
        Cells::most(self.grids.len() + self.own.len())
    }

    /// `rows`, row-major [B, D], spread over as many nodes as `effort` says.
    pub(super) fn of(&mut self, rows: &[f64], effort: Effort) -> Spread<'_> {
        let features = self.preprocessing.domains.len();
        let places: Vec<usize> = rows.chunks_exact(features).map(|row| self.place(row, effort)).collect();
        let of: Vec<&Nodes> = places.into_iter().map(|place| &self.nodes[place]).collect();
        let count: usize = of.iter().map(|nodes| nodes.count()).sum();
        let mut spread = Vec::with_capacity(count * features);
        for (row, nodes) in rows.chunks_exact(features).zip(&of) {
            nodes.spread(row, &mut spread);
        }
        Spread { rows: spread, of }
    }

    /// `rows`, row-major [B, D], in the middle of their cells, and at the median of its other rows where a row is at an atom.
    pub(super) fn middles(&self, rows: &[f64]) -> Vec<f64> {
        let mut rows = rows.to_vec();
        for row in rows.chunks_exact_mut(self.preprocessing.domains.len()) {
            self.grids.iter().for_each(|&(column, grid)| row[column] += 0.5 * grid.step);
            for (atoms, own) in self.preprocessing.atoms.iter().zip(&self.own) {
                if atoms.at(row).is_some() {
                    row[atoms.column] = own.place(0.0).0;
                }
            }
        }
        rows
    }

    /// The place of the nodes for `row` `[D]`.
    fn place(&mut self, row: &[f64], effort: Effort) -> usize {
        let effort = if self.narrow > 0 { effort } else { Effort::All };
        let at: Vec<bool> = self.preprocessing.atoms.iter().map(|atoms| atoms.at(row).is_some()).collect();
        let entry = match self.places.entry((at, effort)) {
            Entry::Occupied(entry) => return *entry.get(),
            Entry::Vacant(entry) => entry,
        };
        let place = self.nodes.len();
        let own: Vec<&OwnMaps> =
            self.own.iter().zip(&entry.key().0).filter(|(_, at)| **at).map(|(own, _)| own).collect();
        // An atom has no cell.
        let is_in_cell = |(column, _): &&(usize, Grid)| own.iter().all(|own| own.column != *column);
        let grids: Vec<(usize, Grid)> = self.grids.iter().filter(is_in_cell).copied().collect();
        let first = self.grids.len() - self.narrow;
        let narrow = self.grids[first..].iter().filter(is_in_cell).count();
        let all = Nodes::new(&grids, &own, 0, &[]);
        let some = match effort {
            Effort::Narrow(place) if narrow <= MOST_NARROW => {
                Some(Nodes::new(&grids, &own, narrow, NARROW[place]))
            }
            _ => None,
        };
        self.nodes.push(some.filter(|some| some.count() < all.count()).unwrap_or(all));
        *entry.insert(place)
    }
}

impl Nodes {
    /// Nodes in the cells of `grids`, of which the last `narrow` are to have few, their middle and those `beside` it, and along
    /// the columns of `own`.
    fn new(grids: &[(usize, Grid)], own: &[&OwnMaps], narrow: usize, beside: &'static [f64]) -> Self {
        let (wide, thin) = grids.split_at(grids.len() - narrow);
        let axes = [vec![Axis::Cell; wide.len()], vec![Axis::Line; own.len()]].concat();
        let Cells { offsets, mut log_weights } = Cells::new(&axes, narrow);
        let mut numbers =
            Vec::with_capacity(log_weights.len() * group(narrow, beside) * (axes.len() + narrow));
        let middle: Vec<f64> = thin.iter().map(|(_, grid)| 0.5 * grid.step).collect();
        for (node, log_weight) in log_weights.iter_mut().enumerate() {
            let (cells, lines) = offsets[node * axes.len()..][..axes.len()].split_at(wide.len());
            // A cell's probability is its mean density times its size.
            grids.iter().for_each(|(_, grid)| *log_weight += grid.step.ln());
            let cells = cells.iter().zip(wide).map(|(offset, (_, grid))| offset * grid.step);
            let places: Vec<(f64, f64)> = lines.iter().zip(own).map(|(z, own)| own.place(*z)).collect();
            places.iter().for_each(|(_, log_slope)| *log_weight += log_slope);
            let others: Vec<f64> = cells.chain(places.iter().map(|(x, _)| *x)).collect();
            numbers.extend(others.iter().chain(&middle));
            for (place, (_, grid)) in thin.iter().enumerate() {
                for offset in beside {
                    numbers.extend(others.iter().chain(&middle));
                    let moved = numbers.len() - narrow + place;
                    numbers[moved] = offset * grid.step;
                }
            }
            for corner in 0..corners(narrow) {
                let side =
                    |(place, (_, grid)): (usize, &(usize, Grid))| (corner >> place & 1) as f64 * grid.step;
                numbers.extend(others.iter().copied().chain(thin.iter().enumerate().map(side)));
            }
        }
        let into = |&(column, grid): &(usize, Grid)| Move::Into(column, grid);
        let lines = own.iter().map(|own| Move::To(own.column));
        let moves = wide.iter().map(into).chain(lines).chain(thin.iter().map(into)).collect();
        Self { moves, numbers, log_weights, narrow, beside }
    }

    /// Rows that one becomes.
    fn count(&self) -> usize {
        self.log_weights.len() * group(self.narrow, self.beside)
    }

    /// Appends the rows that `row` `[D]` becomes.
    fn spread(&self, row: &[f64], rows: &mut Vec<f64>) {
        let count = self.moves.len();
        for node in 0..self.count() {
            let start = rows.len();
            rows.extend_from_slice(row);
            for (number, to) in self.numbers[node * count..][..count].iter().zip(&self.moves) {
                match *to {
                    Move::Into(column, grid) => rows[start + column] = grid.nearest(row[column]) + number,
                    Move::To(column) => rows[start + column] = *number,
                }
            }
        }
    }

    /// ln Σ weight · exp(term) over `terms` `[K]`; `None` where p bends too much in a narrow cell for so few of them.
    fn log_sum(&self, terms: &[f64]) -> Option<f64> {
        let groups = || terms.chunks_exact(group(self.narrow, self.beside)).zip(&self.log_weights);
        let middles: Vec<f64> = groups().map(|(terms, weight)| terms[0] + weight).collect();
        let middle = log_sum_exp(&middles);
        if self.narrow == 0 {
            return Some(middle);
        }
        let mut changes = vec![0.0; self.narrow];
        let mut error = 0.0;
        for (terms, weight) in groups() {
            let parts: Vec<f64> = terms.iter().map(|term| (term + weight - middle).exp()).collect();
            let (own, corners) = parts[1..].split_at(self.beside.len() * self.narrow);
            let mut across = 0.0;
            for (change, beside) in changes.iter_mut().zip(own.chunks_exact(self.beside.len())) {
                let (part, own_error) = narrow(parts[0], beside);
                *change += part;
                error += own_error;
                across += 0.5 * (beside[0] + beside[beside.len() - 1]) - parts[0];
            }
            // Of a quadratic the mean over the corners is what its changes along the axes add up to.
            if !corners.is_empty() {
                error += (corners.iter().sum::<f64>() / corners.len() as f64 - parts[0] - across).abs();
            }
        }
        // The changes of independent columns multiply.
        let change: f64 = changes.iter().sum();
        let squares: f64 = changes.iter().map(|change| change * change).sum();
        let together = 0.5 * (change * change - squares);
        error += together.abs();
        (error <= MOST_ERROR && change.is_finite()).then(|| middle + (change + together).ln_1p())
    }
}

/// How many nodes few ones are with so many narrow cells: their middle, the places `beside` it and the corners of several.
fn group(narrow: usize, beside: &[f64]) -> usize {
    1 + beside.len() * narrow + corners(narrow)
}

/// Corners of the product of so many cells, those of a single one being among its places.
fn corners(narrow: usize) -> usize {
    if narrow > 1 { 1 << narrow } else { 0 }
}

impl Spread<'_> {
    /// ln Σ weight · exp(term) of each row that is stood for, from the terms of those that stand for it; `None` where it wants
    /// more of them.
    pub(super) fn log_sums(&self, terms: &[f64]) -> impl Iterator<Item = Option<f64>> {
        let mut first = 0;
        self.of.iter().map(move |nodes| {
            let own = &terms[first..first + nodes.count()];
            first += own.len();
            nodes.log_sum(own)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Atoms, ColumnDomain, Standardiser};

    const STEP: f64 = 0.01;
    const GRID: Grid = Grid { step: STEP, offset: 0.0 };

    /// Three columns in steps of a hundredth, the third of which has few where it has steps at all, and an indicator of an atom
    /// of the first.
    fn preprocessing(of_third: Option<Grid>) -> Preprocessing {
        let units = Standardiser { mean: vec![0.0; 4], std: vec![1.0, 1.0, 0.02, 1.0] };
        let on_grid = ColumnDomain { grid: Some(GRID), ..ColumnDomain::default() };
        Preprocessing {
            domains: vec![
                on_grid,
                on_grid,
                ColumnDomain { grid: of_third, ..on_grid },
                ColumnDomain::indicator(),
            ],
            context: 1,
            atoms: vec![Atoms { column: 0, values: vec![-9.0], indicator: 3 }],
            ..Preprocessing::from(units)
        }
    }

    /// ln of the sum for a row, and of how many nodes, with each effort in turn, where log p is `log_density`.
    fn sums(
        of_third: Option<Grid>,
        row: [f64; 4],
        log_density: impl Fn(&[f64]) -> f64,
    ) -> [(Option<f64>, usize); 3] {
        let preprocessing = preprocessing(of_third);
        let mut spreads = Spreads::new(&preprocessing, true);
        Effort::IN_TURN.map(|effort| {
            let spread = spreads.of(&row, effort);
            let terms: Vec<f64> = spread.rows.chunks_exact(4).map(&log_density).collect();
            (spread.log_sums(&terms).next().expect("a row"), terms.len())
        })
    }

    /// ln of a density of a column whose slope changes from −`slope` to `slope` at `bend`.
    fn bent(x: f64, slope: f64, bend: f64) -> f64 {
        slope * (x - bend).abs() - 0.5 * x * x
    }

    /// ln of the integral of exp `log_density` over the cell of `x`.
    fn integral(x: f64, log_density: impl Fn(f64) -> f64) -> f64 {
        const PARTS: u32 = 2000;
        let part = |part: u32| log_density(x + STEP * (f64::from(part) + 0.5) / f64::from(PARTS)).exp();
        (STEP * (0..PARTS).map(part).sum::<f64>() / f64::from(PARTS)).ln()
    }

    #[test]
    fn few_nodes_in_narrow_cells_give_the_integral_or_want_more() {
        let mut taken = [0; 2];
        for slope in [0.0f64, 0.02, 0.1, 1.0, -2.0, 5.0, 20.0, 200.0] {
            for place in 0..30 {
                let bend = 1.0 + STEP * f64::from(place) / 29.0;
                let wide = |x: f64| -0.5 * (x / 0.02).powi(2);
                let density =
                    |row: &[f64]| bent(row[0], slope, bend) + bent(row[1], slope, bend) + wide(row[2]);
                let sums = sums(Some(GRID), [1.0, 1.0, 0.03, 0.0], density);
                // The third column has all of its nodes.
                assert_eq!(sums.map(|(_, count)| count), [6 * 9, 6 * 13, 6 * 36]);
                let of_bent = integral(1.0, |x| bent(x, slope, bend));
                let want = 2.0 * of_bent + integral(0.03, wide);
                // A smooth density is as good as exact.
                let is_smooth = slope == 0.0 || place % 29 == 0;
                let tolerance = if is_smooth { 1e-6 } else { 1.02 * MOST_ERROR };
                for (few, taken) in sums[..2].iter().map(|(few, _)| *few).zip(&mut taken) {
                    assert!(
                        few.is_none_or(|few| (few - want).abs() < tolerance),
                        "{slope} {place}: {few:?}, {want}"
                    );
                    assert!(few.is_some() || slope.abs() > 0.02, "{slope} {place}");
                    assert!(few.is_none() || slope < 100.0, "{slope} {place}");
                    *taken += usize::from(few.is_some());
                }
            }
        }
        assert!(taken[0] > 60 && taken[1] > taken[0] + 10 && taken[1] < 200, "{taken:?} of 240");
    }

    #[test]
    fn what_bends_across_two_narrow_cells_is_seen_at_their_corners() {
        let (mut taken, mut refused) = (0, 0);
        for slope in [0.02, 0.05, 0.5, 3.0] {
            for place in 0..20 {
                // The sum of both columns from the middle of a face to the corner.
                let bend = 2.0 + STEP * (1.5 + f64::from(place) / 40.0);
                let density = |row: &[f64]| slope * (row[0] + row[1] - bend).max(0.0);
                let depth = 2.0 + 2.0 * STEP - bend;
                // ∫ 1 + slope · (height over the bend) over the triangle that is left, to first order.
                let want = (STEP * STEP + slope * depth.powi(3) / 6.0).ln();
                let tolerance = MOST_ERROR + (slope * STEP).powi(2);
                for (few, _) in &sums(None, [1.0, 1.0, 0.03, 0.0], density)[..2] {
                    match few {
                        Some(few) => {
                            assert!((few - want).abs() < tolerance, "{slope} {place}: {few} {want}");
                        }
                        None => refused += 1,
                    }
                    taken += usize::from(few.is_some());
                }
            }
        }
        assert!(taken > 20 && refused > 20, "{taken} {refused}");
    }

    #[test]
    fn curves_along_two_narrow_cells_may_add_or_multiply() {
        for (k, is_taken) in [(0.05, true), (0.3, false)] {
            let density = |row: &[f64]| {
                let square = |x: f64| k * ((x - 1.0) / STEP - 0.5).powi(2);
                (square(row[0]) + square(row[1])).ln_1p()
            };
            let (few, _) = sums(None, [1.0, 1.0, 0.03, 0.0], density)[1];
            let want = (STEP * STEP * (1.0 + k / 6.0)).ln();
            assert!(
                few.is_some() == is_taken && few.is_none_or(|few| (few - want).abs() < MOST_ERROR),
                "{few:?}"
            );
        }
    }

    #[test]
    fn a_row_at_an_atom_has_few_nodes_in_its_other_cells() {
        let normal = |row: &[f64]| -0.5 * (row[0].powi(2) + row[1].powi(2) + (row[2] / 0.02).powi(2));
        let [few, more, all] = sums(None, [-9.0, 1.0, 0.03, 1.0], normal);
        assert_eq!([few.1, more.1], [24 * 3, 24 * 5]);
        let all = all.0.expect("all nodes");
        for few in [few.0, more.0] {
            assert!((few.expect("narrow") - all).abs() < 1e-6, "{few:?} {all}");
        }
    }

    #[test]
    fn nothing_is_nothing_and_not_a_number_stays_so() {
        for term in [f64::NEG_INFINITY, f64::NAN] {
            let [few, more, all] = sums(Some(GRID), [1.0, 1.0, 0.03, 0.0], |_| term).map(|(sum, _)| sum);
            assert!(few.is_none() && more.is_none(), "{few:?} {more:?}");
            assert!(!all.expect("all nodes").is_finite(), "{all:?}");
        }
    }
}
