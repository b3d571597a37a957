//! `/v1/me`: the caller's own profile.

use axum::extract::State;
use axum::response::Response;
use common::authz::Authorized;
use common::http::{Conditions, Json, all_fields, tagged};
use common::problem::ProblemDetails;
use common::{FieldError, Problem, RegionName};
use http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::{User, auth, rules, store, token};
use crate::app::App;
use crate::audit;
use crate::client::Client;
use crate::fault::Result;
use crate::feed;
use crate::mail::outbox::{self, Kind};
use crate::policy::store::{has_admin, last_admin, load};
use crate::sms::codes;

fn gone() -> Problem {
    Problem::unauthorized("this account is no more")
}

/// The caller's own account.
#[utoipa::path(get, path = "/v1/me", tag = "accounts", operation_id = "get_me",
    params(("If-None-Match" = Option<String>, Header, description = "The `ETag` that the caller has")),
    responses(
        (status = 200, description = "The account", body = User,
            headers(("ETag" = String, description = "For `If-Match`"))),
        (status = 304, description = "The caller has it")))]
pub async fn get(State(app): State<App>, authorized: Authorized, conditions: Conditions) -> Result<Response> {
    let account = store::find(&app.db().await?, authorized.actor()?.user()).await?;
    let account = account.filter(|a| !a.deleted).ok_or_else(gone)?;
    Ok(conditions.answer(account.user.version, &account.user))
}

/// What is absent stays as it is.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeMe {
    #[schema(max_length = 254)]
    pub email: Option<String>,
    #[schema(min_length = 3, max_length = 32)]
    pub username: Option<String>,
    #[schema(min_length = 1, max_length = 100)]
    pub name: Option<String>,
    /// The region to be served by, from the next access token on; `null`: the nearest.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, example = "eu")]
    pub region: Option<Option<String>>,
    /// In the form of E.164; `null`: none, and no messages. A code goes there, for `POST /v1/me/phone/verify`.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, pattern = r"^\+[1-9][0-9]{6,14}$", example = "+4930123456")]
    pub phone: Option<Option<String>>,
    /// Whether messages about bookings are to go to `phone`, once it is verified: that an order is paid, that a show
    /// is canceled or has another time. Mails about these go to `email` in any case.
    pub sms: Option<bool>,
}

/// Tells `null` from a field that is not there.
fn present<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<Option<String>>, D::Error> {
    Option::deserialize(d).map(Some)
}

/// What is wrong with a wish for this region.
fn unknown(app: &App, name: &str) -> Option<FieldError> {
    let known = app.config.regions.iter().any(|region| region.as_str() == name.trim());
    let message = "there is no region of that name; see /v1/regions";
    (!known).then(|| FieldError { field: "region".into(), message: message.into() })
}

/// Change the caller's own account. A new email address is not verified; a mail with a link goes to it, and
/// one that tells of the change to the old address. A new phone number is not verified; a message with a code goes
/// to it.
#[utoipa::path(patch, path = "/v1/me", tag = "accounts", operation_id = "update_me", request_body = ChangeMe,
    params(("If-Match" = Option<String>, Header, description = "Only if the account is still at this `ETag`")),
    responses(
        (status = 200, description = "The account as it is now", body = User,
            headers(("ETag" = String, description = "For `If-Match`"))),
        (status = 409, description = "`email-taken`, `username-taken`", body = ProblemDetails,
            content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`", body = ProblemDetails,
            content_type = "application/problem+json"),
        (status = 429, description = "`too-many-attempts`: a new number too often", body = ProblemDetails,
            content_type = "application/problem+json")))]
pub async fn update(
    State(app): State<App>,
    authorized: Authorized,
    conditions: Conditions,
    client: Client,
    Json(change): Json<ChangeMe>,
) -> Result<Response> {
    let id = authorized.actor()?.user();
    let trimmed = |text: &Option<String>| text.as_deref().map(|t| t.trim().to_owned());
    let (email, username, name) = (trimmed(&change.email), trimmed(&change.username), trimmed(&change.name));
    let faults = [
        email.as_deref().and_then(rules::email),
        username.as_deref().and_then(rules::username),
        name.as_deref().and_then(rules::name),
        change.phone.as_ref().and_then(Option::as_deref).and_then(rules::phone),
        change.region.as_ref().and_then(Option::as_deref).and_then(|name| unknown(&app, name)),
    ];
    all_fields(faults.into_iter().flatten().collect())?;
    let region: Option<Option<RegionName>> = change.region.map(|name| name?.trim().parse().ok());

    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    let before = store::find_for_update(&tx, id).await?.filter(|a| !a.deleted).ok_or_else(gone)?.user;
    conditions.require_version(before.version)?;
    // Which fields, not their values: the audit log outlives the account.
    let mut changed = Vec::new();
    let mut pick = |field: &'static str, new: Option<String>, old: Option<String>| {
        let new = new.or_else(|| old.clone());
        if new != old {
            changed.push(field);
        }
        new.unwrap_or_default()
    };
    let email = pick("email", email, before.email.clone());
    let username = pick("username", username, before.username.clone());
    let name = pick("name", name, Some(before.name.clone()));
    let region = region.unwrap_or_else(|| before.region.clone());
    if region != before.region {
        changed.push("region");
    }
    let phone = change.phone.unwrap_or_else(|| before.phone.clone());
    // Who takes the number away wants no messages.
    let sms = change.sms.unwrap_or(before.sms && phone.is_some());
    if sms && phone.is_none() {
        return Err(Problem::invalid("sms", "there is no `phone` to send messages to").into());
    }
    if phone != before.phone {
        changed.push("phone");
        codes::forget(&tx, id).await?;
        if phone.is_some() && app.config.sms.is_on() {
            token::slow_down(&app, &tx, &codes::account(id), &client).await?;
            outbox::put_phone_code(&tx, id).await?;
        }
    }
    if sms != before.sms {
        changed.push("sms");
    }
    if changed.is_empty() {
        return Ok(tagged(StatusCode::OK, before.version, &before));
    }
    let profile = store::Profile {
        email: &email,
        username: &username,
        name: &name,
        region: region.as_ref(),
        phone: phone.as_deref(),
        sms,
    };
    store::update_profile(&tx, id, &profile)
        .await
        .map_err(|fault| auth::taken(&fault).map_or(fault, Into::into))?;
    let entry = audit::Entry {
        actor: Some(id),
        action: "user.update",
        target: id.to_string(),
        before: None,
        after: Some(json!({ "changed": changed })),
        address: &client.address,
    };
    audit::write(&tx, entry).await?;
    let after = store::find(&tx, id).await?.ok_or_else(gone)?.user;
    if before.email.as_deref() != Some(&email) {
        outbox::put(&tx, Kind::Verify, Some(id), &email).await?;
        // Whoever took the account over cannot do so unseen.
        if let Some(old) = &before.email {
            outbox::put(&tx, Kind::AddressChanged, Some(id), old).await?;
        }
    }
    tx.commit().await?;
    app.mail.now();
    app.sms.now();
    Ok(tagged(StatusCode::OK, after.version, &after))
}

/// Delete the caller's own account: personal data is erased, the books are kept, all sessions end.
#[utoipa::path(delete, path = "/v1/me", tag = "accounts", operation_id = "delete_me",
    responses(
        (status = 204, description = "The account is no more"),
        (status = 409, description = "`last-admin`: nobody could administer the platform", body = ProblemDetails,
            content_type = "application/problem+json")))]
pub async fn delete(State(app): State<App>, authorized: Authorized, client: Client) -> Result<StatusCode> {
    let id = authorized.actor()?.user();
    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    feed::store::lock(&tx).await?;
    let policy = load(&tx).await?.compile(0).await?;
    let had_admin = has_admin(&tx, &policy).await?;
    let account = store::find_for_update(&tx, id).await?.filter(|a| !a.deleted).ok_or_else(gone)?;
    outbox::forget(&tx, id, account.user.email.as_deref()).await?;
    let token_version = store::erase(&tx, id).await?;
    if had_admin && !has_admin(&tx, &policy).await? {
        return Err(last_admin().into());
    }
    let position = feed::store::revoke_user(&tx, id, token_version, app.tokens_expired_at()).await?;
    let entry = audit::Entry {
        actor: Some(id),
        action: "user.delete",
        target: id.to_string(),
        before: None,
        after: None,
        address: &client.address,
    };
    audit::write(&tx, entry).await?;
    tx.commit().await?;
    drop(db);
    app.feed.published(position).await;
    Ok(StatusCode::NO_CONTENT)
}
