//! The demo: accounts, films, nine cinemas and a week of shows, made through the public API as an admin
//! would. Repeating it doubles nothing and adds the days that are missing.

pub mod data;
pub mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use common::RegionName;
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::{Api, Failure, encode};
use crate::import;
use crate::launcher::{Account, Progress, Run, Secrets};

/// In the data folder: the digest of the film list that has been imported.
pub(crate) const IMPORTED_FILE: &str = "films-imported";
/// Requests under way at once.
const PARALLEL: usize = 16;
/// How long a region may take to hear of a film that `global` has taken in.
const FEED_PATIENCE: Duration = Duration::from_secs(30);

/// Fills the platform and answers the accounts beside the admin's.
pub async fn demo(run: &Run, folder: &Path, progress: &Progress) -> anyhow::Result<Vec<Account>> {
    let admin = run.account("admin").context("there is no admin account")?;
    let (_, first) = run.gateways.iter().next().context("there is no gateway")?;
    let api = Api::new(first)?
        .signed_in(&admin.username, &admin.password)
        .await
        .context("the admin cannot sign in")?;
    let regions: Vec<RegionName> = run.gateways.keys().map(|r| r.parse()).collect::<Result<_, _>>()?;
    let demo = data::demo();

    let people = wanted_accounts(&regions, folder)?;
    let accounts = async {
        let each = stream::iter(&people).map(|account| ensure_account(&api, account));
        each.buffer_unordered(4).try_collect::<()>().await.context("the demo's accounts")
    };
    let films = async {
        if programme(&api, &demo.films).await?.len() < demo.films.len() {
            import::movies(&api, &data::programme_csv(&demo.films)?, &Progress::silent()).await?;
        }
        anyhow::Ok(())
    };
    futures::try_join!(accounts, films)?;
    progress.line("the demo's accounts are there");

    // The programme's films are there; all others come in while cinemas and shows are made.
    let dealt = data::distribute(&demo.cinemas, &regions);
    let catalogue = whole_catalogue(&api, run, folder, progress);
    let in_regions = futures::future::try_join_all(dealt.iter().map(|(region, cinemas)| {
        let api = api.at(&run.gateways[region.as_str()]);
        let films = &demo.films;
        async move {
            let made = in_region(&api, region, cinemas, films, progress).await;
            made.with_context(|| format!("the cinemas of {region}"))
        }
    }));
    let ((), shows) = futures::try_join!(catalogue, in_regions)?;
    let shows: usize = shows.into_iter().sum();
    progress.line(&format!("{} cinemas are there; {shows} shows were added", demo.cinemas.len()));
    Ok(people)
}

/// Imports all films, unless that has been done, and waits until every region has heard of the last of them.
async fn whole_catalogue(api: &Api, run: &Run, folder: &Path, progress: &Progress) -> anyhow::Result<()> {
    let file = folder.join(IMPORTED_FILE);
    let digest = ring::digest::digest(&ring::digest::SHA256, data::MOVIES_CSV.as_bytes());
    let digest = data_encoding::HEXLOWER.encode(digest.as_ref());
    if std::fs::read_to_string(&file).is_ok_and(|known| known == digest) {
        return Ok(());
    }
    let summary = import::movies(api, data::MOVIES_CSV.as_bytes(), progress).await.context("the films")?;
    progress.line(&format!("{} films are there; {} rows were no films", summary.kept(), summary.bad.len()));
    if let Some(last) = &summary.last_created {
        let deadline = Instant::now() + FEED_PATIENCE;
        for (region, gateway) in &run.gateways {
            let api = api.at(gateway);
            let search = format!("/v1/movies?q={}&limit=20", encode(last));
            loop {
                let found = api.get(&search).await?;
                if found["items"].as_array().into_iter().flatten().any(|m| m["title"] == last.as_str()) {
                    break;
                }
                if Instant::now() >= deadline {
                    progress.line(&format!("{region} is still taking films in"));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    std::fs::write(&file, digest).with_context(|| format!("{} cannot be written", file.display()))
}

fn wanted_accounts(regions: &[RegionName], folder: &Path) -> anyhow::Result<Vec<Account>> {
    let mut wanted = vec![("operator".to_owned(), "operator", None)];
    for region in regions {
        for role in ["manager", "employee"] {
            wanted.push((format!("{role}-{region}"), role, Some(region.to_string())));
        }
    }
    wanted.extend(["alice", "bob"].map(|name| (name.to_owned(), "customer", None)));
    let names: Vec<String> = wanted.iter().map(|(name, _, _)| format!("account-{name}")).collect();
    let secrets = Secrets::open(folder, &names)?;
    Ok(wanted
        .into_iter()
        .map(|(username, role, region)| Account {
            password: secrets.get(&format!("account-{username}")).to_owned(),
            username,
            role: role.to_owned(),
            region,
        })
        .collect())
}

async fn ensure_account(api: &Api, account: &Account) -> anyhow::Result<()> {
    let mut name = account.username.replace('-', " ");
    name[..1].make_ascii_uppercase();
    let sign_up = json!({
        "email": format!("{}@marquee.example", account.username),
        "username": account.username,
        "name": name,
        "password": account.password,
    });
    let id = match api.post("/v1/auth/signup", &sign_up).await {
        Ok(user) => user["id"].as_str().map(str::to_owned),
        Err(failure) if ["username-taken", "email-taken"].contains(&failure.code()) => {
            if account.role == "customer" {
                return Ok(());
            }
            let users = api.list(&format!("/v1/users?q={}", encode(&account.username))).await?;
            let user = users.iter().find(|u| u["username"] == account.username.as_str());
            user.and_then(|u| u["id"].as_str()).map(str::to_owned)
        }
        Err(failure) => return Err(failure.into()),
    };
    if account.role == "customer" {
        return Ok(());
    }
    let id = id.with_context(|| format!("the account {} has no id", account.username))?;
    let mut role = json!({"role": account.role});
    if let Some(region) = &account.region {
        role["region"] = json!(region);
    }
    api.put(&format!("/v1/users/{id}/roles"), &json!([role])).await?;
    Ok(())
}

/// The programme's films that this gateway's region knows with their runtime.
async fn programme(api: &Api, titles: &[String]) -> anyhow::Result<Vec<plan::Film>> {
    let found: Vec<Option<plan::Film>> = stream::iter(titles)
        .map(|title| async move {
            let movies = api.get(&format!("/v1/movies?q={}&limit=20", encode(title))).await?;
            let film = movies["items"].as_array().into_iter().flatten().find_map(|m| {
                let runtime_min = m["runtime_min"].as_i64().filter(|_| m["title"] == title.as_str())?;
                Some(plan::Film { id: m["id"].as_str()?.to_owned(), runtime_min })
            });
            Ok::<_, Failure>(film)
        })
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// Makes one region's cinemas, halls and shows. Answers how many shows were added.
async fn in_region(
    api: &Api,
    region: &RegionName,
    cinemas: &[data::Cinema],
    titles: &[String],
    progress: &Progress,
) -> anyhow::Result<usize> {
    let halls = stream::iter(cinemas)
        .map(|cinema| ensure_cinema(api, cinema))
        .buffered(cinemas.len().max(1))
        .try_collect::<Vec<_>>();
    let films = async {
        let deadline = Instant::now() + FEED_PATIENCE;
        loop {
            let films = programme(api, titles).await?;
            if films.len() == titles.len() {
                return anyhow::Ok(films);
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "{region} knows only {} of the programme's {} films",
                films.len(),
                titles.len()
            );
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    };
    let (halls, films) = futures::try_join!(halls, films)?;

    let mut wanted = Vec::new();
    for (cinema, (cinema_id, hall_ids)) in cinemas.iter().zip(halls) {
        wanted.extend(missing_shows(api, cinema, &cinema_id, &hall_ids, &films).await?);
    }
    progress.add_total(wanted.len() as u64);
    progress.message(&format!("{region}: {} shows", wanted.len()));
    let added: Vec<bool> = stream::iter(wanted)
        .map(|body| async move {
            let made = api.post("/v1/shows", &body).await;
            progress.tick(1);
            match made {
                Ok(_) => Ok(true),
                // Somebody's own show stands there.
                Err(failure) if failure.code() == "hall-busy" => Ok(false),
                Err(failure) => Err(failure),
            }
        })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    Ok(added.into_iter().filter(|made| *made).count())
}

/// The cinema's id and its halls' ids in the data file's order.
async fn ensure_cinema(api: &Api, cinema: &data::Cinema) -> anyhow::Result<(String, Vec<String>)> {
    let known = api.list(&format!("/v1/cinemas?q={}", encode(&cinema.name))).await?;
    let known = known.iter().find(|c| c["name"] == cinema.name.as_str());
    let id = match known {
        Some(known) => id_of(known)?,
        None => id_of(&api.post("/v1/cinemas", &cinema.body()).await?)?,
    };
    let details = match known {
        Some(_) => api.get(&format!("/v1/cinemas/{id}")).await?,
        None => Value::Null,
    };
    let mut halls = Vec::new();
    for hall in &cinema.halls {
        let there =
            details["halls"].as_array().into_iter().flatten().find(|h| h["name"] == hall.name.as_str());
        halls.push(match there {
            Some(there) => id_of(there)?,
            None => id_of(&api.post(&format!("/v1/cinemas/{id}/halls"), &hall.body()).await?)?,
        });
    }
    Ok((id, halls))
}

fn id_of(answer: &Value) -> anyhow::Result<String> {
    answer["id"].as_str().map(str::to_owned).with_context(|| format!("an answer without an id: {answer}"))
}

/// The week's shows that are not there yet, as bodies for the API.
async fn missing_shows(
    api: &Api,
    cinema: &data::Cinema,
    cinema_id: &str,
    hall_ids: &[String],
    films: &[plan::Film],
) -> anyhow::Result<Vec<Value>> {
    let zone = TimeZone::get(&cinema.time_zone)?;
    let now = Timestamp::now();
    let until = now + SignedDuration::from_hours(24 * 9);
    let from = now - SignedDuration::from_hours(24);
    let there: BTreeSet<(String, Timestamp)> = api
        .list(&format!("/v1/shows?cinema_id={cinema_id}&from={from:.0}&to={until:.0}"))
        .await?
        .iter()
        .filter_map(|show| {
            let starts_at = show["starts_at"].as_str()?.parse().ok()?;
            Some((show["hall_id"].as_str()?.to_owned(), starts_at))
        })
        .collect();
    // The same hall plans alike in every run: by its place in the data file, not by its id.
    let seed: usize = cinema.name.bytes().map(usize::from).sum();
    let mut wanted = BTreeMap::new();
    for (number, hall_id) in hall_ids.iter().enumerate() {
        for date in plan::week(now, &zone) {
            for show in plan::day(seed * 4 + number, date, &zone, films) {
                // Too late to sell.
                let soon = show.starts_at < now + SignedDuration::from_mins(10);
                if soon || there.contains(&(hall_id.clone(), show.starts_at)) {
                    continue;
                }
                wanted.insert(
                    (show.starts_at, number),
                    json!({
                        "hall_id": hall_id,
                        "movie_id": show.movie_id,
                        "starts_at": show.starts_at,
                        "prices": cinema.prices.table(show.evening),
                        "max_seats_per_customer": 10,
                    }),
                );
            }
        }
    }
    // Soonest first.
    Ok(wanted.into_values().collect())
}
