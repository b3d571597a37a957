//! Accounts and roles in Postgres.

use std::collections::HashMap;

use common::authz::RoleGrant;
use common::{RegionName, UserId};
use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use uuid::Uuid;

use super::User;
use crate::db;
use crate::fault::Result;

/// An account with what only this service may see.
pub struct Account {
    pub user: User,
    pub password_hash: Option<String>,
    pub token_version: i64,
    /// What the account's key is derived from; gone once it is deleted.
    pub person_salt: Option<Uuid>,
    pub deleted: bool,
}

impl Account {
    fn from_row(row: &Row) -> Self {
        let names: Vec<String> = row.get("role_names");
        let regions: Vec<String> = row.get("role_regions");
        let roles = names.into_iter().zip(regions).map(|(role, region)| RoleGrant {
            role,
            // Only names that parsed were stored; '' is everywhere.
            region: region.parse().ok(),
        });
        Self {
            user: User {
                id: UserId(row.get("id")),
                email: row.get("email"),
                username: row.get("username"),
                name: row.get("name"),
                email_verified: row.get("email_verified"),
                phone: row.get("phone"),
                phone_verified: row.get("phone_verified"),
                sms: row.get("sms"),
                region: row.get::<_, Option<&str>>("region").and_then(|name| name.parse().ok()),
                roles: roles.collect(),
                disabled: row.get("disabled"),
                created_at: row.get("created_at"),
                version: row.get("version"),
            },
            password_hash: row.get("password_hash"),
            token_version: row.get("token_version"),
            person_salt: row.get("person_salt"),
            deleted: row.get("deleted"),
        }
    }
}

/// The columns of [`Account::from_row`]; `u` is the users table.
macro_rules! select_account {
    ($rest:literal) => {
        concat!(
            "SELECT u.id, u.email, u.username, u.name, u.region, u.phone, u.phone_verified, u.sms, u.email_verified, u.disabled,
                    u.created_at, u.version,
                    u.password_hash, u.token_version, u.person_salt, u.deleted_at IS NOT NULL AS deleted,
                    ARRAY(SELECT role FROM user_roles WHERE user_id = u.id ORDER BY role, region) AS role_names,
                    ARRAY(SELECT region FROM user_roles WHERE user_id = u.id ORDER BY role, region) AS role_regions
             FROM users u ",
            $rest
        )
    };
}

pub struct NewAccount<'a> {
    pub id: UserId,
    pub email: &'a str,
    pub username: &'a str,
    pub name: &'a str,
    pub password_hash: &'a str,
}

/// Fails with the unique index `users_email` or `users_username` when one is taken.
pub async fn insert(db: &impl GenericClient, new: &NewAccount<'_>, role: &str) -> Result<()> {
    let sql = "INSERT INTO users (id, email, username, name, password_hash) VALUES ($1, $2, $3, $4, $5)";
    let params: &db::Params<'_> = &[&new.id.0, &new.email, &new.username, &new.name, &new.password_hash];
    db::run(db, sql, params).await?;
    db::run(db, "INSERT INTO user_roles (user_id, role) VALUES ($1, $2)", &[&new.id.0, &role]).await?;
    Ok(())
}

pub async fn find(db: &impl GenericClient, id: UserId) -> Result<Option<Account>> {
    let row = db::row(db, select_account!("WHERE u.id = $1"), &[&id.0]).await?;
    Ok(row.as_ref().map(Account::from_row))
}

/// As [`find`], and nobody changes the account until the transaction ends.
pub async fn find_for_update(db: &impl GenericClient, id: UserId) -> Result<Option<Account>> {
    let row = db::row(db, select_account!("WHERE u.id = $1 FOR UPDATE"), &[&id.0]).await?;
    Ok(row.as_ref().map(Account::from_row))
}

/// As [`find`], while others may read it so too, but not change it: a token made from what was read cannot
/// slip past a revocation.
pub async fn find_for_token(db: &impl GenericClient, id: UserId) -> Result<Option<Account>> {
    let row = db::row(db, select_account!("WHERE u.id = $1 FOR SHARE"), &[&id.0]).await?;
    Ok(row.as_ref().map(Account::from_row))
}

/// By username or email address; a username holds no `@`, so at most one account fits.
pub async fn find_by_login(db: &impl GenericClient, login: &str) -> Result<Option<Account>> {
    let sql = select_account!("WHERE lower(u.username) = lower($1) OR lower(u.email) = lower($1) LIMIT 1");
    Ok(db::row(db, sql, &[&login]).await?.as_ref().map(Account::from_row))
}

/// What a list of accounts is narrowed by.
pub struct Filter {
    /// `ILIKE` pattern on email, username and name.
    pub pattern: Option<String>,
    pub role: Option<String>,
    pub region: Option<RegionName>,
    pub after: Option<UserId>,
    pub limit: i64,
}

pub async fn list(db: &impl GenericClient, filter: &Filter) -> Result<Vec<User>> {
    let sql = select_account!(
        "WHERE u.deleted_at IS NULL
           AND ($1::text IS NULL OR u.email ILIKE $1 OR u.username ILIKE $1 OR u.name ILIKE $1)
           AND (($2::text IS NULL AND $3::text IS NULL) OR EXISTS (
                SELECT 1 FROM user_roles r WHERE r.user_id = u.id
                AND ($2::text IS NULL OR r.role = $2) AND ($3::text IS NULL OR r.region = $3)))
           AND ($4::uuid IS NULL OR u.id > $4)
         ORDER BY u.id LIMIT $5"
    );
    let region = filter.region.as_ref().map(RegionName::as_str);
    let after = filter.after.map(|id| id.0);
    let params: &db::Params<'_> = &[&filter.pattern, &filter.role, &region, &after, &filter.limit];
    Ok(db::rows(db, sql, params).await?.iter().map(|row| Account::from_row(row).user).collect())
}

/// What users say of themselves.
pub struct Profile<'a> {
    pub email: &'a str,
    pub username: &'a str,
    pub name: &'a str,
    pub region: Option<&'a RegionName>,
    pub phone: Option<&'a str>,
    pub sms: bool,
}

/// A profile's new values; an address or a number that changed is no longer verified.
pub async fn update_profile(db: &impl GenericClient, id: UserId, new: &Profile<'_>) -> Result<()> {
    let sql = "UPDATE users SET email_verified = email_verified AND email = $2, email = $2, username = $3,
                                phone_verified = phone_verified AND phone IS NOT DISTINCT FROM $6, phone = $6,
                                name = $4, region = $5, sms = $7, version = version + 1 WHERE id = $1";
    let region = new.region.map(RegionName::as_str);
    let params: &db::Params<'_> =
        &[&id.0, &new.email, &new.username, &new.name, &region, &new.phone, &new.sms];
    db::run(db, sql, params).await?;
    Ok(())
}

/// Those of them who are told of their orders, each with whether by message too.
pub async fn hearers(db: &impl GenericClient, ids: &[UserId]) -> Result<HashMap<UserId, bool>> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let sql = "SELECT id, sms AND phone_verified FROM users
               WHERE id = ANY($1) AND NOT disabled AND deleted_at IS NULL";
    Ok(db::rows(db, sql, &[&ids]).await?.iter().map(|row| (UserId(row.get(0)), row.get(1))).collect())
}

/// Where mail about this user's orders goes, if anywhere.
pub async fn address(db: &impl GenericClient, id: UserId) -> Result<Option<String>> {
    let sql = "SELECT email FROM users WHERE id = $1 AND NOT disabled AND deleted_at IS NULL";
    Ok(db::row(db, sql, &[&id.0]).await?.and_then(|row| row.get(0)))
}

/// Where this user wants messages, if anywhere.
pub async fn number(db: &impl GenericClient, id: UserId) -> Result<Option<String>> {
    let sql = "SELECT phone FROM users
               WHERE id = $1 AND sms AND phone_verified AND NOT disabled AND deleted_at IS NULL";
    Ok(db::row(db, sql, &[&id.0]).await?.and_then(|row| row.get(0)))
}

/// The number that this user has yet to prove.
pub async fn unproved_number(db: &impl GenericClient, id: UserId) -> Result<Option<String>> {
    let sql = "SELECT phone FROM users
               WHERE id = $1 AND NOT phone_verified AND NOT disabled AND deleted_at IS NULL";
    Ok(db::row(db, sql, &[&id.0]).await?.and_then(|row| row.get(0)))
}

/// The number was proved: a code that was sent there came back. False: it is not the account's any more.
pub async fn set_phone_verified(db: &impl GenericClient, id: UserId, phone: &str) -> Result<bool> {
    let sql = "UPDATE users SET phone_verified = true, version = version + 1
               WHERE id = $1 AND phone = $2 AND deleted_at IS NULL";
    Ok(db::run(db, sql, &[&id.0, &phone]).await? > 0)
}

pub async fn set_password(db: &impl GenericClient, id: UserId, hash: &str) -> Result<()> {
    let sql = "UPDATE users SET password_hash = $2, version = version + 1 WHERE id = $1";
    db::run(db, sql, &[&id.0, &hash]).await?;
    Ok(())
}

/// The address was proved: a mail sent there came back.
pub async fn set_verified(db: &impl GenericClient, id: UserId) -> Result<()> {
    let sql = "UPDATE users SET email_verified = true, version = version + 1
               WHERE id = $1 AND NOT email_verified";
    db::run(db, sql, &[&id.0]).await?;
    Ok(())
}

/// The same password hashed at today's cost. False: it was changed, or renewed, meanwhile.
pub async fn renew_hash(db: &impl GenericClient, id: UserId, old: &str, new: &str) -> Result<bool> {
    let sql = "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2";
    Ok(db::run(db, sql, &[&id.0, &old, &new]).await? > 0)
}

/// Sets `disabled` and voids all access tokens; answers the new token version.
pub async fn set_disabled(db: &impl GenericClient, id: UserId, disabled: bool) -> Result<i64> {
    let sql = "UPDATE users SET disabled = $2, token_version = token_version + 1, version = version + 1
               WHERE id = $1 RETURNING token_version";
    Ok(db::one(db, sql, &[&id.0, &disabled]).await?.get(0))
}

/// Replaces the roles; answers the new token version.
pub async fn set_roles(db: &impl GenericClient, id: UserId, roles: &[RoleGrant]) -> Result<i64> {
    db::run(db, "DELETE FROM user_roles WHERE user_id = $1", &[&id.0]).await?;
    let names: Vec<&str> = roles.iter().map(|g| g.role.as_str()).collect();
    let regions: Vec<&str> = roles.iter().map(|g| g.region.as_ref().map_or("", RegionName::as_str)).collect();
    let sql = "INSERT INTO user_roles (user_id, role, region)
               SELECT $1, role, region FROM unnest($2::text[], $3::text[]) AS t (role, region)
               ON CONFLICT DO NOTHING";
    db::run(db, sql, &[&id.0, &names, &regions]).await?;
    let sql = "UPDATE users SET token_version = token_version + 1, version = version + 1
               WHERE id = $1 RETURNING token_version";
    Ok(db::one(db, sql, &[&id.0]).await?.get(0))
}

/// Erases what is personal, and with the salt the key of what is held elsewhere; the row stays for the books.
/// Answers the new token version.
pub async fn erase(db: &impl GenericClient, id: UserId) -> Result<i64> {
    db::run(db, "DELETE FROM user_roles WHERE user_id = $1", &[&id.0]).await?;
    let sql =
        "UPDATE users SET email = NULL, username = NULL, name = '', password_hash = NULL, region = NULL,
                                phone = NULL, phone_verified = false, sms = false,
                                email_verified = false, person_salt = NULL, deleted_at = now(),
                                token_version = token_version + 1, version = version + 1
               WHERE id = $1 RETURNING token_version";
    let version = db::one(db, sql, &[&id.0]).await?.get(0);
    db::run(db, "DELETE FROM phone_codes WHERE user_id = $1", &[&id.0]).await?;
    // Sessions tell of devices and addresses.
    db::run(db, "DELETE FROM sessions WHERE user_id = $1", &[&id.0]).await?;
    Ok(version)
}
