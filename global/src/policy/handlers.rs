//! `/v1/policies`: the casbin policy, one rule at a time, versioned.

use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use casbin::Adapter;
use common::authz::{Authorized, Inheritance, Rule};
use common::http::{Conditions, Json, Paging, Query, all_fields, tagged};
use common::problem::ProblemDetails;
use common::{FieldError, Problem, RegionName};
use data_encoding::BASE64URL_NOPAD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::adapter::PgAdapter;
use super::store::{Rules, has_admin, last_admin, load, unreadable};
use crate::app::App;
use crate::audit;
use crate::client::Client;
use crate::fault::Result;
use crate::feed::store::{self, Whole};

/// Rules, one page of them, of one version of the policy.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Policies {
    pub items: Vec<Rule>,
    pub next_cursor: Option<String>,
    /// Rises with every change.
    pub version: i64,
    /// Roles that include others: whoever has the one has the other too.
    pub includes: Vec<Includes>,
}

/// Whoever has `role` has `includes` too.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Includes {
    #[schema(example = "manager")]
    pub role: String,
    #[schema(example = "employee")]
    pub includes: String,
}

impl From<Inheritance> for Includes {
    fn from(i: Inheritance) -> Self {
        Self { role: i.role, includes: i.includes }
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PoliciesQuery {
    pub role: Option<String>,
    /// A region, `global`, or `*`.
    pub region: Option<String>,
    pub resource: Option<String>,
    pub action: Option<String>,
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// The policy's rules: which role may do what, where.
#[utoipa::path(get, path = "/v1/policies", tag = "policy", operation_id = "list_policies", params(PoliciesQuery),
    responses(
        (status = 200, description = "The rules", body = Policies),
        (status = 304, description = "The caller has them")))]
pub async fn list(
    State(app): State<App>,
    conditions: Conditions,
    Query(query): Query<PoliciesQuery>,
) -> Result<Response> {
    let paging = Paging { limit: query.limit, cursor: query.cursor };
    let limit = usize::try_from(paging.limit()?).unwrap_or(usize::MAX);
    let after = match paging.after()? {
        Some(text) => Some(from_cursor(&text)?),
        None => None,
    };
    let (version, all) = {
        let mut db = app.db().await?;
        let builder = db.build_transaction().read_only(true);
        let tx = builder.isolation_level(tokio_postgres::IsolationLevel::RepeatableRead).start().await?;
        (store::version(&tx, Whole::Policy).await?.unwrap_or_default(), load(&tx).await?)
    };
    let fits = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w == found);
    let mut items: Vec<Rule> = all
        .rules
        .into_iter()
        .filter(|r| fits(&query.role, &r.role) && fits(&query.region, &r.region))
        .filter(|r| fits(&query.resource, &r.resource) && fits(&query.action, &r.action))
        .filter(|r| after.as_ref().is_none_or(|a| r > a))
        .collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(to_cursor);
    let includes = all.roles.into_iter().map(Into::into).collect();
    Ok(conditions.answer(version, &Policies { items, next_cursor, version, includes }))
}

fn to_cursor(rule: &Rule) -> String {
    BASE64URL_NOPAD.encode(serde_json::to_string(rule).expect("a rule is plain data").as_bytes())
}

fn from_cursor(text: &str) -> std::result::Result<Rule, Problem> {
    serde_json::from_str(text).map_err(|_| Problem::invalid("cursor", "is not a cursor that this list gave"))
}

/// Add a rule. One that is there already is answered as it is.
#[utoipa::path(post, path = "/v1/policies", tag = "policy", operation_id = "add_policy", request_body = Rule,
    responses(
        (status = 201, description = "The rule holds; `ETag` is the policy's new version", body = Rule),
        (status = 200, description = "The rule held already", body = Rule),
        (status = 412, description = "`precondition-failed`", body = ProblemDetails,
            content_type = "application/problem+json")))]
pub async fn add(
    State(app): State<App>,
    authorized: Authorized,
    conditions: Conditions,
    client: Client,
    Json(rule): Json<Rule>,
) -> Result<Response> {
    all_fields(rule_faults(&rule, &app.config.regions))?;
    let (added, version) = edit(&app, &authorized, &conditions, &client, Edit::Add, &rule).await?;
    let status = if added { StatusCode::CREATED } else { StatusCode::OK };
    Ok(tagged(status, version, &rule))
}

/// The rule of a `DELETE`: in the body, or as query parameters, since not every client sends a body with it.
pub struct NamedRule(Rule);

impl<S: Send + Sync> FromRequest<S> for NamedRule {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> std::result::Result<Self, Problem> {
        if request.uri().query().is_some_and(|q| !q.is_empty()) {
            let (mut parts, _) = request.into_parts();
            use axum::extract::FromRequestParts;
            return Query::from_request_parts(&mut parts, state).await.map(|Query(rule)| Self(rule));
        }
        Json::from_request(request, state).await.map(|Json(rule)| Self(rule))
    }
}

/// Remove a rule, named in the body or by query parameters.
#[utoipa::path(delete, path = "/v1/policies", tag = "policy", operation_id = "remove_policy",
    request_body = Option<Rule>,
    params(
        ("role" = Option<String>, Query, description = "With the other three, instead of a body"),
        ("region" = Option<String>, Query), ("resource" = Option<String>, Query),
        ("action" = Option<String>, Query)),
    responses(
        (status = 204, description = "The rule is gone"),
        (status = 404, description = "`not-found`: there is no such rule", body = ProblemDetails,
            content_type = "application/problem+json"),
        (status = 409, description = "`last-admin`: nobody could administer the platform", body = ProblemDetails,
            content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`", body = ProblemDetails,
            content_type = "application/problem+json")))]
pub async fn remove(
    State(app): State<App>,
    authorized: Authorized,
    conditions: Conditions,
    client: Client,
    NamedRule(rule): NamedRule,
) -> Result<StatusCode> {
    // No rule has a part that Postgres does not take.
    let (removed, _) =
        if [&rule.role, &rule.region, &rule.resource, &rule.action].iter().any(|p| p.contains('\0')) {
            (false, 0)
        } else {
            edit(&app, &authorized, &conditions, &client, Edit::Remove, &rule).await?
        };
    if removed { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found("rule").into()) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Add,
    Remove,
}

/// Edits, checks the whole, and commits it with its version and its audit line. Answers whether anything
/// changed, and the version.
async fn edit(
    app: &App,
    authorized: &Authorized,
    conditions: &Conditions,
    client: &Client,
    edit: Edit,
    rule: &Rule,
) -> Result<(bool, i64)> {
    let actor = authorized.actor()?.user();
    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    store::lock(&tx).await?;
    let present = store::version(&tx, Whole::Policy).await?.unwrap_or_default();
    conditions.require_version(present)?;
    let had_admin = has_admin(&tx, &load(&tx).await?.compile(present).await?).await?;

    let parts = vec![rule.role.clone(), rule.region.clone(), rule.resource.clone(), rule.action.clone()];
    let mut adapter = PgAdapter::new(&tx);
    let changed = match edit {
        Edit::Add => adapter.add_policy("p", "p", parts).await,
        Edit::Remove => adapter.remove_policy("p", "p", parts).await,
    };
    if !changed.map_err(unreadable)? {
        return Ok((false, present));
    }
    let rules: Rules = load(&tx).await?;
    let policy = rules.compile(present + 1).await?;
    if had_admin && !has_admin(&tx, &policy).await? {
        return Err(last_admin().into());
    }
    let (version, position) = store::changed(&tx, Whole::Policy).await?;
    let (before, after) = match edit {
        Edit::Add => (None, Some(json!(rule))),
        Edit::Remove => (Some(json!(rule)), None),
    };
    let entry = audit::Entry {
        actor: Some(actor),
        action: if edit == Edit::Add { "policy.add" } else { "policy.remove" },
        target: format!("policy/{version}"),
        before,
        after,
        address: &client.address,
    };
    audit::write(&tx, entry).await?;
    tx.commit().await?;
    drop(db);
    app.feed.published(position).await;
    Ok((true, version))
}

fn rule_faults(rule: &Rule, regions: &[RegionName]) -> Vec<FieldError> {
    let word = |text: &str| {
        (1..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
    };
    let mut faults = Vec::new();
    let mut check = |field: &str, ok: bool, message: &str| {
        if !ok {
            faults.push(FieldError { field: field.into(), message: message.into() });
        }
    };
    let words = "must be 1 to 64 characters of a-z, 0-9, `_` and `-`, starting with a letter";
    check("role", word(&rule.role), words);
    let known =
        rule.region == "*" || rule.region == "global" || regions.iter().any(|r| r.as_str() == rule.region);
    check("region", known, "must be a region's name, `global` or `*`");
    check("resource", rule.resource == "*" || word(&rule.resource), "must be a resource's name or `*`");
    check("action", rule.action == "*" || word(&rule.action), "must be an action's name or `*`");
    faults
}
