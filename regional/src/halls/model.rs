//! Halls as the API shows and takes them.

use common::{CinemaId, FieldError, HallId, Problem};
use serde::{Deserialize, Serialize};

use super::layout::{Grid, Layout, LayoutRow, LayoutSeat, SeatType, checked, seat_label};
use crate::cinemas::model::check_text;

/// A hall with its present layout.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Hall {
    pub id: HallId,
    pub cinema_id: CinemaId,
    pub name: String,
    /// Of the layout; a show keeps the version it was created with. The `ETag` begins with it.
    pub version: i32,
    /// From the screen backwards.
    pub rows: Vec<Row>,
    /// Seats in all rows.
    pub capacity: usize,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = HallRow)]
pub struct Row {
    #[schema(example = "A")]
    pub row: String,
    pub seats: Vec<Seat>,
}

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = HallSeat)]
pub struct Seat {
    pub number: u16,
    /// The seat's name on the ticket: row and number.
    #[schema(example = "A1")]
    pub seat: String,
    #[serde(rename = "type")]
    pub kind: SeatType,
    /// From left to right, as the audience sees the screen; in seats' widths.
    pub x: f64,
    /// From the screen backwards; in rows' depths.
    pub y: f64,
}

impl Hall {
    pub fn new(id: HallId, cinema_id: CinemaId, name: String, version: i32, layout: Layout) -> Self {
        let capacity = layout.capacity();
        let rows = layout.rows.into_iter().map(Row::from).collect();
        Self { id, cinema_id, name, version, rows, capacity }
    }
}

impl From<LayoutRow> for Row {
    fn from(row: LayoutRow) -> Self {
        let seat = |s: LayoutSeat| Seat {
            number: s.number,
            seat: seat_label(&row.row, s.number),
            kind: s.kind,
            x: s.x,
            y: s.y,
        };
        let seats = row.seats.iter().copied().map(seat).collect();
        Self { row: row.row, seats }
    }
}

/// What a hall is created from: a name, and its layout as `rows` or as `grid`.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewHall {
    #[schema(min_length = 1, max_length = 200, example = "Hall 1")]
    pub name: String,
    /// Every row with its seats.
    #[serde(default)]
    pub rows: Option<Vec<NewRow>>,
    /// A rectangle of seats.
    #[serde(default)]
    pub grid: Option<Grid>,
}

/// A new layout, as `rows` or as `grid`.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLayout {
    /// Every row with its seats.
    #[serde(default)]
    pub rows: Option<Vec<NewRow>>,
    /// A rectangle of seats.
    #[serde(default)]
    pub grid: Option<Grid>,
}

#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRow {
    #[schema(pattern = "^[A-Z0-9]{1,4}$", example = "A")]
    pub row: String,
    #[schema(min_items = 1)]
    pub seats: Vec<NewSeat>,
}

#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSeat {
    /// Unique in its row.
    #[schema(minimum = 1, maximum = 999)]
    pub number: u16,
    /// Absent: standard.
    #[serde(rename = "type", default)]
    #[schema(required = false)]
    pub kind: SeatType,
    /// Absent: the seat's number.
    #[serde(default)]
    pub x: Option<f64>,
    /// Absent: the row's place among the rows, from 1.
    #[serde(default)]
    pub y: Option<f64>,
}

impl NewHall {
    /// The name and the layout, checked; or every field at fault.
    pub fn checked(mut self) -> Result<(String, Layout), Problem> {
        let mut faults = Vec::new();
        check_text(&mut faults, "name", &mut self.name, 200);
        let layout = one_layout(self.rows, self.grid).unwrap_or_else(|of_layout| {
            faults.extend(of_layout);
            Layout::default()
        });
        common::http::all_fields(faults)?;
        Ok((self.name, layout))
    }
}

impl NewLayout {
    pub fn checked(self) -> Result<Layout, Problem> {
        one_layout(self.rows, self.grid).map_err(|faults| {
            common::http::all_fields(faults)
                .err()
                .unwrap_or_else(|| Problem::internal("a fault without a field"))
        })
    }
}

fn one_layout(rows: Option<Vec<NewRow>>, grid: Option<Grid>) -> Result<Layout, Vec<FieldError>> {
    match (rows, grid) {
        (Some(rows), None) => checked(Layout { rows: placed(rows) }),
        (None, Some(grid)) => grid.layout(),
        _ => {
            let message = "send the layout either as `rows` or as `grid`".to_owned();
            Err(vec![FieldError { field: "rows".to_owned(), message }])
        }
    }
}

fn placed(rows: Vec<NewRow>) -> Vec<LayoutRow> {
    let mut y = 0.0;
    let mut row = |row: NewRow| {
        y += 1.0;
        let seat = |s: NewSeat| LayoutSeat {
            number: s.number,
            kind: s.kind,
            x: s.x.unwrap_or_else(|| f64::from(s.number)),
            y: s.y.unwrap_or(y),
        };
        LayoutRow { row: row.row, seats: row.seats.into_iter().map(seat).collect() }
    };
    rows.into_iter().map(&mut row).collect()
}
