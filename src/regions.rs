//! The regions' databases that a command works on: those of a platform on this machine, or those that a file
//! names. URLs hold passwords, so they never stand on a command line.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use regional::verify::Store;

use crate::launcher::Run;

/// Connections to each region's database.
const CONNECTIONS: usize = 8;

/// The regions of the platform that runs on `data`, or those in `file`: a line `region=URL` each.
pub fn stores(data: &Path, file: Option<&Path>) -> anyhow::Result<Vec<Store>> {
    let urls = match file {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            parse(&text).with_context(|| file.display().to_string())?
        }
        None => {
            let mut urls = Run::read(data)?.postgres;
            urls.remove("global");
            urls
        }
    };
    anyhow::ensure!(!urls.is_empty(), "no region's database is named");
    urls.into_iter()
        .map(|(region, url)| Ok(Store { pool: migrations::pool(&url, CONNECTIONS)?, region }))
        .collect()
}

fn parse(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut urls = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (region, url) = line.split_once('=').with_context(|| format!("line {number}: not region=URL"))?;
        let before = urls.insert(region.trim().to_owned(), url.trim().to_owned());
        anyhow::ensure!(before.is_none(), "line {number}: {} is named twice", region.trim());
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_each_region_once() {
        let urls = parse("# ours\neu=postgres://u:p=w@h/db?a=b\n\n us = postgres://h/db\n").unwrap();
        assert_eq!(urls["eu"], "postgres://u:p=w@h/db?a=b");
        assert_eq!(urls["us"], "postgres://h/db");
        for bad in ["eu", "eu=a\neu=b"] {
            let error = format!("{:#}", parse(bad).unwrap_err());
            assert!(error.starts_with("line") && !error.contains("=a"), "{error}");
        }
    }
}
