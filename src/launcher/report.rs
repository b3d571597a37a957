//! What `marquee up` says once all is ready: where to go, who to be, what to type.
#![allow(clippy::print_stdout, reason = "a person reads it")]

use std::path::Path;

use super::run::Run;

pub fn print(run: &Run, data: &Path) {
    println!("\nMarquee is up.\n");
    let rows: Vec<[String; 3]> = run
        .gateways
        .iter()
        .map(|(region, url)| [region.clone(), url.clone(), format!("{url}/docs")])
        .collect();
    table(&["region", "gateway", "API pages"], &rows);

    println!();
    let rows: Vec<[String; 4]> = run
        .accounts
        .iter()
        .map(|a| {
            let region = a.region.clone().unwrap_or_else(|| "everywhere".to_owned());
            [a.role.clone(), region, a.username.clone(), a.password.clone()]
        })
        .collect();
    table(&["role", "region", "username", "password"], &rows);

    println!("\nOperations ports, databases and all else: {}", data.join(Run::FILE).display());
    println!("Logs: {}", data.join("logs").display());
    println!(
        "Mails that are sent: {}; messages: {}",
        data.join("mail").display(),
        data.join("sms").display()
    );
    if let Some(url) = run.gateways.values().next() {
        println!("\nTry it:\n");
        println!("  curl -s '{url}/v1/cinemas?near=48.86,2.35'");
        if let Some(account) = run.account("customer") {
            println!(
                "  curl -s {url}/v1/auth/token -d grant_type=password -d username={} -d password={}",
                account.username, account.password
            );
        }
    }
    println!("\nCtrl-C stops everything; started again, it goes on with the same data.");
}

/// Left-aligned columns under a rule.
fn table<const N: usize>(head: &[&str; N], rows: &[[String; N]]) {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let cells: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("  {}", cells.join("  ").trim_end());
    };
    line(*head);
    println!("  {}", "-".repeat(widths.iter().sum::<usize>() + 2 * (N - 1)));
    for row in rows {
        line(std::array::from_fn(|i| row[i].as_str()));
    }
}
