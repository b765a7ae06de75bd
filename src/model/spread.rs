//! Rows with noise that is integrated out: each becomes several, at fixed nodes in the cells of its dequantised columns and
//! along the columns of whose atoms it is at one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::cells::{Axis, Cells};
use crate::data::{Grid, OwnMaps, Preprocessing};
use crate::mixture::log_sum_exp;

/// How the rows of a model are spread.
pub(super) struct Spreads<'a> {
    preprocessing: &'a Preprocessing,
    /// Columns on a grid.
    grids: Vec<(usize, Grid)>,
    /// Own maps of the columns with atoms, in the order of the preprocessing's atoms.
    own: Vec<OwnMaps>,
    /// The nodes of each set of columns that rows have been at atoms of.
    nodes: Vec<Nodes>,
    places: HashMap<Vec<bool>, usize>,
}

/// Where the density of a row is taken.
struct Nodes {
    moves: Vec<Move>,
    /// Numbers for the moves, row-major [K, M]; the same for every row.
    numbers: Vec<f64>,
    /// ln of the weights `[K]`, with the size of cells and the slopes of own maps.
    log_weights: Vec<f64>,
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
    pub(super) fn new(preprocessing: &'a Preprocessing) -> Self {
        let (grids, own) = (preprocessing.dequantized(), preprocessing.own_maps());
        Self { preprocessing, grids, own, nodes: Vec::new(), places: HashMap::new() }
    }

    /// Whether every row stands for itself.
    pub(super) fn are_none(&self) -> bool {
        self.grids.is_empty() && self.own.is_empty()
    }

    /// Most rows that one becomes.
    pub(super) fn most_nodes(&self) -> usize {
        Cells::most(self.grids.len() + self.own.len())
    }

    /// `rows`, row-major [B, D], spread.
    pub(super) fn of(&mut self, rows: &[f64]) -> Spread<'_> {
        let features = self.preprocessing.domains.len();
        let places: Vec<usize> = rows.chunks_exact(features).map(|row| self.place(row)).collect();
        let of: Vec<&Nodes> = places.into_iter().map(|place| &self.nodes[place]).collect();
        let count: usize = of.iter().map(|nodes| nodes.log_weights.len()).sum();
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
    fn place(&mut self, row: &[f64]) -> usize {
        let at: Vec<bool> = self.preprocessing.atoms.iter().map(|atoms| atoms.at(row).is_some()).collect();
        let entry = match self.places.entry(at) {
            Entry::Occupied(entry) => return *entry.get(),
            Entry::Vacant(entry) => entry,
        };
        let place = self.nodes.len();
        let own: Vec<&OwnMaps> =
            self.own.iter().zip(entry.key()).filter(|(_, at)| **at).map(|(own, _)| own).collect();
        self.nodes.push(Nodes::new(&self.grids, &own));
        *entry.insert(place)
    }
}

impl Nodes {
    /// Nodes in the cells of `grids`, but for columns of `own`, and along the latter.
    fn new(grids: &[(usize, Grid)], own: &[&OwnMaps]) -> Self {
        let grids: Vec<(usize, Grid)> =
            grids.iter().copied().filter(|(column, _)| own.iter().all(|own| own.column != *column)).collect();
        let axes = [vec![Axis::Cell; grids.len()], vec![Axis::Line; own.len()]].concat();
        let Cells { offsets: mut numbers, mut log_weights } = Cells::new(&axes);
        for (node, log_weight) in log_weights.iter_mut().enumerate() {
            let numbers = &mut numbers[node * axes.len()..][..axes.len()];
            let (cells, lines) = numbers.split_at_mut(grids.len());
            for (number, (_, grid)) in cells.iter_mut().zip(&grids) {
                // A cell's probability is its mean density times its size.
                *log_weight += grid.step.ln();
                *number *= grid.step;
            }
            for (number, own) in lines.iter_mut().zip(own) {
                let (x, log_slope) = own.place(*number);
                *log_weight += log_slope;
                *number = x;
            }
        }
        let moves = grids.into_iter().map(|(column, grid)| Move::Into(column, grid));
        let moves = moves.chain(own.iter().map(|own| Move::To(own.column))).collect();
        Self { moves, numbers, log_weights }
    }

    /// Appends the rows that `row` `[D]` becomes.
    fn spread(&self, row: &[f64], rows: &mut Vec<f64>) {
        let count = self.moves.len();
        for node in 0..self.log_weights.len() {
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
}

impl Spread<'_> {
    /// ln Σ weight · exp(term) of each row that is stood for, from the terms of those that stand for it.
    pub(super) fn log_sums(&self, terms: &[f64]) -> impl Iterator<Item = f64> {
        let mut first = 0;
        self.of.iter().map(move |nodes| {
            let own = &terms[first..first + nodes.log_weights.len()];
            first += own.len();
            let weighted: Vec<f64> =
                own.iter().zip(&nodes.log_weights).map(|(term, weight)| term + weight).collect();
            log_sum_exp(&weighted)
        })
    }
}
