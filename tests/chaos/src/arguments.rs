//! What a run is asked to be. Unknown words are refused, but for those that `cargo test` gives to every test.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// How long faults are injected.
    pub lasting: Duration,
    /// Of the faults' schedule and the customers' choices.
    pub seed: u64,
    /// Commands a second that are aimed at.
    pub rate: u32,
    /// Where the report, the schedule and the history go.
    pub out: PathBuf,
    /// Only faults whose name begins so; of figures, only these parts, with commas between.
    pub only: Option<String>,
    /// Measure in place of breaking, and how often.
    pub figures: Option<usize>,
    /// On loopback, also where there could be namespaces.
    pub loopback: bool,
    /// The executable that the platform is made of, where it is not the one that was built with this.
    pub program: Option<PathBuf>,
    /// Somebody asked for this run; the form in the tests is left out where it cannot be.
    pub wanted: bool,
    /// The platform's data stay there, for looking into.
    pub keep: Option<PathBuf>,
}

/// Of the form in the tests, which share their machine with others.
const SHORT: Duration = Duration::from_secs(48);
const SHORT_RATE: u32 = 100;
/// A whole region stopped, and a full disk: the same for every change, so that what fails is the change's. Whoever asks
/// for a run gets another schedule each time.
const SHORT_SEED: u64 = 2_682_848_591;
const RATE: u32 = 200;

impl Arguments {
    /// None: a filter of `cargo test` asks for other tests.
    pub fn parse(words: &[String]) -> anyhow::Result<Option<Self>> {
        let mut arguments = Self {
            lasting: SHORT,
            seed: SHORT_SEED,
            rate: SHORT_RATE,
            out: "target/chaos".into(),
            only: None,
            figures: None,
            loopback: false,
            program: None,
            wanted: false,
            keep: None,
        };
        let (mut words, mut rate, mut seed) = (words.iter(), None, None);
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--minutes" | "--seconds" => {
                    arguments.wanted = true;
                    let unit = if word == "--minutes" { 60.0 } else { 1.0 };
                    let number: f64 = value()?.parse()?;
                    arguments.lasting = Duration::try_from_secs_f64(unit * number)?;
                }
                "--seed" => seed = Some(value()?.parse()?),
                "--rate" => rate = Some(value()?.parse::<u32>()?.clamp(1, 10_000)),
                "--out" => arguments.out = value()?.into(),
                "--figures" => {
                    arguments.wanted = true;
                    arguments.figures = Some(value()?.parse::<usize>()?.max(1));
                }
                "--loopback" => arguments.loopback = true,
                "--program" => arguments.program = Some(value()?.into()),
                "--only" => arguments.only = Some(value()?.clone()),
                "--keep" => arguments.keep = Some(value()?.into()),
                // Of the test harness.
                "--nocapture" | "--no-capture" | "--include-ignored" | "-q" | "--quiet" | "--show-output" => {
                }
                "--test-threads" | "--skip" | "--format" | "--color" => drop(value()?),
                "--list" | "--ignored" => return Ok(None),
                filter if !filter.starts_with('-') => {
                    if !"chaos".contains(filter) {
                        return Ok(None);
                    }
                }
                other => match other.split_once('=') {
                    Some(("--test-threads" | "--skip" | "--format" | "--color", _)) => {}
                    _ => bail!(
                        "`{other}` is not known; there are --minutes, --seconds, --seed, --rate, --out, --only, --keep, \
                         --figures, --loopback, --program"
                    ),
                },
            }
        }
        let drawn = if arguments.wanted { rand::random::<u32>().into() } else { SHORT_SEED };
        arguments.seed = seed.unwrap_or(drawn);
        arguments.rate = rate.unwrap_or(if arguments.wanted { RATE } else { SHORT_RATE });
        Ok(Some(arguments))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> anyhow::Result<Option<Arguments>> {
        Arguments::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_understood_or_refused() {
        let some = parse(&["--minutes", "0.5", "--seed", "7", "--nocapture"]).unwrap().unwrap();
        assert_eq!((some.lasting, some.seed), (Duration::from_secs(30), 7));
        assert_eq!(parse(&["--rate", "9", "--minutes", "1"]).unwrap().unwrap().rate, 9);
        assert!(some.wanted && parse(&["--minutes", "-1"]).is_err());
        assert!(!parse(&["chaos"]).unwrap().unwrap().wanted);
        assert!(parse(&["selling"]).unwrap().is_none());
        assert!(parse(&["--list"]).unwrap().is_none());
        let figures = parse(&["--figures", "5", "--program", "target/release/marquee"]).unwrap().unwrap();
        assert!(figures.wanted && figures.figures == Some(5) && figures.program.is_some());
        assert!(parse(&["--sed", "7"]).is_err() && parse(&["--seed"]).is_err());
    }
}
