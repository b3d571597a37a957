//! The secrets of one data folder: random, made when first needed, kept in `secrets.json` (mode 0600).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use data_encoding::BASE32_NOPAD;

use super::files;

const FILE: &str = "secrets.json";

pub struct Secrets {
    file: PathBuf,
    known: BTreeMap<String, String>,
}

impl Secrets {
    /// Reads what is there and makes what is missing.
    pub fn open(data: &Path, names: &[String]) -> anyhow::Result<Self> {
        let file = data.join(FILE);
        let known = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged; `--reset` starts afresh", file.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(e).with_context(|| format!("{} cannot be read", file.display())),
        };
        let mut secrets = Self { file, known };
        let before = secrets.known.len();
        for name in names {
            secrets.known.entry(name.clone()).or_insert_with(random);
        }
        if secrets.known.len() > before {
            files::write_private(&secrets.file, &serde_json::to_vec_pretty(&secrets.known)?, None)?;
        }
        Ok(secrets)
    }

    pub fn get(&self, name: &str) -> &str {
        self.known.get(name).expect("every secret's name was given when the secrets were opened")
    }
}

/// 160 random bits as lower-case letters and digits, good in URLs, shells and config files as they are.
pub fn random() -> String {
    BASE32_NOPAD.encode(&rand::random::<[u8; 20]>()).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_and_new_ones_are_added() {
        let folder = tempfile::tempdir().unwrap();
        let first = Secrets::open(folder.path(), &["a".into()]).unwrap().get("a").to_owned();
        let again = Secrets::open(folder.path(), &["a".into(), "b".into()]).unwrap();
        assert_eq!(again.get("a"), first);
        assert_ne!(again.get("b"), first);
        assert_eq!(first.len(), 32);
    }
}
