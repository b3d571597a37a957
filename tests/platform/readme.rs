//! The README's purchase, run as it stands there.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crate::stage;
use crate::world::{World, step};

pub async fn walk(world: Arc<World>) {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(readme).expect("the README");
    let purchases: Vec<String> = bash_blocks(&text).into_iter().filter(|b| b.contains("/payments")).collect();
    assert_eq!(purchases.len(), 1, "the README shows one purchase");
    step("runs the README's purchase as it stands");

    let folder = tempfile::tempdir().unwrap();
    let bash = tokio::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", &purchases[0]])
        .env("MARQUEE_DATA", &world.data)
        .env("TMPDIR", folder.path())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(Duration::from_secs(60), bash).await.expect("done in a minute").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "it ended with {}:\n{said}\n{complained}", output.status);
    assert!(said.contains(r#""status": "completed""#), "no completed payment:\n{said}");

    // What it says it did is so.
    let words: Vec<&str> = said.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let id = |prefix: &str| {
        let found = words.iter().find(|w| w.starts_with(prefix));
        (*found.unwrap_or_else(|| panic!("it names no {prefix}…:\n{said}"))).to_owned()
    };
    let admin = world.staff("admin", None).await;
    assert_eq!(stage::reservation_now(&admin, &id("rsv_")).await["status"], "paid");
    let show = common::ids::show_in(&id("tkt_")).expect("a ticket's id carries its show");
    assert!(show.is_home(&"eu".parse().unwrap()), "a show of eu");
    let svg = std::fs::read_to_string(folder.path().join("marquee-ticket.svg")).expect("the QR code's file");
    assert!(svg.contains("<svg"), "{svg}");
}

/// The content of every fenced block that is marked as bash.
fn bash_blocks(markdown: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "```bash" {
            let block: Vec<&str> = lines.by_ref().take_while(|l| l.trim() != "```").collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}
