//! What `marquee ctl` asks of the platform itself, as an operator, through whichever gateway answers.

use std::path::Path;

use anyhow::Context;
use marquee::api::{Api, Failure};
use marquee::launcher::Run;
use serde_json::{Value, json};

use crate::cli::{Ctl, Order};

pub async fn order(ctl: &Ctl) -> anyhow::Result<()> {
    let api = signed_in(&ctl.data, ctl.url.as_deref()).await?;
    let nothing = json!({});
    match &ctl.order {
        Order::Move { show, to } => {
            let asked = json!({ "to": to });
            let moved = api.post(&format!("/v1/shows/{show}/moves"), &asked).await?;
            println!("{show} moves from {} to {}, epoch {}", moved["from"], moved["to"], moved["epoch"]);
        }
        Order::Drain { region } => {
            tell(&api.post(&format!("/v1/regions/{region}/drain"), &nothing).await?);
        }
        Order::Undrain { region } => {
            tell(&api.post(&format!("/v1/regions/{region}/undrain"), &nothing).await?);
        }
        Order::Restored { region } => {
            tell(&api.post(&format!("/v1/regions/{region}/restored"), &nothing).await?);
        }
        Order::GiveUp { region, at_risk } => {
            let asked = json!({ "at_risk": at_risk });
            let given_up = api.post(&format!("/v1/regions/{region}/give-up"), &asked).await?;
            println!(
                "{} is given up; of {} shows something acknowledged may be lost",
                given_up["name"], given_up["at_risk"]
            );
        }
        Order::Ownership { show } => print(&api.get(&format!("/v1/shows/{show}/ownership")).await?)?,
        Order::Cluster => print(&api.get("/v1/cluster").await?)?,
        Order::Kill(_) | Order::Start(_) | Order::Status => {}
    }
    Ok(())
}

fn tell(region: &Value) {
    println!(
        "{} is {}; it owns {} shows; {} of its own are elsewhere",
        region["name"], region["state"], region["shows"], region["shows_elsewhere"]
    );
}

fn print(answer: &Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(answer)?);
    Ok(())
}

/// A region may be down, and its gateway with it: then the next.
async fn signed_in(data: &Path, url: Option<&str>) -> anyhow::Result<Api> {
    if let Some(url) = url {
        let told = |name: &str| std::env::var(name).with_context(|| format!("set {name}"));
        let (username, password) = (told("MARQUEE_USERNAME")?, told("MARQUEE_PASSWORD")?);
        return Ok(Api::new(url)?.signed_in(&username, &password).await?);
    }
    let run = Run::read(data)?;
    let account = run.account("operator").or_else(|| run.account("admin"));
    let account = account.context("run.json names neither an operator nor an admin")?;
    let mut last = None;
    for gateway in run.gateways.values() {
        match Api::new(gateway)?.impatient().signed_in(&account.username, &account.password).await {
            Ok(api) => return Ok(api),
            Err(refused @ Failure::Refused { status: 400..500, .. }) => return Err(refused.into()),
            Err(other) => last = Some(other),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("run.json names no gateway"), Into::into))
}
