//! The OpenAPI document against the running gateway: schemathesis calls every documented operation with
//! generated input, as a customer, as an employee of a region and as an admin, then as an admin on things that
//! exist, and checks every answer against the document.
//!
//! Runs when `E2E_SCHEMATHESIS` names the program; `scripts/test` installs it and sets that.

use std::fmt::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, list, text};
use crate::routes::operation_ids;
use crate::stage;
use crate::world::{World, step};

/// All that it has but `positive_data_acceptance`, which takes it that whatever has the documented form is accepted:
/// cursors, ids, mail tokens and signatures have a form that anybody can write and only we can fill, and of
/// passwords the usual ones are refused.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,negative_data_rejection,missing_required_header,\
    unsupported_method,allow_header_conformance,ignored_auth,use_after_free,ensure_resource_availability,\
    object_level_authorization";

/// Left out, with why. A name that the document does not have fails the run.
const EXCLUDED: &[(&str, &str)] = &[
    ("logout", "ends the caller's own session: every call after it would be 401"),
    ("end_all_sessions", "ends the caller's own session too"),
    ("delete_me", "ends the caller's account"),
    ("end_session", "ids are learnt from answers: it would find the caller's own session"),
    ("watch_seats", "its answer never ends"),
    ("cancel_show", "ids are learnt from answers: it would end the shows that other calls need"),
    ("remove_policy", "its documented example is a rule that the platform stands on"),
    ("drain_region", "its documented example is a region of the platform: all its shows would move away"),
    ("declare_region_restored", "its documented example is a region, which would have to recover every show"),
    ("give_up_region", "its documented example is a region, which may be down for a moment"),
];

/// Left out where ids are not ours to say: accounts learnt from lists, the platform's own among them.
const EXCLUDED_WITHOUT_OWN_IDS: &[&str] = &["disable_user", "set_user_roles"];

/// It writes no lines of JSON by itself; an example of them is text already.
const SERIALIZER: &str = r#"
import schemathesis

@schemathesis.serializer("application/x-ndjson")
def lines(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()
"#;

const CASES_PER_OPERATION: u32 = 8;
/// Below what one caller may write; waiting for a 429's end instead would wait for the throttle of sign-in too.
const RATE: &str = "45/s";
const LIMIT: Duration = Duration::from_secs(180);

pub async fn walk(world: Arc<World>) {
    let Some(program) = std::env::var_os("E2E_SCHEMATHESIS") else {
        step("schemathesis is not named by E2E_SCHEMATHESIS: left out");
        return;
    };
    let world = &*world;
    let document = world.gateway("eu").get("/v1/openapi.json").await.ok(200);
    let known = operation_ids(&document);
    for operation in EXCLUDED.iter().map(|(name, _)| name).chain(EXCLUDED_WITHOUT_OWN_IDS) {
        assert!(known.iter().any(|k| k == operation), "`{operation}` is excluded and not among {known:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (generated, real) = (folder.path().join("generated.toml"), folder.path().join("real.toml"));
    std::fs::write(&generated, "").unwrap();
    std::fs::write(folder.path().join("serializer.py"), SERIALIZER).unwrap();
    // Not the platform's own admin: what is done with it must not bind what follows.
    let admin = world.appointed("eu", json!([{"role": "admin"}])).await.client;
    std::fs::write(&real, real_ids(world, &admin).await).unwrap();
    let employee = world.appointed("eu", json!([{"role": "employee", "region": "eu"}])).await.client;
    let customer = world.customer("eu").await.client;

    let before = rules(&admin).await;
    let mut failed = Vec::new();
    for (who, client, config) in [
        ("a customer", &customer, &generated),
        ("an employee", &employee, &generated),
        ("an admin", &admin, &generated),
        ("an admin on what exists", &admin, &real),
    ] {
        let seed = (world.seed & 0xffff_ffff).to_string();
        let mut command = tokio::process::Command::new(&program);
        command
            .arg("--config-file")
            .arg(config)
            .args(["run", &format!("{}/v1/openapi.json", client.base()), "--url", client.base()])
            .args(["--header", &format!("Authorization: Bearer {}", client.token())])
            .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing,stateful"])
            .args(["--max-examples", &CASES_PER_OPERATION.to_string(), "--seed", &seed])
            // One worker: ast.parse of CPython 3.11 fails at random when threads call it at once.
            .args(["--workers", "1", "--request-timeout", "40", "--rate-limit", RATE])
            .args(["--continue-on-failure", "--generation-database", "none", "--no-shrink"])
            .args(["--suppress-health-check", "all", "--warnings", "off", "--no-color"])
            .current_dir(folder.path())
            .env("PYTHONUTF8", "1")
            .env("PYTHONPATH", folder.path())
            .env("SCHEMATHESIS_HOOKS", "serializer")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let others: &[&str] = if config == &real { &[] } else { EXCLUDED_WITHOUT_OWN_IDS };
        if config == &real {
            command.args(["--include-path-regex", r"\{id\}"]);
        }
        for operation in EXCLUDED.iter().map(|(name, _)| name).chain(others) {
            command.args(["--exclude-operation-id", operation]);
        }
        let started = Instant::now();
        let output = tokio::time::timeout(LIMIT, command.output()).await;
        let output =
            output.unwrap_or_else(|_| panic!("schemathesis as {who} took more than {LIMIT:?}")).unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let cases = said.lines().find(|l| l.contains(" generated, ")).unwrap_or("no cases").trim();
        let seconds = started.elapsed().as_secs();
        step(&format!("schemathesis as {who}, seed {seed}: {cases}, {} after {seconds} s", output.status));
        if !output.status.success() {
            let complained = String::from_utf8_lossy(&output.stderr);
            failed.push(format!("as {who}:\n{said}\n{complained}"));
        }
        // Otherwise all it saw were refusals of its token.
        client.get("/v1/me").await.ok(200);
    }
    // Rules that were made of what answers told would bind what follows: customers at the door, say.
    for rule in rules(&admin).await.iter().filter(|rule| !before.contains(rule)) {
        step(&format!("a rule that was added goes again: {rule}"));
        let answer = admin.call(Method::DELETE, "/v1/policies").json(rule.clone()).await;
        assert!(answer.status.is_success(), "{answer}");
    }
    assert!(failed.is_empty(), "the document and the answers differ\n{}", failed.join("\n\n"));
}

async fn rules(admin: &Client) -> Vec<Value> {
    let all = admin.get("/v1/policies?limit=200").await.ok(200);
    assert!(all["next_cursor"].is_null(), "more than a page of rules");
    list(&all, "items")
}

/// A configuration by which path parameters name things that exist, so that good answers are seen too.
async fn real_ids(world: &World, admin: &Client) -> String {
    let show = stage::new_show(world, "eu", 10, 10).await;
    let (paid, payment) = stage::buy(admin, &show.id, &["A1"]).await;
    let ids = [
        ("shows", show.id),
        ("halls", show.hall),
        ("cinemas", show.cinema),
        ("movies", show.movie),
        ("reservations", text(&paid, "id")),
        ("payments", text(&payment, "id")),
        ("tickets", text(&list(&paid, "tickets")[0], "id")),
        ("users", world.customer("eu").await.id),
    ];
    let mut config = String::new();
    for (kind, id) in ids {
        writeln!(config, "[[operations]]\ninclude-path-regex = '^/v1/{kind}/\\{{id\\}}'").unwrap();
        writeln!(config, "parameters = {{ \"path.id\" = \"{id}\" }}\n").unwrap();
    }
    config
}
