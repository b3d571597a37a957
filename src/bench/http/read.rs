//! `marquee bench show read`: seat maps read from a regional process and through a gateway, against nginx
//! that serves the same bytes as a file, and against bare hyper that has them in memory, on the same machine in
//! the same run.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regional::bench::Seen;
use tokio::task::JoinSet;

use super::bare::Bare;
use super::nginx::{HOW_TO_INSTALL, Nginx, Served};
use super::stage::Stage;
use super::wire::{Wire, get, header};
use crate::bench::turns::{Turn, Work, take_turns};
use crate::bench::{Pace, Report};
use crate::launcher::Progress;

/// As browsers ask.
const HEADERS: &str = "accept-encoding: gzip\r\n";
const SIZES: [(u32, &str); 2] = [(300, "300-seats.json"), (5_000, "5000-seats.json")];

#[derive(Clone, Debug)]
pub struct ReadPlan {
    pub pace: Pace,
    /// Connections, each asking again as soon as it is answered.
    pub clients: usize,
}

pub async fn read(data: &Path, plan: &ReadPlan, progress: &Progress) -> anyhow::Result<Report> {
    let stage = Stage::open(data, 0, progress).await?;
    let (mut files, mut paths) = (Vec::new(), Vec::new());
    for (seats, name) in SIZES {
        let show = stage.shows(seats, 1, progress).await?.remove(0);
        let path = format!("/v1/shows/{show}/seats");
        let mut wire = Wire::connect(stage.regional).await?;
        let answer = wire.ask(&get(stage.regional, &path, HEADERS)).await?;
        anyhow::ensure!(answer.status == 200, "the seat map: {}", answer.status);
        let gzip = header(answer.head, "content-encoding") == Some("gzip");
        files.push(Served { name, bytes: answer.body.to_vec(), gzip });
        paths.push(path);
    }
    let (nginx, bare) = (Nginx::start(&files).await?, Bare::start(&files).await?);
    let mut turns = Vec::new();
    for (((seats, name), path), file) in SIZES.iter().zip(paths).zip(&files) {
        let nginx = nginx.as_ref().map(|nginx| ("nginx", nginx.address(), format!("/{name}")));
        let bare = ("bare hyper", bare.address(), format!("/{name}"));
        let ours = ("marquee", stage.regional, path.clone());
        let gateway = ("marquee, by gateway", stage.gateway, path);
        for (design, address, path) in nginx.into_iter().chain([bare, ours, gateway]) {
            let design = format!("{design}, {seats} seats");
            turns.push(turn(design, address, &path, file.bytes.len(), plan));
        }
    }
    let lines = take_turns(&turns, plan.pace, progress).await?;
    let title = format!("seat maps read over {} connections, as browsers ask", plan.clients);
    let mut report = Report::new("read", title, "reads", plan.pace);
    report.lines = lines;
    for ((seats, _), file) in SIZES.iter().zip(&files) {
        let at = |design: &str| report.best(&format!("{design}, {seats} seats")).map(|l| l.per_second);
        let (ours, theirs, bare) = (at("marquee"), at("nginx"), at("bare hyper"));
        report.ratio(&format!("{seats} seats: marquee over nginx"), 0.7, ours, theirs);
        if let (Some(theirs), Some(bare)) = (theirs, bare) {
            report.notes.push(format!("{seats} seats: bare hyper over nginx is {:.2}", bare / theirs));
        }
        let kind = if file.gzip { "compressed" } else { "not compressed" };
        report.notes.push(format!("{seats} seats: {} bytes, {kind}", file.bytes.len()));
    }
    if nginx.is_none() {
        report.notes.push(HOW_TO_INSTALL.to_owned());
    }
    Ok(report)
}

/// Connections are each turn's own: a server may close those that rest while the others have theirs.
fn turn(design: String, address: SocketAddr, path: &str, bytes: usize, plan: &ReadPlan) -> Turn {
    let (clients, pace) = (plan.clients, plan.pace);
    let request = Arc::new(get(address, path, HEADERS));
    Turn::new(design, Work::Clients(clients), move || {
        let request = request.clone();
        async move {
            let mut wires = Vec::new();
            for _ in 0..clients {
                wires.push(Wire::connect(address).await?);
            }
            let (wires, _) = ask(wires, &request, bytes, pace.warm_up()).await?;
            let (_, seen) = ask(wires, &request, bytes, pace.time).await?;
            Ok(seen)
        }
    })
}

async fn ask(
    wires: Vec<Wire>,
    request: &Arc<Vec<u8>>,
    bytes: usize,
    time: Duration,
) -> anyhow::Result<(Vec<Wire>, Seen)> {
    let (started, mut tasks) = (Instant::now(), JoinSet::new());
    for mut wire in wires {
        let request = request.clone();
        tasks.spawn(async move {
            let mut seen = Seen::default();
            while started.elapsed() < time {
                let asked = Instant::now();
                let answer = wire.ask(&request).await?;
                anyhow::ensure!(
                    answer.status == 200 && answer.body.len() == bytes,
                    "{}, {} bytes instead of {bytes}",
                    answer.status,
                    answer.body.len()
                );
                seen.record(asked);
            }
            anyhow::Ok((wire, seen))
        });
    }
    let (mut wires, mut all) = (Vec::new(), Seen::default());
    while let Some(done) = tasks.join_next().await {
        let (wire, seen) = done??;
        wires.push(wire);
        all.add(seen);
    }
    all.seconds = started.elapsed().as_secs_f64();
    Ok((wires, all))
}
