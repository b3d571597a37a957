//! The few ways in which statements are run. The SQL itself stands with its noun: `accounts/store.rs`,
//! `accounts/sessions.rs`, `policy/store.rs`, `movies/store.rs`, `feed/store.rs`, `audit.rs`, `keys.rs`.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::fault::Result;

pub type Params<'a> = [&'a (dyn ToSql + Sync)];

pub async fn rows(db: &impl GenericClient, sql: &str, params: &Params<'_>) -> Result<Vec<Row>> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query(&statement, params).await?)
}

pub async fn row(db: &impl GenericClient, sql: &str, params: &Params<'_>) -> Result<Option<Row>> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query_opt(&statement, params).await?)
}

pub async fn one(db: &impl GenericClient, sql: &str, params: &Params<'_>) -> Result<Row> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query_one(&statement, params).await?)
}

/// Answers how many rows it touched.
pub async fn run(db: &impl GenericClient, sql: &str, params: &Params<'_>) -> Result<u64> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.execute(&statement, params).await?)
}

/// Text for `ILIKE`, in which nothing of the caller's is a pattern.
pub fn contains_pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
