//! Cinemas in Postgres: only those whose home is this region.

use common::{CinemaId, HallId, RegionName};
use deadpool_postgres::GenericClient;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::model::{Cinema, HallSummary, NewCinema};
use crate::movies::text::{containing, fold};

fn cinema(row: &Row, region: &RegionName) -> Result<Cinema, anyhow::Error> {
    Ok(Cinema {
        id: CinemaId(row.try_get("id")?),
        region: region.clone(),
        name: row.try_get("name")?,
        address: row.try_get("address")?,
        latitude: row.try_get("latitude")?,
        longitude: row.try_get("longitude")?,
        time_zone: row.try_get("time_zone")?,
        currency: row.try_get::<_, &str>("currency")?.parse()?,
        version: row.try_get("version")?,
    })
}

/// What is searched in: name and address.
fn search_key(cinema: &NewCinema) -> String {
    fold(&format!("{} {}", cinema.name, cinema.address))
}

pub async fn insert(client: &impl GenericClient, id: CinemaId, new: &NewCinema) -> Result<(), Error> {
    let insert =
        "INSERT INTO cinemas (id, name, name_key, address, search_key, latitude, longitude, time_zone,
                                       currency)
                  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let parameters: [&(dyn ToSql + Sync); 9] = [
        &id.0,
        &new.name,
        &fold(&new.name),
        &new.address,
        &search_key(new),
        &new.latitude,
        &new.longitude,
        &new.time_zone,
        &new.currency.as_str(),
    ];
    client.execute(insert, &parameters).await?;
    Ok(())
}

/// Writes all fields and raises the version.
pub async fn update(client: &impl GenericClient, id: CinemaId, new: &NewCinema) -> Result<(), Error> {
    let update = "UPDATE cinemas SET name = $2, name_key = $3, address = $4, search_key = $5, latitude = $6,
                      longitude = $7, time_zone = $8, currency = $9, version = version + 1
                  WHERE id = $1";
    let parameters: [&(dyn ToSql + Sync); 9] = [
        &id.0,
        &new.name,
        &fold(&new.name),
        &new.address,
        &search_key(new),
        &new.latitude,
        &new.longitude,
        &new.time_zone,
        &new.currency.as_str(),
    ];
    client.execute(update, &parameters).await?;
    Ok(())
}

/// `lock`: until the transaction ends nobody else changes it.
pub async fn get(
    client: &impl GenericClient,
    region: &RegionName,
    id: CinemaId,
    lock: bool,
) -> anyhow::Result<Option<Cinema>> {
    let query = if lock {
        "SELECT * FROM cinemas WHERE id = $1 FOR UPDATE"
    } else {
        "SELECT * FROM cinemas WHERE id = $1"
    };
    let statement = client.prepare_cached(query).await?;
    client.query_opt(&statement, &[&id.0]).await?.map(|row| cinema(&row, region)).transpose()
}

pub async fn halls(client: &impl GenericClient, id: CinemaId) -> Result<Vec<HallSummary>, Error> {
    let statement = client
        .prepare_cached(
            "SELECT h.id, h.name, h.version, l.capacity
             FROM halls h JOIN hall_layouts l ON l.hall_id = h.id AND l.version = h.version
             WHERE h.cinema_id = $1 ORDER BY h.id",
        )
        .await?;
    let rows = client.query(&statement, &[&id.0]).await?;
    let hall = |row: &Row| {
        Ok(HallSummary {
            id: HallId(row.try_get("id")?),
            name: row.try_get("name")?,
            version: row.try_get("version")?,
            capacity: row.try_get("capacity")?,
        })
    };
    rows.iter().map(hall).collect()
}

/// Filter of both lists: $1 folded search text, $2 the same as a LIKE pattern; null asks for nothing.
const FILTER: &str = "($1::text IS NULL OR search_key %> $1 OR search_key LIKE $2)";

/// By name. `after`: the folded name and the id of the page before's last.
pub async fn by_name(
    client: &impl GenericClient,
    region: &RegionName,
    q: Option<&str>,
    after: Option<&(String, Uuid)>,
    count: i64,
) -> anyhow::Result<Vec<(Cinema, String)>> {
    let query = format!(
        "SELECT * FROM cinemas
         WHERE {FILTER} AND ($3::text IS NULL OR (name_key, id) > ($3, $4::uuid))
         ORDER BY name_key, id LIMIT $5"
    );
    let statement = client.prepare_cached(&query).await?;
    let (name, id) = after.map(|(name, id)| (name, id)).unzip();
    let rows = client.query(&statement, &[&q, &q.map(containing), &name, &id, &count]).await?;
    rows.iter().map(|row| Ok((cinema(row, region)?, row.try_get("name_key")?))).collect()
}

/// Nearest first, with metres. Great circles on a sphere (haversine), which is within half a per cent of the
/// earth; whole metres, so that a cursor compares exactly. `after`: the metres and the id of the page before's
/// last.
pub async fn by_distance(
    client: &impl GenericClient,
    region: &RegionName,
    (latitude, longitude): (f64, f64),
    q: Option<&str>,
    after: Option<&(i64, Uuid)>,
    count: i64,
) -> anyhow::Result<Vec<(Cinema, i64)>> {
    let query = format!(
        "WITH placed AS (
             SELECT *, round(2 * 6371008.8 * asin(least(1, sqrt(
                        sin(radians(latitude - $3) / 2) ^ 2
                        + cos(radians(latitude)) * cos(radians($3)) * sin(radians(longitude - $4) / 2) ^ 2
                    ))))::bigint AS distance_m
             FROM cinemas WHERE {FILTER})
         SELECT * FROM placed
         WHERE $5::bigint IS NULL OR (distance_m, id) > ($5, $6::uuid)
         ORDER BY distance_m, id LIMIT $7"
    );
    let statement = client.prepare_cached(&query).await?;
    let (distance, id) = after.map(|(distance, id)| (distance, id)).unzip();
    let parameters: [&(dyn ToSql + Sync); 7] =
        [&q, &q.map(containing), &latitude, &longitude, &distance, &id, &count];
    let rows = client.query(&statement, &parameters).await?;
    rows.iter().map(|row| Ok((cinema(row, region)?, row.try_get("distance_m")?))).collect()
}
