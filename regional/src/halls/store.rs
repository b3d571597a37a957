//! Halls and every layout they ever had, in Postgres.

use common::{CinemaId, HallId};
use deadpool_postgres::GenericClient;
use tokio_postgres::types::Json;

use super::HallForShow;
use super::layout::Layout;
use super::model::Hall;

/// A hall with its first layout. False: there is no such cinema.
pub async fn insert(
    client: &impl GenericClient,
    id: HallId,
    cinema: CinemaId,
    name: &str,
    layout: &Layout,
) -> Result<bool, tokio_postgres::Error> {
    let insert = "INSERT INTO halls (id, cinema_id, name) SELECT $1, id, $3 FROM cinemas WHERE id = $2";
    if client.execute(insert, &[&id.0, &cinema.0, &name]).await? == 0 {
        return Ok(false);
    }
    insert_layout(client, id, 1, layout).await?;
    Ok(true)
}

async fn insert_layout(
    client: &impl GenericClient,
    hall: HallId,
    version: i32,
    layout: &Layout,
) -> Result<(), tokio_postgres::Error> {
    let insert = "INSERT INTO hall_layouts (hall_id, version, layout, capacity) VALUES ($1, $2, $3, $4)";
    let capacity = i32::try_from(layout.capacity()).expect("a checked layout has at most 5,000 seats");
    client.execute(insert, &[&hall.0, &version, &Json(layout), &capacity]).await?;
    Ok(())
}

/// Makes `layout` the present one, as a new version.
pub async fn replace_layout(
    client: &impl GenericClient,
    hall: HallId,
    layout: &Layout,
) -> Result<(), tokio_postgres::Error> {
    let raise = "UPDATE halls SET version = version + 1 WHERE id = $1 RETURNING version";
    let version = client.query_one(raise, &[&hall.0]).await?.try_get(0)?;
    insert_layout(client, hall, version, layout).await
}

/// Waits for others that change this hall, and keeps them waiting until the transaction ends. False: there is
/// no such hall.
pub async fn lock(client: &impl GenericClient, id: HallId) -> Result<bool, tokio_postgres::Error> {
    Ok(client.query_opt("SELECT FROM halls WHERE id = $1 FOR UPDATE", &[&id.0]).await?.is_some())
}

/// With its present layout.
pub async fn get(
    client: &impl GenericClient,
    id: HallId,
) -> Result<Option<(Hall, Layout)>, tokio_postgres::Error> {
    let statement = client
        .prepare_cached(
            "SELECT h.cinema_id, h.name, h.version, l.layout
             FROM halls h JOIN hall_layouts l ON l.hall_id = h.id AND l.version = h.version
             WHERE h.id = $1",
        )
        .await?;
    let Some(row) = client.query_opt(&statement, &[&id.0]).await? else { return Ok(None) };
    let Json(layout): Json<Layout> = row.try_get("layout")?;
    let (cinema, name) = (CinemaId(row.try_get("cinema_id")?), row.try_get("name")?);
    Ok(Some((Hall::new(id, cinema, name, row.try_get("version")?, layout.clone()), layout)))
}

pub async fn for_show(client: &impl GenericClient, id: HallId) -> anyhow::Result<Option<HallForShow>> {
    let statement = client
        .prepare_cached(
            "SELECT h.cinema_id, h.name, h.version, l.layout, c.name AS cinema_name,
                    c.address AS cinema_address, c.latitude, c.longitude, c.time_zone, c.currency
             FROM halls h JOIN hall_layouts l ON l.hall_id = h.id AND l.version = h.version
                          JOIN cinemas c ON c.id = h.cinema_id
             WHERE h.id = $1",
        )
        .await?;
    let Some(row) = client.query_opt(&statement, &[&id.0]).await? else { return Ok(None) };
    let Json(layout): Json<Layout> = row.try_get("layout")?;
    Ok(Some(HallForShow {
        hall_id: id,
        hall_name: row.try_get("name")?,
        cinema_id: CinemaId(row.try_get("cinema_id")?),
        cinema_name: row.try_get("cinema_name")?,
        cinema_address: row.try_get("cinema_address")?,
        latitude: row.try_get("latitude")?,
        longitude: row.try_get("longitude")?,
        time_zone: row.try_get("time_zone")?,
        currency: row.try_get::<_, &str>("currency")?.parse()?,
        layout_version: row.try_get("version")?,
        layout,
    }))
}
