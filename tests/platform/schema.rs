//! The OpenAPI document against the running gateway: schemathesis calls every documented operation with
//! generated input, as a customer and as an admin, and checks every answer against the document.
//!
//! Runs when `MARQUEE_SCHEMATHESIS` names the program; `scripts/test` installs it and sets that.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::routes::operation_ids;
use crate::world::{World, step};

const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// Left out, with why. A name that the document does not have fails the run.
const EXCLUDED: &[(&str, &str)] = &[
    ("log_out", "ends the caller's own session: every call after it would be 401"),
    ("delete_me", "ends the caller's account"),
];

const CASES_PER_OPERATION: u32 = 12;
const LIMIT: Duration = Duration::from_secs(180);

pub async fn walk(world: Arc<World>) {
    let Some(program) = std::env::var_os("MARQUEE_SCHEMATHESIS") else {
        step("schemathesis is not named by MARQUEE_SCHEMATHESIS: left out");
        return;
    };
    let gateway = world.gateway("eu");
    let known = operation_ids(&gateway.get("/v1/openapi.json").await.ok(200));
    for (operation, _) in EXCLUDED {
        assert!(known.iter().any(|k| k == operation), "`{operation}` is excluded and not among {known:?}");
    }
    let seed = (world.seed & 0xffff_ffff).to_string();
    let customer = world.customer("eu").await.client;
    // Not the platform's own admin: what is done with it must not bind what follows.
    let admin = world.appointed("eu", json!([{"role": "admin"}])).await.client;
    let mut failed = Vec::new();
    for (who, client) in [("a customer", customer), ("an admin", admin)] {
        let started = Instant::now();
        let mut command = tokio::process::Command::new(&program);
        command
            .args(["run", &format!("{}/v1/openapi.json", gateway.base()), "--url", gateway.base()])
            .args(["--header", &format!("Authorization: Bearer {}", client.token())])
            .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing"])
            .args(["--max-examples", &CASES_PER_OPERATION.to_string(), "--seed", &seed])
            .args(["--workers", "2", "--request-timeout", "40", "--rate-limit", "auto"])
            .args(["--continue-on-failure", "--generation-database", "none", "--no-shrink"])
            .args(["--suppress-health-check", "all", "--warnings", "off", "--no-color"])
            .current_dir(&world.data)
            .env("PYTHONUTF8", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        for (operation, _) in EXCLUDED {
            command.args(["--exclude-operation-id", operation]);
        }
        let output = tokio::time::timeout(LIMIT, command.output()).await;
        let output =
            output.unwrap_or_else(|_| panic!("schemathesis as {who} took more than {LIMIT:?}")).unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let seconds = started.elapsed().as_secs();
        step(&format!("schemathesis as {who}, seed {seed}: {} after {seconds} s", output.status));
        if !output.status.success() {
            let complained = String::from_utf8_lossy(&output.stderr);
            failed.push(format!("as {who}:\n{said}\n{complained}"));
        }
    }
    assert!(failed.is_empty(), "the document and the answers differ\n{}", failed.join("\n\n"));
}
