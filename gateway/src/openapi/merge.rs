//! Merging OpenAPI documents. Of each service's document those operations count that the routing table
//! sends to it; what the gateway itself may answer in their place is added.

use http::Method;
use serde_json::{Value, json};

use crate::routes::{self, Target};

pub const METHODS: [&str; 7] = ["get", "post", "put", "patch", "delete", "head", "options"];

/// `own` wins over both, since what it describes never reaches a service.
pub fn merge(own: Value, mut global: Value, mut regional: Value) -> Value {
    let mut merged = own;
    for (path, item) in entries(&merged["paths"]) {
        for method in METHODS.iter().filter(|method| item.get(*method).is_some()) {
            complete(&mut merged["paths"][&path][method]);
        }
    }
    rename_clashes(&merged, &mut global, "Global");
    adopt_components(&mut merged, &global);
    adopt_paths(&mut merged, &global, |target| target == Target::Global);
    rename_clashes(&merged, &mut regional, "Regional");
    adopt_components(&mut merged, &regional);
    for (path, name) in LISTS {
        if merged["paths"].get(path).is_some() {
            adopt_list(&mut merged, &regional, path, name);
        }
    }
    if let Some(schemas) = merged["components"]["schemas"].as_object_mut() {
        schemas.remove(PAGE);
    }
    let regionals = |target| !matches!(target, Target::Global | Target::Gateway);
    adopt_paths(&mut merged, &regional, regionals);
    merged["components"]["securitySchemes"]["bearer"] =
        json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT"});
    super::examples::complete(&mut merged);
    merged
}

pub fn entries(object: &Value) -> Vec<(String, Value)> {
    object.as_object().map(|o| o.iter().map(|(k, v)| (k.clone(), v.clone())).collect()).unwrap_or_default()
}

/// What any call may get from the edge.
fn complete(operation: &mut Value) {
    let has_body = operation.get("requestBody").is_some();
    let signed_in = operation.get("security").is_some();
    let standard = [
        ("400", "The request is malformed", true),
        ("401", "No valid access token", signed_in),
        ("408", "The body did not arrive in time", has_body),
        ("413", "The body is too large", has_body),
        ("422", "A field is not valid; `errors` names it", true),
        ("429", "Too many requests; `Retry-After` tells when to come back", true),
        ("502", "The service broke off; it may have acted", true),
        ("503", "Not possible now; `Retry-After` tells when to try again", true),
        ("504", "The service did not answer in time; it may have acted", true),
    ];
    if !operation["responses"].is_object() {
        operation["responses"] = json!({});
    }
    for (code, description, applies) in standard {
        if applies && operation["responses"].get(code).is_none() {
            operation["responses"][code] = json!({
                "description": description,
                "content": {"application/problem+json": {
                    "schema": {"$ref": "#/components/schemas/ProblemDetails"}
                }},
            });
        }
    }
}

/// Gives `document`'s schemas another name where `merged` has a different schema of the same name.
fn rename_clashes(merged: &Value, document: &mut Value, prefix: &str) {
    let present = &merged["components"]["schemas"];
    let clashing: Vec<String> = entries(&document["components"]["schemas"])
        .into_iter()
        .filter(|(name, schema)| present.get(name).is_some_and(|other| other != schema))
        .map(|(name, _)| name)
        .collect();
    for name in clashing {
        let renamed = format!("{prefix}{name}");
        redirect(
            document,
            &format!("#/components/schemas/{name}"),
            &format!("#/components/schemas/{renamed}"),
        );
        if let Some(schemas) = document["components"]["schemas"].as_object_mut()
            && let Some(schema) = schemas.remove(&name)
        {
            schemas.insert(renamed, schema);
        }
    }
}

fn redirect(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if name == "$ref" && member == from {
                    *member = to.into();
                } else {
                    redirect(member, from, to);
                }
            }
        }
        Value::Array(members) => members.iter_mut().for_each(|member| redirect(member, from, to)),
        _ => {}
    }
}

fn adopt_components(merged: &mut Value, document: &Value) {
    for (kind, members) in entries(&document["components"]) {
        for (name, member) in entries(&members) {
            let present = &mut merged["components"][&kind];
            if present.get(&name).is_none() {
                present[&name] = member;
            }
        }
    }
    let tags: Vec<Value> = document["tags"].as_array().cloned().unwrap_or_default();
    for tag in tags {
        let present = merged["tags"].as_array().cloned().unwrap_or_default();
        if !present.iter().any(|other| other["name"] == tag["name"]) {
            merged["tags"] = present.into_iter().chain([tag]).collect();
        }
    }
}

fn adopt_paths(merged: &mut Value, document: &Value, serves: impl Fn(Target) -> bool) {
    for (path, item) in entries(&document["paths"]) {
        for (key, member) in entries(&item) {
            let method = METHODS.contains(&key.as_str()).then(|| key.to_ascii_uppercase());
            let served = match method.and_then(|m| m.parse::<Method>().ok()) {
                Some(method) => routes::documented(&method, &path).is_some_and(&serves),
                // Words and parameters for the whole path.
                None => METHODS.iter().any(|m| {
                    let method = m.to_ascii_uppercase().parse::<Method>();
                    let target = method.ok().and_then(|method| routes::documented(&method, &path));
                    item.get(*m).is_some() && target.is_some_and(&serves)
                }),
            };
            if served && merged["paths"][&path].get(&key).is_none() {
                let mut member = member;
                if METHODS.contains(&key.as_str()) {
                    complete(&mut member);
                }
                merged["paths"][&path][&key] = member;
            }
        }
    }
}

/// The gateway's lists of all regions, and what a page of each is called. One schema serves them all in the code.
const LISTS: [(&str, &str); 2] =
    [("/v1/reservations", "ReservationsOfAllRegions"), ("/v1/payments", "PaymentsOfAllRegions")];
const PAGE: &str = "PageOfAllRegions";

/// Such a list holds what the regions' lists hold, and takes what they take.
fn adopt_list(merged: &mut Value, regional: &Value, path: &str, name: &str) {
    let theirs = &regional["paths"][path]["get"];
    let schema = &theirs["responses"]["200"]["content"]["application/json"]["schema"];
    let schema = match schema["$ref"].as_str().and_then(|to| to.strip_prefix('#')) {
        Some(pointer) => regional.pointer(pointer).unwrap_or(schema),
        None => schema,
    };
    let mut page = merged["components"]["schemas"][PAGE].clone();
    if let Some(items) = schema["properties"].get("items") {
        page["properties"]["items"] = items.clone();
    }
    merged["components"]["schemas"][name] = page;
    let reference = |name: &str| format!("#/components/schemas/{name}");
    redirect(&mut merged["paths"][path]["get"], &reference(PAGE), &reference(name));
    let ours = merged["paths"][path]["get"]["parameters"].as_array().cloned().unwrap_or_default();
    let more: Vec<Value> = theirs["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|theirs| !ours.iter().any(|ours| ours["name"] == theirs["name"]))
        .cloned()
        .collect();
    merged["paths"][path]["get"]["parameters"] = ours.into_iter().chain(more).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(id: &str, schema: &str) -> Value {
        json!({"operationId": id, "responses": {"200": {"description": "ok", "content": {"application/json": {
            "schema": {"$ref": format!("#/components/schemas/{schema}")}}}}}})
    }

    #[test]
    fn each_service_speaks_for_what_it_serves() {
        let own = json!({"openapi": "3.1.0", "info": {"title": "Marquee"}, "paths": {
            "/v1/reservations": {"get": operation("ours", PAGE)},
            "/v1/payments": {"get": operation("our_payments", PAGE)}},
            "components": {"schemas": {PAGE: {"properties": {"items": {}}}}}});
        let global = json!({"info": {"title": "global"}, "paths": {
            "/v1/movies": {"get": operation("global_get", "Movie"), "post": operation("global_post", "Movie")},
            "/v1/me": {"get": operation("me", "User")}},
            "components": {"schemas": {"Movie": {"title": "g"}, "User": {}}}});
        let regional = json!({"paths": {
            "/v1/movies": {"get": operation("regional_get", "Movie"), "post": operation("no", "Movie")},
            "/v1/reservations": {"get": operation("theirs", "List")},
            "/v1/payments": {"get": operation("their_payments", "Payments")},
            "/internal": {"get": operation("hidden", "Movie")}},
            "components": {"schemas": {"Movie": {"title": "r"}, "Payments": {"properties": {"items":
                {"type": "array", "items": {"type": "number"}}}}, "List": {"properties": {"items":
                {"type": "array", "items": {"$ref": "#/components/schemas/Movie"}}}}}}});
        let merged = merge(own, global, regional);

        let paths = &merged["paths"];
        assert_eq!(merged["info"]["title"], "Marquee");
        assert_eq!(paths["/v1/movies"]["get"]["operationId"], "regional_get");
        assert_eq!(paths["/v1/movies"]["post"]["operationId"], "global_post");
        assert_eq!(paths["/v1/me"]["get"]["operationId"], "me");
        assert_eq!(paths["/v1/reservations"]["get"]["operationId"], "ours");
        assert!(paths.get("/internal").is_none());
        assert!(paths["/v1/me"]["get"]["responses"]["504"].is_object());
        // Two schemas of one name stay apart, and every reference finds its own.
        let of = |path: &str, method: &str| {
            let schema = &paths[path][method]["responses"]["200"]["content"]["application/json"]["schema"];
            merged.pointer(schema["$ref"].as_str().unwrap().strip_prefix('#').unwrap()).unwrap().clone()
        };
        assert_eq!(of("/v1/movies", "get")["title"], "r");
        assert_eq!(of("/v1/movies", "post")["title"], "g");
        let items = &of("/v1/reservations", "get")["properties"]["items"]["items"]["$ref"];
        assert_eq!(items, "#/components/schemas/RegionalMovie");
        assert_eq!(of("/v1/payments", "get")["properties"]["items"]["items"]["type"], "number");
        assert_eq!(super::super::examples::missing(&merged), Vec::<String>::new());
    }
}
