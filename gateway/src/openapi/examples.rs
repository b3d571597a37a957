//! An example for every call and every error of the merged document: the one that the handler's author gave,
//! else one made from the schema, whose fields have examples of their own.

use serde_json::{Map, Value, json};

use super::merge::{METHODS, entries};

/// Deeper than any schema of ours goes; one that refers to itself ends here.
const MAX_DEPTH: u32 = 8;

/// Completes the document in place.
pub fn complete(document: &mut Value) {
    let schemas = document["components"]["schemas"].clone();
    for (path, item) in entries(&document["paths"]) {
        for method in METHODS.iter().filter(|method| item.get(*method).is_some()) {
            let operation = &mut document["paths"][&path][method];
            if operation.get("requestBody").is_some() {
                contents(&mut operation["requestBody"]["content"], &schemas, None, "");
            }
            for (status, response) in entries(&operation["responses"]) {
                let words = response["description"].as_str().unwrap_or_default().to_owned();
                let content = &mut operation["responses"][&status];
                if content.get("content").is_some() {
                    contents(&mut content["content"], &schemas, Some(&status), &words);
                }
            }
        }
    }
}

fn contents(content: &mut Value, schemas: &Value, status: Option<&str>, words: &str) {
    for (kind, media) in entries(content) {
        if media.get("example").is_some() || media.get("examples").is_some() {
            continue;
        }
        let media = &mut content[&kind];
        match (kind.as_str(), status) {
            ("application/problem+json", Some(status)) => media["examples"] = problems(status, words),
            ("text/event-stream", _) => media["example"] = "id: 1.7\ndata: {}\n\n".into(),
            _ if kind.starts_with("image/") || kind == "application/pdf" => media["example"] = "".into(),
            _ => media["example"] = from_schema(&media["schema"].clone(), schemas, "", 0),
        }
    }
}

/// One example for each code that the description names, else the status's usual one.
fn problems(status: &str, words: &str) -> Value {
    let named: Vec<&str> = words.split('`').skip(1).step_by(2).filter(|word| is_code(word)).collect();
    let usual = [match status {
        "400" => "malformed-request",
        "401" => "invalid-token",
        "402" => "payment-declined",
        "403" => "forbidden",
        "404" => "not-found",
        "405" => "method-not-allowed",
        "408" => "request-timeout",
        "409" => "conflict",
        "412" => "precondition-failed",
        "413" => "body-too-large",
        "415" => "unsupported-media-type",
        "421" => "not-owner",
        "422" => "invalid-request",
        "429" => "rate-limited",
        "502" => "upstream-broken",
        "503" => "region-unavailable",
        "504" => "upstream-timeout",
        _ => "internal",
    }];
    let codes = if named.is_empty() { &usual[..] } else { &named };
    let number: u16 = status.parse().unwrap_or(500);
    let mut examples = Map::new();
    for code in codes {
        let mut body = json!({
            "type": format!("/problems/{code}"),
            "title": code.replace('-', " "),
            "status": number,
            "code": code,
            "detail": words,
            "instance": "req_0199d4f2a7c07d3e8b1f5a6c7d8e9f01",
        });
        if number == 422 {
            body["errors"] = json!([{"field": "name", "message": "must not be empty"}]);
        }
        examples.insert((*code).to_owned(), json!({"value": body}));
    }
    Value::Object(examples)
}

/// `seats-unavailable`, but neither `errors` nor `Retry-After`.
fn is_code(word: &str) -> bool {
    word.contains('-') && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn from_schema(schema: &Value, schemas: &Value, name: &str, depth: u32) -> Value {
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    let again = |schema: &Value, name: &str| from_schema(schema, schemas, name, depth + 1);
    if let Some(to) = schema["$ref"].as_str() {
        let target = to.rsplit('/').next().and_then(|name| schemas.get(name));
        return target.map_or(Value::Null, |target| again(target, name));
    }
    let given = [&schema["example"], &schema["examples"][0], &schema["const"], &schema["enum"][0]];
    if let Some(given) = given.into_iter().chain([&schema["default"]]).find(|given| !given.is_null()) {
        return given.clone();
    }
    for key in ["oneOf", "anyOf"] {
        let mut choices = schema[key].as_array().into_iter().flatten();
        if let Some(choice) = choices.find(|choice| choice["type"] != "null") {
            return again(choice, name);
        }
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let mut whole = Map::new();
        for part in parts {
            if let Value::Object(members) = again(part, name) {
                whole.extend(members);
            }
        }
        return Value::Object(whole);
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        kind => kind.as_str(),
    };
    match kind {
        Some("string") => text(schema, name).into(),
        Some("integer") => schema["minimum"].as_i64().unwrap_or(1).into(),
        Some("number") => schema["minimum"].as_f64().unwrap_or(1.5).into(),
        Some("boolean") => true.into(),
        Some("array") => json!([again(&schema["items"], name)]),
        _ => {
            let members = entries(&schema["properties"]);
            members.iter().map(|(name, member)| (name.clone(), again(member, name))).collect()
        }
    }
}

fn text(schema: &Value, name: &str) -> &'static str {
    match schema["format"].as_str().unwrap_or(name) {
        "date-time" => "2026-11-20T19:30:00Z",
        "date" => "2026-11-20",
        "email" => "ada@example.com",
        "uri" | "url" => "https://marquee.example",
        "password" | "new_password" | "current_password" => "a long and quiet evening",
        "currency" => "EUR",
        "time_zone" => "Europe/Berlin",
        "next_cursor" => "c2hvdw",
        _ => "text",
    }
}

/// What is without an example, as `GET /v1/a 200 application/json`; empty when all is well.
#[cfg(test)]
pub fn missing(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (path, item) in entries(&document["paths"]) {
        for method in METHODS.iter().filter(|method| item.get(*method).is_some()) {
            let operation = &item[*method];
            let mut look = |what: &str, content: &Value| {
                for (kind, media) in entries(content) {
                    let given = !media["example"].is_null() || media["examples"].as_object().is_some();
                    if !given {
                        found.push(format!("{} {path} {what} {kind}", method.to_uppercase()));
                    }
                }
            };
            look("request", &operation["requestBody"]["content"]);
            for (status, response) in entries(&operation["responses"]) {
                look(&status, &response["content"]);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_content_gets_an_example_and_the_authors_own_stays() {
        let problem = json!({"content": {"application/problem+json": {"schema": {}}},
            "description": "`seats-unavailable` or `seat-limit`; see `Retry-After` and `errors`"});
        let seat = json!({"type": "object", "properties": {
            "seat": {"type": "string", "example": "A1"}, "next": {"$ref": "#/components/schemas/Seat"}}});
        let mut document = json!({
            "components": {"schemas": {"Seat": seat}},
            "paths": {"/v1/a": {"post": {
                "requestBody": {"content": {"application/json": {"schema": {"type": "object", "properties": {
                    "seats": {"type": "array", "items": {"$ref": "#/components/schemas/Seat"}},
                    "at": {"type": ["string", "null"], "format": "date-time"},
                    "kind": {"oneOf": [{"type": "null"}, {"enum": ["grid"]}]},
                }}}}},
                "responses": {
                    "200": {"content": {"application/json": {"example": {"mine": 1}}}},
                    "204": {"description": "none"},
                    "409": problem,
                    "503": {"description": "not now", "content": {"application/problem+json": {}}},
                },
            }}},
        });
        assert_eq!(missing(&document).len(), 3, "{:?}", missing(&document));
        complete(&mut document);
        assert_eq!(missing(&document), Vec::<String>::new());
        let post = &document["paths"]["/v1/a"]["post"];
        let request = &post["requestBody"]["content"]["application/json"]["example"];
        assert_eq!((&request["seats"][0]["seat"], &request["kind"]), (&json!("A1"), &json!("grid")));
        assert_eq!(request["at"], "2026-11-20T19:30:00Z");
        assert_eq!(post["responses"]["200"]["content"]["application/json"]["example"], json!({"mine": 1}));
        let conflict = &post["responses"]["409"]["content"]["application/problem+json"]["examples"];
        assert_eq!(
            conflict.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["seat-limit", "seats-unavailable"]
        );
        assert_eq!(conflict["seat-limit"]["value"]["status"], 409);
        let unavailable = &post["responses"]["503"]["content"]["application/problem+json"]["examples"];
        assert!(unavailable["region-unavailable"].is_object());
    }
}
