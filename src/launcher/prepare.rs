//! What a start settles before anything runs: which regions the platform has, and which file its processes
//! are started from.

use std::path::{Path, PathBuf};

use anyhow::Context;
use common::RegionName;

use super::files;
use super::folder::Folder;
use super::options::DEFAULT_REGIONS;
use super::users::{Users, anyone_reaches};

/// The regions asked for, which must be those that the folder was made with.
pub fn regions(folder: &Folder, wanted: &[RegionName]) -> anyhow::Result<Vec<RegionName>> {
    let file = folder.root().join("platform.json");
    let known: Option<Vec<RegionName>> = match std::fs::read(&file) {
        Ok(text) => {
            Some(serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?)
        }
        Err(_) => None,
    };
    let regions = match (known, wanted) {
        (Some(known), []) => known,
        (Some(known), wanted) => {
            let list = |names: &[RegionName]| names.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(",");
            anyhow::ensure!(
                known == wanted,
                "{} holds a platform of the regions {}, not {}; name those, choose another --data, or --reset",
                folder.root().display(),
                list(&known),
                list(wanted)
            );
            known
        }
        (None, []) => DEFAULT_REGIONS.iter().map(|r| r.parse()).collect::<Result<_, _>>()?,
        (None, wanted) => wanted.to_vec(),
    };
    anyhow::ensure!(regions.len() <= 9, "one machine carries at most nine regions");
    let distinct: std::collections::BTreeSet<_> = regions.iter().collect();
    anyhow::ensure!(distinct.len() == regions.len(), "a region is named twice");
    anyhow::ensure!(!regions.iter().any(|r| r.as_str() == "global"), "no region can be called `global`");
    common::region::check_distinct_tags(&regions).map_err(anyhow::Error::msg)?;
    files::write_private(&file, &serde_json::to_vec(&regions)?, None)?;
    Ok(regions)
}

/// The program itself, or a copy where the users that services run as can reach it.
pub fn program(program: &Path, folder: &Folder, users: &Users) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let program =
        program.canonicalize().with_context(|| format!("the program {} is not there", program.display()))?;
    let mode = std::fs::metadata(&program)?.permissions().mode();
    if !users.switch() || (anyone_reaches(&program) && mode & 0o005 == 0o005) {
        return Ok(program);
    }
    let copies = folder.servers().join("bin");
    files::make_folder(&copies, 0o711, None)?;
    let copy = copies.join("marquee");
    // A fresh file: the old one may still be running somewhere.
    let _ = std::fs::remove_file(&copy);
    std::fs::copy(&program, &copy).context("the program cannot be copied to where services may run it")?;
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}
