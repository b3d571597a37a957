//! A hall's layout: rows of numbered seats, each with its type and its place on the map.
//!
//! Pure: no I/O, no clock. Invariant of every [`Layout`] that [`checked`] let through: at least one seat and
//! at most [`MAX_SEATS`]; row labels, numbers within a row and seat labels (`A1`) are unique; coordinates are
//! finite; a companion seat stands beside an accessible one. What is stored has passed it.

use std::collections::{BTreeMap, BTreeSet};

use common::FieldError;
use serde::{Deserialize, Serialize};

pub const MAX_SEATS: usize = 5_000;
/// Numbers within a row: 1 to this.
pub const MAX_NUMBER: u16 = 999;
/// Coordinates on the map, either way from zero.
pub const MAX_COORDINATE: f64 = 100_000.0;
/// A layout with thousands of faults is answered with the first few.
const MAX_FAULTS: usize = 20;

/// What kind of seat it is; prices are set by type.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum SeatType {
    #[default]
    Standard,
    Premium,
    Vip,
    /// Room for a wheelchair.
    Accessible,
    /// Beside an accessible seat, for who comes along.
    Companion,
}

impl SeatType {
    pub const ALL: [Self; 5] = [Self::Standard, Self::Premium, Self::Vip, Self::Accessible, Self::Companion];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Premium => "premium",
            Self::Vip => "vip",
            Self::Accessible => "accessible",
            Self::Companion => "companion",
        }
    }
}

impl std::fmt::Display for SeatType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One seat of a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayoutSeat {
    pub number: u16,
    #[serde(rename = "type")]
    pub kind: SeatType,
    /// From left to right, as the audience sees the screen; the unit is a seat's width.
    pub x: f64,
    /// From the screen backwards; the unit is a row's depth.
    pub y: f64,
}

/// One row, its seats in the order in which they stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayoutRow {
    pub row: String,
    pub seats: Vec<LayoutSeat>,
}

/// All rows of a hall, from the screen backwards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    pub rows: Vec<LayoutRow>,
}

/// `A1`: the seat's name on the ticket.
pub fn seat_label(row: &str, number: u16) -> String {
    format!("{row}{number}")
}

impl Layout {
    /// Number of seats.
    pub fn capacity(&self) -> usize {
        self.rows.iter().map(|row| row.seats.len()).sum()
    }

    /// Every seat with its row, in the layout's order.
    pub fn seats(&self) -> impl Iterator<Item = (&LayoutRow, &LayoutSeat)> {
        self.rows.iter().flat_map(|row| row.seats.iter().map(move |seat| (row, seat)))
    }
}

/// The layout, if it keeps the invariant of this module; otherwise every field at fault (the first
/// twenty), as paths below the request's body.
pub fn checked(layout: Layout) -> Result<Layout, Vec<FieldError>> {
    let mut faults = Faults::default();
    match layout.capacity() {
        0 => faults.add("rows", "a hall has at least one seat"),
        n if n > MAX_SEATS => faults.add("rows", format!("a hall has at most {MAX_SEATS} seats, not {n}")),
        _ => {}
    }
    let (mut rows, mut labels) = (BTreeSet::new(), BTreeSet::new());
    for (i, row) in layout.rows.iter().enumerate() {
        if !is_row_label(&row.row) {
            faults.add(format!("rows[{i}].row"), "a row's label is 1 to 4 characters of A-Z and 0-9");
        } else if !rows.insert(row.row.as_str()) {
            faults.add(format!("rows[{i}].row"), format!("there are two rows `{}`", row.row));
        }
        if row.seats.is_empty() {
            faults.add(format!("rows[{i}].seats"), "a row has at least one seat");
        }
        check_seats(i, row, &mut labels, &mut faults);
        if faults.full() {
            break;
        }
    }
    if faults.0.is_empty() { Ok(layout) } else { Err(faults.0) }
}

fn check_seats(i: usize, row: &LayoutRow, labels: &mut BTreeSet<String>, faults: &mut Faults) {
    let kinds: BTreeMap<u16, SeatType> = row.seats.iter().map(|seat| (seat.number, seat.kind)).collect();
    let mut numbers = BTreeSet::new();
    for (j, seat) in row.seats.iter().enumerate() {
        let at = |field: &str| format!("rows[{i}].seats[{j}].{field}");
        if !(1..=MAX_NUMBER).contains(&seat.number) {
            faults.add(at("number"), format!("must be between 1 and {MAX_NUMBER}"));
        } else if !numbers.insert(seat.number) {
            faults.add(at("number"), format!("row `{}` has two seats {}", row.row, seat.number));
        } else if !labels.insert(seat_label(&row.row, seat.number)) {
            // Rows `A` and `A1`: seat 11 of the one and 1 of the other would both be `A11`.
            let label = seat_label(&row.row, seat.number);
            faults.add(at("number"), format!("another row has a seat `{label}` too"));
        }
        for (field, value) in [("x", seat.x), ("y", seat.y)] {
            if !value.is_finite() || value.abs() > MAX_COORDINATE {
                faults.add(at(field), format!("must be within {MAX_COORDINATE} of 0"));
            }
        }
        if seat.kind == SeatType::Companion && !beside_accessible(&kinds, seat.number) {
            faults.add(at("type"), "a companion seat stands beside an accessible one in the same row");
        }
        if faults.full() {
            return;
        }
    }
}

fn beside_accessible(kinds: &BTreeMap<u16, SeatType>, number: u16) -> bool {
    let accessible = |n: Option<u16>| n.and_then(|n| kinds.get(&n)) == Some(&SeatType::Accessible);
    accessible(number.checked_sub(1)) || accessible(number.checked_add(1))
}

fn is_row_label(label: &str) -> bool {
    (1..=4).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

#[derive(Default)]
struct Faults(Vec<FieldError>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        if !self.full() {
            self.0.push(FieldError { field: field.into(), message: message.into() });
        }
    }

    fn full(&self) -> bool {
        self.0.len() >= MAX_FAULTS
    }
}

/// A rectangular hall in few words; see [`Grid::layout`].
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Named `A` to `Z`, then `AA`, from the screen backwards.
    #[schema(minimum = 1, maximum = 5000, example = 12)]
    pub rows: u16,
    /// In each row, numbered from 1.
    #[schema(minimum = 1, maximum = 999, example = 20)]
    pub seats: u16,
    #[serde(default)]
    #[schema(example = json!(["F"]))]
    pub premium_rows: Vec<String>,
    #[serde(default)]
    pub vip_rows: Vec<String>,
    /// Seats, such as `A1`. Wins over the row's type.
    #[serde(default)]
    #[schema(example = json!(["A1"]))]
    pub accessible: Vec<String>,
    /// Seats, each beside an accessible one. Wins over the row's type.
    #[serde(default)]
    #[schema(example = json!(["A2"]))]
    pub companion: Vec<String>,
}

impl Grid {
    /// The rows it stands for: `x` is the column, `y` the row, both from 1.
    pub fn layout(&self) -> Result<Layout, Vec<FieldError>> {
        let mut faults = Faults::default();
        if self.rows == 0 || usize::from(self.rows) > MAX_SEATS {
            faults.add("grid.rows", format!("must be between 1 and {MAX_SEATS}"));
        }
        if !(1..=MAX_NUMBER).contains(&self.seats) {
            faults.add("grid.seats", format!("must be between 1 and {MAX_NUMBER}"));
        }
        let seats = usize::from(self.rows) * usize::from(self.seats);
        if faults.0.is_empty() && seats > MAX_SEATS {
            faults.add("grid", format!("a hall has at most {MAX_SEATS} seats, not {seats}"));
        }
        if !faults.0.is_empty() {
            return Err(faults.0);
        }
        let names: Vec<String> = (0..self.rows).map(row_name).collect();
        let rows = self.row_types(&names, &mut faults);
        let mut special = self.special_seats(&mut faults);
        let mut layout = Layout::default();
        for (row, name) in (1u16..).zip(names) {
            let of_row = rows.get(name.as_str()).copied().unwrap_or_default();
            let seats = (1..=self.seats).map(|number| {
                let kind = special.remove(&seat_label(&name, number)).map_or(of_row, |(kind, _)| kind);
                LayoutSeat { number, kind, x: number.into(), y: row.into() }
            });
            let seats = seats.collect();
            layout.rows.push(LayoutRow { row: name, seats });
        }
        for (seat, (_, field)) in special {
            faults.add(field, format!("there is no seat `{seat}`"));
        }
        if faults.0.is_empty() { checked(layout) } else { Err(faults.0) }
    }

    fn row_types(&self, names: &[String], faults: &mut Faults) -> BTreeMap<&str, SeatType> {
        let mut types = BTreeMap::new();
        let lists = [
            ("premium_rows", &self.premium_rows, SeatType::Premium),
            ("vip_rows", &self.vip_rows, SeatType::Vip),
        ];
        for (field, rows, kind) in lists {
            for (i, row) in rows.iter().enumerate() {
                let field = format!("grid.{field}[{i}]");
                if !names.contains(row) {
                    faults.add(field, "there is no such row");
                } else if types.insert(row.as_str(), kind).is_some() {
                    faults.add(field, format!("row `{row}` is named twice"));
                }
                if faults.full() {
                    return types;
                }
            }
        }
        types
    }

    /// Seats that differ from their row, with the field that says so.
    fn special_seats(&self, faults: &mut Faults) -> BTreeMap<String, (SeatType, String)> {
        let mut special = BTreeMap::new();
        let lists = [
            ("accessible", &self.accessible, SeatType::Accessible),
            ("companion", &self.companion, SeatType::Companion),
        ];
        for (field, seats, kind) in lists {
            for (i, seat) in seats.iter().enumerate() {
                let field = format!("grid.{field}[{i}]");
                if special.insert(seat.clone(), (kind, field.clone())).is_some() {
                    faults.add(field, format!("seat `{seat}` is named twice"));
                }
            }
        }
        special
    }
}

/// `A` to `Z`, then `AA`, `AB`, …
fn row_name(index: u16) -> String {
    let (mut index, mut letters) = (index, Vec::new());
    loop {
        let letter = u8::try_from(index % 26).expect("a remainder of 26 fits");
        letters.push(char::from(b'A' + letter));
        match index / 26 {
            0 => return letters.iter().rev().collect(),
            rest => index = rest - 1,
        }
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
