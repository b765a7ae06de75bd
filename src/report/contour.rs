//! Highest-density regions of a gridded density, and the contour lines around them by marching squares.

use std::collections::BTreeMap;

use super::DensityGrid;

/// For each of `masses` (in (0, 1)) the log-density above which lies that share of the grid's probability: the
/// border of the highest-density region. Cells that are not finite have no part in it.
///
/// Hyndman, "Computing and graphing highest density regions", The American Statistician 50, 1996.
pub(super) fn levels(log_density: &[f64], masses: &[f64]) -> Vec<f64> {
    let mut cells: Vec<f64> = log_density.iter().copied().filter(|value| value.is_finite()).collect();
    cells.sort_unstable_by(|a, b| b.total_cmp(a));
    let Some(&highest) = cells.first() else { return Vec::new() };
    // The mass of each cell and those above it, relative to the highest, so that no density over- or underflows.
    let reached: Vec<f64> = cells
        .iter()
        .scan(0.0, |sum, value| {
            *sum += (value - highest).exp();
            Some(*sum)
        })
        .collect();
    let total = reached[reached.len() - 1];
    masses
        .iter()
        .map(|mass| cells[reached.partition_point(|&sum| sum < mass * total).min(cells.len() - 1)])
        .collect()
}

/// The lines along which `grid` crosses `level`, each a run of (x, y) in the grid's units; a closed line ends at its
/// first point. Squares with a corner that is NaN are left out; −∞ counts as far below.
///
/// Marching squares between cell centres, after Lorensen and Cline, "Marching cubes", SIGGRAPH 1987.
pub(super) fn contour(grid: &DensityGrid, level: f64) -> Vec<Vec<(f64, f64)>> {
    let mut links: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for row in 0..grid.rows.saturating_sub(1) {
        for column in 0..grid.columns.saturating_sub(1) {
            for (from, to) in segments(grid, level, row, column) {
                links.entry(from).or_default().push(to);
                links.entry(to).or_default().push(from);
            }
        }
    }
    // Open lines first, from their ends; what is left then is closed.
    let ends = links.iter().filter(|(_, to)| to.len() == 1).map(|(&edge, _)| edge);
    let starts: Vec<usize> = ends.chain(links.keys().copied()).collect();
    let mut lines = Vec::new();
    for start in starts {
        let mut line = vec![start];
        let mut edge = start;
        while let Some(next) = links.get_mut(&edge).and_then(Vec::pop) {
            let back = links.get_mut(&next).expect("invariant: links go both ways");
            back.swap_remove(back.iter().position(|&to| to == edge).expect("invariant: links go both ways"));
            line.push(next);
            edge = next;
        }
        if line.len() > 1 {
            lines.push(line.into_iter().map(|edge| crossing(grid, level, edge)).collect());
        }
    }
    lines
}

/// The contour's pieces within the square whose lower left corner is cell (`row`, `column`), as pairs of edges.
///
/// Edge 2i runs from cell i to its right neighbour, edge 2i + 1 from cell i to the one above; two squares share an
/// edge's number, which is what joins their pieces.
fn segments(
    grid: &DensityGrid,
    level: f64,
    row: usize,
    column: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let cell = row * grid.columns + column;
    let corners = [cell, cell + 1, cell + 1 + grid.columns, cell + grid.columns].map(|i| grid.log_density[i]);
    let [bottom, right, top, left] = [2 * cell, 2 * (cell + 1) + 1, 2 * (cell + grid.columns), 2 * cell + 1];
    let above = corners.map(|value| value >= level);
    let case = above.iter().rev().fold(0, |code, &bit| 2 * code + usize::from(bit));
    let mean_above = corners.iter().sum::<f64>() >= 4.0 * level;
    let pieces = match case {
        _ if corners.iter().any(|value| value.is_nan()) => [None, None],
        1 | 14 => [Some((left, bottom)), None],
        2 | 13 => [Some((bottom, right)), None],
        4 | 11 => [Some((right, top)), None],
        8 | 7 => [Some((top, left)), None],
        3 | 12 => [Some((left, right)), None],
        6 | 9 => [Some((bottom, top)), None],
        // A saddle: the mean decides whether the two high corners are joined.
        5 if mean_above => [Some((left, top)), Some((bottom, right))],
        5 => [Some((left, bottom)), Some((right, top))],
        10 if mean_above => [Some((left, bottom)), Some((right, top))],
        10 => [Some((left, top)), Some((bottom, right))],
        _ => [None, None],
    };
    pieces.into_iter().flatten()
}

/// Where `edge` crosses `level`, linear in log-density between the centres of its two cells.
fn crossing(grid: &DensityGrid, level: f64, edge: usize) -> (f64, f64) {
    let from = edge / 2;
    let to = if edge.is_multiple_of(2) { from + 1 } else { from + grid.columns };
    // 30 nats below is as good as −∞ and keeps the interpolation finite.
    let [a, b] = [from, to].map(|cell| grid.log_density[cell].clamp(level - 30.0, level + 30.0) - level);
    let part = if a == b { 0.5 } else { a / (a - b) };
    let ((x0, y0), (x1, y1)) = (grid.centre(from), grid.centre(to));
    (x0 + part * (x1 - x0), y0 + part * (y1 - y0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Log-density of a Gaussian with standard deviations 1 and 0.5 on a grid around it.
    fn gaussian(columns: usize, rows: usize) -> DensityGrid {
        let (x, y) = ((-5.0, 5.0), (-3.0, 3.0));
        let log_density = DensityGrid::centres(x, y, columns, rows)
            .chunks_exact(2)
            .map(|p| -0.5 * (p[0].powi(2) + (p[1] / 0.5).powi(2)) - std::f64::consts::TAU.ln() - 0.5f64.ln())
            .collect();
        DensityGrid { x, y, columns, rows, log_density }
    }

    /// The highest-density region of a 2-D Gaussian with mass m is the ellipse of squared radius −2 ln(1 − m).
    #[test]
    fn levels_of_a_gaussian_match_their_closed_form() {
        let grid = gaussian(400, 300);
        let highest = -std::f64::consts::TAU.ln() - 0.5f64.ln();
        for (level, mass) in levels(&grid.log_density, &[0.5, 0.8, 0.95]).into_iter().zip([0.5f64, 0.8, 0.95])
        {
            let want = highest + (1.0 - mass).ln();
            assert!((level - want).abs() < 5e-3, "mass {mass}: got {level}, want {want}");
        }
    }

    #[test]
    fn contour_of_a_gaussian_is_one_closed_ellipse() {
        let grid = gaussian(101, 83);
        let level = grid.log_density.iter().copied().fold(f64::MIN, f64::max) - 2.0;
        let lines = contour(&grid, level);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].first(), lines[0].last());
        for &(x, y) in &lines[0] {
            let radius = (x.powi(2) + (y / 0.5).powi(2)).sqrt();
            assert!((radius - 2.0).abs() < 0.01, "({x}, {y}) lies at {radius} σ, expected 2");
        }
    }

    #[test]
    fn a_contour_that_leaves_the_grid_is_open_and_a_hole_breaks_it() {
        let mut grid = gaussian(41, 31);
        for (cell, value) in grid.log_density.iter_mut().enumerate() {
            *value = (cell % 41) as f64;
        }
        let lines = contour(&grid, 20.5);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].len(), 31);
        grid.log_density[15 * 41 + 20] = f64::NAN;
        assert_eq!(contour(&grid, 20.5).len(), 2);
    }

    #[test]
    fn both_saddles_are_joined_as_their_mean_says() {
        for (low, joined) in [(0.0, false), (2.0, true)] {
            for values in [[3.0, low, low, 3.0], [low, 3.0, 3.0, low]] {
                let grid = DensityGrid {
                    x: (0.0, 2.0),
                    y: (0.0, 2.0),
                    columns: 2,
                    rows: 2,
                    log_density: values.to_vec(),
                };
                let lines = contour(&grid, 2.5);
                assert_eq!(lines.len(), 2);
                // A line that cuts off a corner: a high one when the saddle is not joined, else a low one.
                let high_corner = if values[0] == 3.0 { (0.5, 0.5) } else { (1.5, 0.5) };
                let reach = |line: &Vec<(f64, f64)>| {
                    line.iter()
                        .map(|p| (p.0 - high_corner.0).abs() + (p.1 - high_corner.1).abs())
                        .fold(0.0, f64::max)
                };
                let cuts_high = lines.iter().any(|line| reach(line) < 0.9);
                assert_eq!(cuts_high, !joined, "{values:?}: {lines:?}");
            }
        }
    }

    #[test]
    fn grids_without_a_finite_cell_have_no_levels_and_no_contour() {
        assert!(levels(&[f64::NEG_INFINITY, f64::NAN], &[0.5]).is_empty());
        let mut grid = gaussian(5, 4);
        grid.log_density.fill(f64::NAN);
        assert!(contour(&grid, 0.0).is_empty());
        grid.log_density.fill(f64::NEG_INFINITY);
        assert!(contour(&grid, 0.0).is_empty());
    }
}
