//! `/v1/users`: what admins do with accounts.

use axum::extract::State;
use axum::response::Response;
use common::authz::{Authorized, RoleGrant};
use common::http::{Conditions, Json, JsonList, Page, Paging, Path, Query, all_fields, tagged};
use common::problem::ProblemDetails;
use common::{FieldError, Problem, RegionName, UserId};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{User, sessions, store};
use crate::app::App;
use crate::audit::{self, parse_cursor, plain};
use crate::client::Client;
use crate::db::contains_pattern;
use crate::fault::Result;
use crate::feed;
use crate::policy::store::{Rules, has_admin, last_admin, load};

/// Roles that mean something in a region only, and those that mean something everywhere only; any other
/// role may be held either way.
const IN_REGIONS: [&str; 2] = ["employee", "manager"];
const EVERYWHERE: [&str; 3] = ["admin", "operator", "customer"];
const MAX_ROLES: usize = 100;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsersQuery {
    /// Part of the email address, the username or the name.
    pub q: Option<String>,
    /// Only holders of this role.
    pub role: Option<String>,
    /// Only holders of a role in this region.
    pub region: Option<RegionName>,
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// Accounts, oldest first.
#[utoipa::path(get, path = "/v1/users", tag = "accounts", operation_id = "list_users", params(UsersQuery),
    responses((status = 200, description = "The accounts", body = Page<User>)))]
pub async fn list(State(app): State<App>, Query(query): Query<UsersQuery>) -> Result<Json<Page<User>>> {
    let paging = Paging { limit: query.limit, cursor: query.cursor };
    let limit = paging.limit()?;
    let checked = |field: &str, text: Option<String>| match text {
        // An empty search is no search.
        Some(text) if !text.is_empty() => plain(field, text).map(Some),
        _ => Ok(None),
    };
    let filter = store::Filter {
        pattern: checked("q", query.q)?.map(|q| contains_pattern(q.trim())),
        role: checked("role", query.role)?,
        region: query.region,
        after: parse_cursor(&paging)?,
        limit: limit + 1,
    };
    let users = store::list(&app.db().await?, &filter).await?;
    Ok(Json(Page::of(users, limit, |user| user.id.to_string())))
}

/// One account.
#[utoipa::path(get, path = "/v1/users/{id}", tag = "accounts", operation_id = "get_user",
    params(("id" = UserId, Path, description = "The account")),
    responses(
        (status = 200, description = "The account", body = User),
        (status = 304, description = "The caller has it")))]
pub async fn get(State(app): State<App>, conditions: Conditions, Path(id): Path<UserId>) -> Result<Response> {
    let account = store::find(&app.db().await?, id).await?.ok_or_else(|| Problem::not_found("user"))?;
    Ok(conditions.answer(account.user.version, &account.user))
}

/// Disable an account: it cannot sign in, and its sessions end everywhere within seconds.
#[utoipa::path(post, path = "/v1/users/{id}/disable", tag = "accounts", operation_id = "disable_user",
    params(("id" = UserId, Path, description = "The account")),
    responses(
        (status = 200, description = "The account, disabled", body = User),
        (status = 409, description = "`last-admin`: nobody could administer the platform", body = ProblemDetails,
            content_type = "application/problem+json")))]
pub async fn disable(
    State(app): State<App>,
    authorized: Authorized,
    client: Client,
    Path(id): Path<UserId>,
) -> Result<Response> {
    set_disabled(&app, &authorized, &client, id, true).await
}

/// Let a disabled account sign in again.
#[utoipa::path(post, path = "/v1/users/{id}/enable", tag = "accounts", operation_id = "enable_user",
    params(("id" = UserId, Path, description = "The account")),
    responses((status = 200, description = "The account, enabled", body = User)))]
pub async fn enable(
    State(app): State<App>,
    authorized: Authorized,
    client: Client,
    Path(id): Path<UserId>,
) -> Result<Response> {
    set_disabled(&app, &authorized, &client, id, false).await
}

async fn set_disabled(
    app: &App,
    authorized: &Authorized,
    client: &Client,
    id: UserId,
    disabled: bool,
) -> Result<Response> {
    let not_found = || Problem::not_found("user");
    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    feed::store::lock(&tx).await?;
    let before = store::find_for_update(&tx, id).await?.filter(|a| !a.deleted).ok_or_else(not_found)?.user;
    if before.disabled == disabled {
        return Ok(tagged(StatusCode::OK, before.version, &before));
    }
    let policy = load(&tx).await?.compile(0).await?;
    let had_admin = has_admin(&tx, &policy).await?;
    let token_version = store::set_disabled(&tx, id, disabled).await?;
    if had_admin && !has_admin(&tx, &policy).await? {
        return Err(last_admin().into());
    }
    if disabled {
        // Their access tokens are void with the user's; this stops their refresh tokens.
        sessions::end_all(&tx, id, None).await?;
    }
    let position = feed::store::revoke_user(&tx, id, token_version, app.tokens_expired_at()).await?;
    let entry = audit::Entry {
        actor: Some(authorized.actor()?.user()),
        action: if disabled { "user.disable" } else { "user.enable" },
        target: id.to_string(),
        before: Some(json!({ "disabled": before.disabled })),
        after: Some(json!({ "disabled": disabled })),
        address: &client.address,
    };
    audit::write(&tx, entry).await?;
    let after = store::find(&tx, id).await?.ok_or_else(not_found)?.user;
    tx.commit().await?;
    drop(db);
    app.feed.published(position).await;
    Ok(tagged(StatusCode::OK, after.version, &after))
}

/// Replace an account's roles. The account's access tokens are void at once; renewed ones carry the new roles.
#[utoipa::path(put, path = "/v1/users/{id}/roles", tag = "accounts", operation_id = "set_user_roles",
    params(
        ("id" = UserId, Path, description = "The account"),
        ("If-Match" = Option<String>, Header, description = "Only if the account is still at this `ETag`")),
    request_body = Vec<RoleGrant>,
    responses(
        (status = 200, description = "The account with its new roles", body = User),
        (status = 409, description = "`last-admin`: nobody could administer the platform", body = ProblemDetails,
            content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`", body = ProblemDetails,
            content_type = "application/problem+json")))]
pub async fn set_roles(
    State(app): State<App>,
    authorized: Authorized,
    conditions: Conditions,
    client: Client,
    Path(id): Path<UserId>,
    JsonList(roles): JsonList<RoleGrant>,
) -> Result<Response> {
    let not_found = || Problem::not_found("user");
    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    feed::store::lock(&tx).await?;
    let before = store::find_for_update(&tx, id).await?.filter(|a| !a.deleted).ok_or_else(not_found)?.user;
    let rules = load(&tx).await?;
    all_fields(role_faults(&roles, &rules, &app.config.regions))?;
    conditions.require_version(before.version)?;
    let policy = rules.compile(0).await?;
    let had_admin = has_admin(&tx, &policy).await?;
    let token_version = store::set_roles(&tx, id, &roles).await?;
    if had_admin && !has_admin(&tx, &policy).await? {
        return Err(last_admin().into());
    }
    let position = feed::store::revoke_user(&tx, id, token_version, app.tokens_expired_at()).await?;
    let after = store::find(&tx, id).await?.ok_or_else(not_found)?.user;
    let entry = audit::Entry {
        actor: Some(authorized.actor()?.user()),
        action: "user.roles",
        target: id.to_string(),
        before: Some(json!({ "roles": before.roles })),
        after: Some(json!({ "roles": after.roles })),
        address: &client.address,
    };
    audit::write(&tx, entry).await?;
    tx.commit().await?;
    drop(db);
    app.feed.published(position).await;
    Ok(tagged(StatusCode::OK, after.version, &after))
}

fn role_faults(roles: &[RoleGrant], rules: &Rules, regions: &[RegionName]) -> Vec<FieldError> {
    let mut faults = Vec::new();
    let mut fault = |field: String, message: String| faults.push(FieldError { field, message });
    if roles.len() > MAX_ROLES {
        fault("body".into(), format!("at most {MAX_ROLES} roles"));
    }
    for (i, grant) in roles.iter().take(MAX_ROLES).enumerate() {
        let role = grant.role.as_str();
        if !rules.knows_role(role) {
            fault(format!("[{i}].role"), "no policy speaks of this role".into());
        }
        match &grant.region {
            None if IN_REGIONS.contains(&role) => {
                fault(format!("[{i}].region"), format!("`{role}` is held in a region; name it"));
            }
            Some(_) if EVERYWHERE.contains(&role) => {
                fault(format!("[{i}].region"), format!("`{role}` is held everywhere; leave the region out"));
            }
            Some(region) if !regions.contains(region) => {
                fault(format!("[{i}].region"), format!("there is no region `{region}`"));
            }
            _ => {}
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::authz::Rule;

    #[test]
    fn grants_name_known_roles_in_known_regions() {
        let rule = |role: &str| Rule {
            role: role.into(),
            region: "*".into(),
            resource: "show".into(),
            action: "block".into(),
        };
        let rules =
            Rules { rules: vec![rule("employee"), rule("admin"), rule("auditor")], roles: Vec::new() };
        let regions: Vec<RegionName> = vec!["eu".parse().unwrap()];
        let faults = |role: &str, region: Option<&str>| {
            let grant = RoleGrant { role: role.into(), region: region.map(|r| r.parse().unwrap()) };
            role_faults(&[grant], &rules, &regions).into_iter().map(|f| f.field).collect::<Vec<_>>()
        };
        assert!(faults("employee", Some("eu")).is_empty());
        assert!(faults("admin", None).is_empty());
        assert!(faults("auditor", None).is_empty() && faults("auditor", Some("eu")).is_empty());
        assert_eq!(faults("employee", None), ["[0].region"]);
        assert_eq!(faults("employee", Some("mars")), ["[0].region"]);
        assert_eq!(faults("admin", Some("eu")), ["[0].region"]);
        assert_eq!(faults("king", None), ["[0].role"]);
    }
}
