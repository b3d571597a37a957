//! The document that integrators build on: reviewed as a snapshot, with an example for every call and every
//! error, and good for a TypeScript client that compiles.
//!
//! The client is made when `E2E_NODE_MODULES` names a folder with `openapi-typescript`,
//! `openapi-fetch` and `typescript`; `scripts/test` installs them and sets that.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::routes::compare;
use crate::world::{World, step};

const LIMIT: Duration = Duration::from_secs(60);

/// What an integrator would write first. Each line that must not compile says so.
const CLIENT: &str = r#"
import createClient from "openapi-fetch";
import type { paths } from "./schema";

const marquee = createClient<paths>({ baseUrl: "https://eu.marquee.example" });

export async function buy(show: string, key: string): Promise<string> {
  const { data, error } = await marquee.POST("/v1/shows/{id}/reservations", {
    params: { path: { id: show }, header: { "Idempotency-Key": key } },
    body: { seats: [{ seat: "A1", category: "adult" }] },
  });
  if (error !== undefined) throw new Error(error.code);
  const id: string = data.id;
  const cents: number = data.total.amount;
  return `${id} ${cents}`;
}

export async function nearest(): Promise<string> {
  const { data } = await marquee.GET("/v1/regions/nearest");
  return data === undefined ? "" : `${data.region}: ${data.reason}`;
}

// @ts-expect-error: there is no such path
marquee.GET("/v1/nothing");
// @ts-expect-error: a price is never the client's to say
marquee.POST("/v1/shows/{id}/reservations", { body: { price: 1 } });
"#;

pub async fn walk(world: Arc<World>) {
    let document = world.gateway("eu").get("/v1/openapi.json").await.ok(200);
    let without = without_example(&document);
    assert!(without.is_empty(), "without an example: {without:#?}");
    compare("openapi.json", &format!("{:#}\n", reviewed(&document)));
    step("the document is the reviewed one, and has an example for every call and error");
    typescript(&document).await;
}

/// The document as it is reviewed: of each error's answer only the codes, since all have one shape.
fn reviewed(document: &Value) -> Value {
    let mut document = document.clone();
    let paths = document["paths"].as_object_mut().unwrap().values_mut();
    let operations = paths.flat_map(|path| path.as_object_mut().unwrap().values_mut());
    for responses in operations.filter_map(|operation| operation.get_mut("responses")) {
        for (_, answer) in
            responses.as_object_mut().unwrap().iter_mut().filter(|(status, _)| status.as_str() >= "400")
        {
            let examples = &answer["content"]["application/problem+json"]["examples"];
            let codes = examples.as_object().map(|codes| codes.keys().cloned().collect::<Vec<_>>());
            *answer = json!({ "description": answer["description"], "codes": codes });
        }
    }
    document
}

/// Looked for anew here: the gateway that fills them in must not be its own judge.
fn without_example(document: &Value) -> Vec<String> {
    let mut without = Vec::new();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 30, "{} paths", paths.len());
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            let Some(responses) = operation["responses"].as_object() else { continue };
            let errors = responses.iter().filter(|(status, _)| status.starts_with(['4', '5']));
            for (status, response) in errors {
                let examples = &response["content"]["application/problem+json"]["examples"];
                let good = examples.as_object().is_some_and(|examples| {
                    !examples.is_empty()
                        && examples.iter().all(|(code, example)| example["value"]["code"] == code.as_str())
                });
                if !good {
                    without.push(format!("{method} {path}: {status}"));
                }
            }
            let contents = responses.values().chain([&operation["requestBody"]]);
            for (kind, media) in contents.filter_map(|c| c["content"].as_object()).flatten() {
                if media.get("example").is_none() && media.get("examples").is_none() {
                    without.push(format!("{method} {path}: {kind}"));
                }
            }
        }
    }
    without
}

async fn typescript(document: &Value) {
    let Some(modules) = std::env::var_os("E2E_NODE_MODULES") else {
        step("no npm packages are named by E2E_NODE_MODULES: no TypeScript client is made");
        return;
    };
    let modules = Path::new(&modules);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("openapi.json"), document.to_string()).unwrap();
    std::fs::write(file("client.ts"), CLIENT).unwrap();
    std::os::unix::fs::symlink(modules, file("node_modules")).unwrap();
    run(folder.path(), &modules.join(".bin/openapi-typescript"), &["openapi.json", "-o", "schema.d.ts"])
        .await;
    let strict = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext"];
    let rest = ["--moduleResolution", "bundler", "--lib", "es2022,dom", "schema.d.ts", "client.ts"];
    run(folder.path(), &modules.join(".bin/tsc"), &[&strict[..], &rest[..]].concat()).await;
    step("a TypeScript client made from the document compiles");
}

async fn run(folder: &Path, program: &Path, arguments: &[&str]) {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).current_dir(folder).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.expect("it ends in time").unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&said));
}
