//! `train --auto`: the table is looked at before it is read for training, and the flags that suit it are taken.

use std::path::Path;

use moonflow::data::Inspection;
use moonflow::{Error, Result};

use super::columns::Chosen;
use super::findings::{self, Settled};
use super::progress::RowProgress;
use super::train::TrainArgs;

/// Gives `args` the flags that suit the table in `path`, beside those that they have, and yields these flags with all that
/// they take, as a shell has them.
///
/// # Errors
/// [`Error::Argument`] for standard input, which cannot be read twice; those of reading the table.
pub fn apply(args: &mut TrainArgs, path: &Path) -> Result<String> {
    if path.as_os_str() == "-" {
        let message = "--auto reads the table twice, which standard input cannot be: write it to a file";
        return Err(Error::Argument(message.into()));
    }
    let (reader, chosen) = args.table.open_beforehand(path, args.roles())?;
    let Chosen { columns: mut places, context, categorical, .. } = chosen;
    let names = |places: &[usize]| places.iter().map(|&place| reader.columns()[place].clone()).collect();
    let [columns, categorical]: [Vec<String>; 2] = [names(&places), names(&categorical)];
    let (plan, grids) = args.preprocess.plan(reader.name(), &columns, context)?.beforehand();
    // What is given comes first: a column that follows from it is the one to be left out.
    places.rotate_right(context);
    let mut progress = RowProgress::new("inspecting");
    let found = Inspection::of(reader, &places, |rows, share| progress.update(rows, share))?;
    progress.finish();
    let missing = args.table.says_missing();
    let settled = |name: &str| {
        let is_category = categorical.iter().any(|column| column == name);
        let has_atoms = args.preprocess.names_atoms(name);
        Settled::by(&plan, &columns, name)
            .with_category(is_category)
            .with_atoms(has_atoms)
            .with_missing(missing)
    };
    let mut advice = findings::advice(&found, settled);
    if grids {
        advice.retain(|advice| advice.flag != "dequantize");
    }
    let given = args.table.entries().into_iter().chain(args.preprocess.entries());
    let given: Vec<_> = given.filter_map(|(flag, value)| Some((flag, value?))).collect();
    let flags = findings::flags(&advice, &given);
    for (flag, value) in &flags {
        if !args.table.set(flag, value) && !args.preprocess.set(flag, value)? {
            unreachable!("invariant: every flag that is advised can be set, got --{flag}");
        }
    }
    let flags: Vec<String> = flags.iter().map(|(flag, value)| findings::flag(flag, value)).collect();
    Ok(flags.join(" "))
}
