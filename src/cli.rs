//! What can be typed.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use common::RegionName;
use common::telemetry::LogFormat;

/// Cinema tickets, sold in several regions at once.
#[derive(Parser)]
#[command(name = "marquee", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run a whole platform of several regions on this machine
    Up(Up),
    /// Kill, start and list the parts of a running platform; move shows, drain regions
    Ctl(Ctl),
    /// Bring a database up to date; its URL comes from MARQUEE_POSTGRES_URL
    Migrate { kind: Database },
    /// Bring data in through the API
    Import {
        #[command(subcommand)]
        what: Import,
    },
    /// Measure a running platform
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Read every region's journals and tell whatever breaks an invariant
    Verify {
        #[command(flatten)]
        databases: Databases,
        /// Write the report there too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Declare that a database which went back in time has all that is to be had of shows that no other region holds
    AcceptStore {
        region: RegionName,
        #[command(flatten)]
        databases: Databases,
    },
    /// Make an authority and a certificate for each of the platform's processes, for `peer_tls`; its key is kept nowhere
    Certificates {
        /// All regions
        #[arg(long, value_delimiter = ',', required = true)]
        regions: Vec<RegionName>,
        /// A folder that is not there yet
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Move ended shows from the regions' databases into files
    Archive(Archive),
    /// Run the accounts, roles and catalogue service
    Global(GlobalService),
    /// Run one region's cinemas, shows, reservations and payments
    Regional(Service),
    /// Run one voter of the ownership registry
    Raft(Service),
    /// Run one region's public entrance
    Gateway(Service),
    /// Run a stand-in for a payment provider
    TestProvider(Service),
    /// Run a command that dies with the launcher
    #[command(hide = true)]
    Guard {
        #[arg(long)]
        parent: u32,
        #[arg(long)]
        gently: bool,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

#[derive(Args)]
pub struct Service {
    /// TOML; what it leaves out comes from MARQUEE_… in the environment, or a default
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Args)]
pub struct GlobalService {
    /// TOML; what it leaves out comes from MARQUEE_… in the environment, or a default
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub order: Option<GlobalOrder>,
}

#[derive(Subcommand)]
pub enum GlobalOrder {
    /// Make a new key for signing access tokens; the present one stays good for the tokens it has signed
    RotateKeys {
        /// The present keys are known to others: no token that they signed is good any more
        #[arg(long)]
        drop_others: bool,
    },
}

#[derive(Args)]
pub struct Up {
    /// Names of the regions [default: those the folder was made with, else eu,us,ap]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub regions: Vec<RegionName>,
    /// Where data, logs and run.json are kept
    #[arg(long, value_name = "DIR", default_value = ".marquee", env = "MARQUEE_DATA")]
    pub data: PathBuf,
    /// Use consecutive ports from this one on instead of free ones
    #[arg(long, value_name = "N")]
    pub port_base: Option<u16>,
    /// No demo data
    #[arg(long)]
    pub empty: bool,
    /// Forget what an earlier run left in the folder
    #[arg(long)]
    pub reset: bool,
    /// How long reserved seats are held
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub hold_secs: Option<u64>,
    /// The gateways count but refuse nobody: for measuring only
    #[arg(long)]
    pub no_limits: bool,
    /// How the services write their logs
    #[arg(long, value_enum, default_value_t = Logs::Json)]
    pub logs: Logs,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Logs {
    Json,
    Text,
}

impl From<Logs> for LogFormat {
    fn from(logs: Logs) -> Self {
        match logs {
            Logs::Json => Self::Json,
            Logs::Text => Self::Text,
        }
    }
}

#[derive(Args)]
pub struct Ctl {
    /// The running platform's folder
    #[arg(long, value_name = "DIR", default_value = ".marquee", env = "MARQUEE_DATA")]
    pub data: PathBuf,
    /// For moves, drains and what else the API does: a gateway elsewhere; the account comes from
    /// MARQUEE_USERNAME and MARQUEE_PASSWORD
    #[arg(long, value_name = "URL", global = true)]
    pub url: Option<String>,
    #[command(subcommand)]
    pub order: Order,
}

#[derive(Subcommand)]
pub enum Order {
    /// kill -9 a service, or everything in a region
    Kill(Target),
    /// Start a service, or all that is missing in a region, and wait until it is ready
    Start(Target),
    /// List all parts
    Status,
    /// Move a show to another region that keeps its journal
    Move { show: common::ShowId, to: RegionName },
    /// Move every show away from a region
    Drain { region: RegionName },
    /// Let shows come to a region again
    Undrain { region: RegionName },
    /// Tell who owns a show, and who did
    Ownership { show: common::ShowId },
    /// Tell the registry's voters and every region's state
    Cluster,
    /// Declare that a region's Postgres was restored from a backup: its journals recover from the others'
    Restored { region: RegionName },
    /// Go on without a region that is down, where too few are left to sell
    GiveUp {
        region: RegionName,
        /// Of how many shows something acknowledged may be lost; without it, that is told, where there are any
        #[arg(long, value_name = "SHOWS", default_value_t = 0)]
        at_risk: u64,
    },
}

#[derive(Args)]
pub struct Target {
    /// A region, or `global`
    pub place: String,
    /// postgres, redis, raft, regional or gateway; in `global`: postgres, global or provider
    pub service: Option<String>,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Archive {
    #[command(flatten)]
    pub databases: Databases,
    /// Shows that ended before this day (UTC), or this moment (RFC 3339); not in the future
    #[arg(long, value_name = "DAY", required = true, value_parser = past)]
    pub before: Option<jiff::Timestamp>,
    /// Where the files go
    #[arg(long, value_name = "FOLDER", default_value = "archive")]
    pub to: PathBuf,
    /// Only tell what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Remove what lists of reservations, payments and shows are made of, too
    #[arg(long)]
    pub forget_lists: bool,
    #[command(subcommand)]
    pub what: Option<Archives>,
}

#[derive(Subcommand)]
pub enum Archives {
    /// Check a file, hash for hash, and list its shows, or print one show's journal
    Show {
        file: PathBuf,
        #[arg(long, value_name = "SHOW")]
        show: Option<common::ShowId>,
    },
    /// Put a show back into its region's database, hash for hash
    Restore {
        file: PathBuf,
        #[arg(long, value_name = "SHOW")]
        show: common::ShowId,
        #[command(flatten)]
        databases: Databases,
    },
    /// Drop the year in which shows were created, once all of them are archived
    DropYear {
        year: i16,
        #[command(flatten)]
        databases: Databases,
    },
}

/// Which regions' databases.
#[derive(Args)]
pub struct Databases {
    /// The running platform's folder: all its regions
    #[arg(long, value_name = "DIR", default_value = ".marquee", env = "MARQUEE_DATA")]
    pub data: PathBuf,
    /// Databases elsewhere: a file with a line `region=URL` each, since URLs hold passwords
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub databases: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Database {
    Global,
    Regional,
}

#[derive(Subcommand)]
pub enum Import {
    /// Films from a CSV file whose first line names the columns
    Movies {
        file: PathBuf,
        /// The running platform's folder: its first gateway and its admin account
        #[arg(long, value_name = "DIR", default_value = ".marquee", env = "MARQUEE_DATA")]
        data: PathBuf,
        /// A gateway elsewhere; the account comes from MARQUEE_USERNAME and MARQUEE_PASSWORD
        #[arg(long, value_name = "URL", conflicts_with = "data")]
        url: Option<String>,
    },
}

#[derive(Subcommand)]
pub enum Bench {
    /// Customers buy seats through one gateway, each waiting for its answer before going on
    Purchase {
        /// The running platform's folder
        #[arg(long, value_name = "DIR", default_value = ".marquee", env = "MARQUEE_DATA")]
        data: PathBuf,
        #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=2_000))]
        clients: u32,
        #[arg(long, value_name = "S", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3_600))]
        seconds: u64,
        /// Write the figures there too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// The usual design behind a region's handlers
    #[command(hide = true)]
    NaiveServer(Service),
    /// A folder's files by HTTP, with nothing around the library
    #[command(hide = true)]
    BareServer {
        #[arg(long, value_name = "ADDRESS")]
        listen: SocketAddr,
        folder: PathBuf,
    },
    /// Everything, on a platform of its own in a folder that is removed afterwards
    All {
        /// Where figures and plots go
        #[arg(long, value_name = "DIR", default_value = "target/bench")]
        out: PathBuf,
        /// A minute's look at whether everything runs; its figures are no measurement
        #[arg(long)]
        short: bool,
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
        /// Only these parts, by the names of their plots
        #[arg(long, value_name = "PART,…", value_delimiter = ',')]
        only: Vec<String>,
    },
    /// One part of what shows do, against other designs or its target
    Show {
        #[command(subcommand)]
        what: BenchShow,
    },
}

#[derive(Subcommand)]
pub enum BenchShow {
    /// Everybody wants the same show of 5,000 seats
    Hot(BenchBookings),
    /// A thousand shows of 200 seats
    Spread(BenchBookings),
    /// Seat maps, against nginx serving the same bytes as a file
    Read(BenchRead),
    /// Thousands watch a seat map while others book
    Watch(BenchWatch),
    /// All that visitors do, through a gateway, at a fixed rate
    Mixed(BenchMixed),
    /// One customer at a time, against one bare commit
    Latency(BenchFigures),
    /// A long journal against a short one: bookings a second, and beginning to lead
    Flat(BenchFlat),
}

#[derive(Args)]
pub struct BenchRead {
    #[command(flatten)]
    pub figures: BenchFigures,
    /// Connections, each asking again as soon as it is answered
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,
}

#[derive(Args)]
pub struct BenchWatch {
    #[command(flatten)]
    pub figures: BenchFigures,
    /// Streams that are open; the server needs as many open files (`ulimit -n`), and so does the bench
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub watchers: u32,
    /// Bookings a second
    #[arg(long, value_name = "N", default_value_t = 5.0, value_parser = rate)]
    pub rate: f64,
}

#[derive(Args)]
pub struct BenchMixed {
    #[command(flatten)]
    pub figures: BenchFigures,
    /// Visitors a second
    #[arg(long, value_name = "N", default_value_t = 300.0, value_parser = rate)]
    pub rate: f64,
}

#[derive(Args)]
pub struct BenchFlat {
    #[command(flatten)]
    pub figures: BenchFigures,
    /// Entries of the long journal; the short one has 1,000
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub entries: u64,
    /// Entries of the show that is led
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub show_entries: u64,
}

/// What all measurements have in common.
#[derive(Args)]
pub struct BenchFigures {
    /// The running platform's folder
    #[arg(long, value_name = "DIR", default_value = ".marquee", env = "MARQUEE_DATA")]
    pub data: PathBuf,
    /// The designs take turns this often; the figures are medians
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Of each turn
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,
    /// Write the figures there too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw them there
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

#[derive(Args)]
pub struct BenchBookings {
    #[command(flatten)]
    pub figures: BenchFigures,
    /// Numbers of clients that each wait for their answer
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [64, 256, 1024, 4096], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: Vec<u32>,
    /// Clients of the other designs, each with a connection of its own (from 64 on they share 64)
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [4, 8, 16, 64], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: Vec<u32>,
    /// Arrivals a second instead of clients: an open loop, its latency counted from the intended start
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with_all = ["clients", "connections"], value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Vec<u32>,
    /// Where sales are spread: over so many
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub shows: u32,
    /// Through a gateway to a regional process, instead of in process
    #[arg(long)]
    pub http: bool,
    /// Whether customers want the same seats
    #[arg(long, value_enum, default_value_t = BenchDemand::Distinct)]
    pub demand: BenchDemand,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum BenchDemand {
    /// Nobody asks for a seat that another asked for
    Distinct,
    /// Everybody wants the middle, is refused where another was faster, and chooses again
    Popular,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    if (0.1..=100_000.0).contains(&rate) { Ok(rate) } else { Err("must be 0.1 to 100000".into()) }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    if (0.05..=600.0).contains(&seconds) { Ok(seconds) } else { Err("must be 0.05 to 600".into()) }
}

fn past(text: &str) -> Result<jiff::Timestamp, String> {
    let day = |text: &str| text.parse::<jiff::civil::Date>()?.to_zoned(jiff::tz::TimeZone::UTC);
    let at = text.parse().or_else(|_| day(text).map(|day| day.timestamp()));
    let at: jiff::Timestamp = at.map_err(|_: jiff::Error| "expected a day such as 2026-01-31".to_owned())?;
    if at <= jiff::Timestamp::now() { Ok(at) } else { Err("that is in the future".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_what_is_past_is_archived() {
        let at = |text: &str| past(text).map(|at| at.to_string());
        assert_eq!(at("2026-01-31").as_deref(), Ok("2026-01-31T00:00:00Z"));
        assert_eq!(at("2026-01-31T12:00:00+01:00").as_deref(), Ok("2026-01-31T11:00:00Z"));
        for bad in ["9998-01-01", "yesterday", ""] {
            at(bad).unwrap_err();
        }
        let parsed = |words: &[&str]| Cli::try_parse_from(["marquee", "archive"].iter().chain(words));
        assert!(parsed(&["--before", "2026-01-31", "--dry-run"]).is_ok());
        assert!(parsed(&["show", "file"]).is_ok());
        assert!(parsed(&["drop-year", "2024", "--data", "d"]).is_ok());
        assert!(parsed(&[]).is_err());
    }
}
