//! What a platform is asked to be.

use std::path::PathBuf;
use std::time::Duration;

use common::RegionName;
use common::telemetry::LogFormat;
use tokio_util::sync::CancellationToken;

use super::site::Sites;

#[derive(Clone, Debug)]
pub struct Options {
    /// Empty: those that the folder was made with, else eu, us and ap.
    pub regions: Vec<RegionName>,
    /// The data folder; made when missing.
    pub data: PathBuf,
    /// Consecutive ports from here, instead of free ones.
    pub port_base: Option<u16>,
    /// Fill the platform with films, cinemas, shows and accounts.
    pub demo: bool,
    /// Forget what an earlier run left in the folder.
    pub reset: bool,
    /// The `marquee` executable.
    pub program: PathBuf,
    /// How long reserved seats are held; the services' own default when none.
    pub hold_secs: Option<u64>,
    /// The gateways' limits so high that nobody meets them: for measuring.
    pub no_limits: bool,
    /// Shows that were moved, or lost their region, do not go home by themselves: for measuring.
    pub no_homecoming: bool,
    /// No progress on standard error.
    pub quiet: bool,
    /// Of the services' logs.
    pub log_format: LogFormat,
    /// Places that do not simply stand on loopback.
    pub sites: Sites,
    /// How long the whole start may take.
    pub patience: Duration,
    /// Ends a start that is under way.
    pub stop: CancellationToken,
}

impl Default for Options {
    /// The usual regions in `.marquee`, without demo data, started by this very program.
    fn default() -> Self {
        Self {
            regions: Vec::new(),
            data: ".marquee".into(),
            port_base: None,
            demo: false,
            reset: false,
            program: std::env::current_exe().unwrap_or_else(|_| "marquee".into()),
            hold_secs: None,
            no_limits: false,
            no_homecoming: false,
            quiet: true,
            log_format: LogFormat::Json,
            sites: Sites::new(),
            patience: Duration::from_secs(120),
            stop: CancellationToken::new(),
        }
    }
}

pub const DEFAULT_REGIONS: [&str; 3] = ["eu", "us", "ap"];
