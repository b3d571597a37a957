//! What the measurements over HTTP stand on: a cinema of their own with halls and shows, customers with
//! tokens, and where the first region's processes listen.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::{Api, Failure};
use crate::bench::purchase::sign_up;
use crate::launcher::{Progress, Run};

const SEATS_A_ROW: u32 = 50;
const PARALLEL: usize = 16;
/// From one show of a hall to the next.
const EVERY: SignedDuration = SignedDuration::from_hours(4);
const FEED_PATIENCE: Duration = Duration::from_secs(30);

pub struct Stage {
    pub run: Run,
    admin: Api,
    pub region: String,
    pub gateway: SocketAddr,
    pub regional: SocketAddr,
    /// The processes' own configuration files.
    pub gateway_config: PathBuf,
    pub raft_config: PathBuf,
    pub regional_config: PathBuf,
    pub regional_pid: u32,
    pub tokens: Vec<String>,
    pub cinema: String,
    movie: String,
}

impl Stage {
    /// On the platform that runs in `data`, with `customers` that have signed up and in.
    pub async fn open(data: &Path, customers: usize, progress: &Progress) -> anyhow::Result<Self> {
        let run = Run::read(data)?;
        let (region, gateway) = run.gateways.iter().next().context("the platform has no gateway")?;
        let (region, api) = (region.clone(), Api::new(gateway)?);
        let account = run.account("admin").context("run.json names no admin")?;
        let admin = api.signed_in(&account.username, &account.password).await?;
        let tokens = sign_up(&api, customers, progress).await?;
        let tokens = tokens.iter().filter_map(|api| api.token().map(str::to_owned)).collect();
        let config = |service: &str| data.join("servers").join(format!("{service}-{region}/config.toml"));
        let (gateway_config, regional_config) = (config("gateway"), config("regional"));
        let pid = run.processes.iter().find(|p| p.name == "regional" && p.region == region);
        Ok(Self {
            gateway: listens(&gateway_config)?,
            regional: listens(&regional_config)?,
            gateway_config,
            raft_config: config("raft"),
            regional_config,
            regional_pid: pid.context("no regional process runs")?.pid,
            cinema: cinema(&admin).await?,
            movie: movie(&admin).await?,
            tokens,
            admin,
            region,
            run,
        })
    }

    /// So many shows in a new hall of `seats` seats, on sale now.
    pub async fn shows(&self, seats: u32, count: usize, progress: &Progress) -> anyhow::Result<Vec<String>> {
        let (rows, rest) = (seats / SEATS_A_ROW, seats % SEATS_A_ROW);
        anyhow::ensure!(rest == 0, "whole rows of {SEATS_A_ROW} seats only");
        let row = |row: u32| {
            let seat = |n: u32| json!({"number": n + 1, "type": "standard", "x": n, "y": row});
            json!({"row": row_name(row), "seats": (0..SEATS_A_ROW).map(seat).collect::<Vec<_>>()})
        };
        let name = format!("{seats} seats, {:08x}", rand::random::<u32>());
        let hall = json!({"name": name, "rows": (0..rows).map(row).collect::<Vec<_>>()});
        let hall = id_of(&self.admin.post(&format!("/v1/cinemas/{}/halls", self.cinema), &hall).await?)?;
        let first = Timestamp::now() + SignedDuration::from_hours(48);
        progress.message(&format!("making {count} shows"));
        let bodies = (0..count).map(|n| {
            let starts_at = first + EVERY * i32::try_from(n).unwrap_or(i32::MAX);
            json!({
                "hall_id": hall, "movie_id": self.movie, "starts_at": starts_at,
                "prices": [{"seat_type": "standard", "category": "adult", "amount": 1000}],
            })
        });
        let made = stream::iter(bodies).map(|body| async move { self.admin.post("/v1/shows", &body).await });
        let made: Vec<Value> = made.buffered(PARALLEL).try_collect().await.context("the bench's shows")?;
        made.iter().map(id_of).collect()
    }
}

/// A seat's name in these halls, by its number.
pub fn seat_name(seat: u32) -> String {
    format!("{}{}", row_name(seat / SEATS_A_ROW), seat % SEATS_A_ROW + 1)
}

fn row_name(row: u32) -> String {
    let letter = |n: u32| char::from(b'A' + (n % 26) as u8);
    if row < 26 { letter(row).to_string() } else { format!("{}{}", letter(row / 26 - 1), letter(row)) }
}

/// The address in a process's configuration.
fn listens(config: &Path) -> anyhow::Result<SocketAddr> {
    let text = std::fs::read_to_string(config).with_context(|| {
        format!("{} cannot be read: only the platform's owner can measure it", config.display())
    })?;
    let value = text.lines().find_map(|line| line.strip_prefix("listen = "));
    Ok(value.context("no address in the configuration")?.trim_matches('"').parse()?)
}

async fn cinema(admin: &Api) -> anyhow::Result<String> {
    let cinema = json!({
        "name": format!("Bench {:08x}", rand::random::<u32>()), "address": "1 Bench Street",
        "latitude": 52.5, "longitude": 13.4, "time_zone": "Europe/Berlin", "currency": "EUR",
    });
    id_of(&admin.post("/v1/cinemas", &cinema).await?)
}

/// Any film that the region knows; a new one where there is none.
async fn movie(admin: &Api) -> anyhow::Result<String> {
    let known = async || {
        let list = admin.get("/v1/movies?limit=1").await?;
        Ok::<_, Failure>(list["items"][0]["id"].as_str().map(str::to_owned))
    };
    if let Some(known) = known().await? {
        return Ok(known);
    }
    let film = json!({"title": "A film", "release_date": "2026-01-01", "runtime_min": 100});
    admin.post("/v1/movies", &film).await?;
    let deadline = Instant::now() + FEED_PATIENCE;
    while Instant::now() < deadline {
        if let Some(known) = known().await? {
            return Ok(known);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the region did not hear of a new film within {FEED_PATIENCE:?}")
}

fn id_of(answer: &Value) -> anyhow::Result<String> {
    answer["id"].as_str().map(str::to_owned).with_context(|| format!("an answer without an id: {answer}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_have_names_of_their_own() {
        let names: std::collections::BTreeSet<String> = (0..5_000).map(seat_name).collect();
        assert_eq!(names.len(), 5_000);
        assert!(
            names.contains("A1") && names.contains("Z50") && names.contains("AA1") && names.contains("CV50")
        );
    }
}
