//! Archive files: lines of JSON, compressed, one file a region and month, read and written as a stream.
//!
//! ```text
//! {"marquee_archive":1,"region":"eu","month":"2025-03"}
//! {"show":"shw_…","title":…,"promised":{…},"accepted":{…},"seq":2,"hash":"…"}    one a show, then its entries
//! {"seq":1,"ballot":{…},"at":"…","format":1,"hash":"…","events":"[…]"}
//! {"seq":2,…}
//! {"shows":1,"entries":2,"sha256":"…"}                                           over all lines before
//! ```
//!
//! A file has its name only once it is whole and on the disk; a reader checks every hash and the sum. `events` is
//! a string, so that the bytes that the hash covers are kept exactly.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use common::ShowId;
use data_encoding::HEXLOWER;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::journal::{Ballot, chain};

const FORMAT: u32 = 1;
const ENDING: &str = ".ndjson.gz";
const UNFINISHED: &str = ".unfinished";
/// A line longer than this is no entry of ours: a batch holds a thousand commands at most.
const LONGEST_LINE: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    marquee_archive: u32,
    region: String,
    month: String,
}

/// A show's head as it was archived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    pub show: ShowId,
    pub title: String,
    pub starts_at: Timestamp,
    pub promised: Ballot,
    pub accepted: Ballot,
    /// How many entries follow.
    pub seq: u64,
    pub hash: String,
}

/// An entry, as a file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub seq: u64,
    pub ballot: Ballot,
    pub at: Timestamp,
    pub format: i16,
    pub hash: String,
    pub events: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    shows: u64,
    entries: u64,
    sha256: String,
}

/// What a file holds, all of it checked.
#[derive(Clone, Debug, Serialize)]
pub struct Contents {
    pub region: String,
    pub month: String,
    pub shows: Vec<Archived>,
    pub entries: u64,
}

/// Makes the folder, private, and removes what a run of this region left unfinished.
pub(super) fn prepare_folder(folder: &Path, region: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if !folder.is_dir() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let prefix = format!("{region}-");
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && name.ends_with(UNFINISHED) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Every archive file in the folder, by name.
pub(super) fn all(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(ENDING) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The finished files of one region and month.
pub(super) fn of_month(folder: &Path, region: &str, month: &str) -> anyhow::Result<Vec<PathBuf>> {
    let prefix = format!("{region}-{month}");
    let named = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // `eu-2025-03.ndjson.gz`, `eu-2025-03.2.ndjson.gz`, …
        name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('.'))
    };
    Ok(all(folder)?.into_iter().filter(named).collect())
}

/// A file under way. Writing blocks, as the command that does it has nothing else to do.
pub(super) struct Writer {
    out: GzEncoder<File>,
    sum: Sha256,
    shows: u64,
    entries: u64,
    unfinished: PathBuf,
    finished: PathBuf,
}

impl Writer {
    pub fn begin(folder: &Path, region: &str, month: &str) -> anyhow::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let free = (1_u32..).map(|part| match part {
            1 => folder.join(format!("{region}-{month}{ENDING}")),
            _ => folder.join(format!("{region}-{month}.{part}{ENDING}")),
        });
        let finished = free.into_iter().find(|path| !path.exists()).context("no name is free")?;
        let mut unfinished = finished.clone().into_os_string();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&unfinished);
        let file = file.with_context(|| format!("{} cannot be made", unfinished.display()))?;
        let out = GzEncoder::new(file, Compression::default());
        let mut writer = Self { out, sum: Sha256::new(), shows: 0, entries: 0, unfinished, finished };
        let (region, month) = (region.to_owned(), month.to_owned());
        writer.line(&First { marquee_archive: FORMAT, region, month })?;
        Ok(writer)
    }

    pub fn show(&mut self, show: &Archived, lines: &[Line]) -> anyhow::Result<()> {
        self.line(show)?;
        for line in lines {
            self.line(line)?;
        }
        self.shows += 1;
        self.entries += lines.len() as u64;
        Ok(())
    }

    fn line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.sum.update(&line);
        self.out.write_all(&line).context("the archive cannot be written")
    }

    /// On the disk, and under its name.
    pub fn finish(mut self) -> anyhow::Result<PathBuf> {
        let sha256 = HEXLOWER.encode(&self.sum.clone().finalize());
        self.line(&Last { shows: self.shows, entries: self.entries, sha256 })?;
        let file = self.out.finish()?;
        file.sync_all()?;
        // Never over another: `rename` would replace it.
        ensure!(!self.finished.exists(), "{} is there already", self.finished.display());
        fs::rename(&self.unfinished, &self.finished)?;
        sync_folder(&self.finished)?;
        Ok(self.finished)
    }
}

fn sync_folder(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().context("a file lies in a folder")?;
    File::open(folder)?.sync_all().with_context(|| folder.display().to_string())
}

/// A list of what a file holds, beside it, for people and their tools; nothing is decided by it.
pub(super) fn write_manifest(path: &Path, contents: &Contents) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Manifest<'a> {
        file: String,
        sha256: String,
        #[serde(flatten)]
        contents: &'a Contents,
    }
    let mut sum = Sha256::new();
    let mut file = File::open(path)?;
    let mut block = vec![0; 1 << 16];
    loop {
        match std::io::Read::read(&mut file, &mut block)? {
            0 => break,
            read => sum.update(&block[..read]),
        }
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let manifest = Manifest { file: name, sha256: HEXLOWER.encode(&sum.finalize()), contents };
    let target = path.to_string_lossy().replace(ENDING, ".manifest.json");
    let unfinished = format!("{target}{UNFINISHED}");
    let mut out = File::create(&unfinished)?;
    out.write_all(&serde_json::to_vec_pretty(&manifest)?)?;
    out.sync_all()?;
    fs::rename(&unfinished, &target)?;
    sync_folder(path)
}

/// Reads a whole file and checks it: order, numbers, each entry's hash, the sum. `entry` gets each in turn.
pub fn read_file(
    path: &Path,
    mut entry: impl FnMut(&Archived, &Line) -> anyhow::Result<()>,
) -> anyhow::Result<Contents> {
    let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    read(BufReader::new(GzDecoder::new(BufReader::new(file))), &mut entry)
        .with_context(|| format!("{} is damaged", path.display()))
}

fn read(
    mut input: impl BufRead,
    entry: &mut impl FnMut(&Archived, &Line) -> anyhow::Result<()>,
) -> anyhow::Result<Contents> {
    let mut sum = Sha256::new();
    let first: First = serde_json::from_slice(&next(&mut input, &mut sum)?)?;
    ensure!(first.marquee_archive == FORMAT, "format {} is not known here", first.marquee_archive);
    let mut contents = Contents { region: first.region, month: first.month, shows: Vec::new(), entries: 0 };
    loop {
        let before = sum.clone();
        let line = next(&mut input, &mut sum)?;
        let Ok(show) = serde_json::from_slice::<Archived>(&line) else {
            let last: Last = serde_json::from_slice(&line).context("neither a show nor the end")?;
            ensure!(last.sha256 == HEXLOWER.encode(&before.finalize()), "the sum does not fit");
            let counts = (contents.shows.len() as u64, contents.entries);
            ensure!((last.shows, last.entries) == counts, "it should hold {} shows", last.shows);
            ensure!(input.fill_buf()?.is_empty(), "something follows the end");
            return Ok(contents);
        };
        read_show(&show, &mut input, &mut sum, entry).with_context(|| show.show.to_string())?;
        contents.entries += show.seq;
        contents.shows.push(show);
    }
}

fn read_show(
    show: &Archived,
    input: &mut impl BufRead,
    sum: &mut Sha256,
    entry: &mut impl FnMut(&Archived, &Line) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (mut hash, mut ballot) = (Vec::new(), Ballot::default());
    for seq in 1..=show.seq {
        let line: Line =
            serde_json::from_slice(&next(input, sum)?).with_context(|| format!("entry {seq}"))?;
        ensure!(line.seq == seq, "entry {seq} is missing");
        hash = chain(&hash, show.show, seq, line.ballot, line.format, line.events.as_bytes());
        ensure!(line.hash == HEXLOWER.encode(&hash), "entry {seq}: the hash does not fit");
        ballot = line.ballot;
        entry(show, &line)?;
    }
    ensure!(show.hash == HEXLOWER.encode(&hash) && show.accepted == ballot, "it does not end with its head");
    Ok(())
}

/// The next line, added to the sum.
fn next(input: &mut impl BufRead, sum: &mut Sha256) -> anyhow::Result<Vec<u8>> {
    let mut line = Vec::new();
    std::io::Read::take(input, LONGEST_LINE).read_until(b'\n', &mut line).context("cannot be unpacked")?;
    if line.last() != Some(&b'\n') {
        bail!("it ends too early");
    }
    sum.update(&line);
    Ok(line)
}
