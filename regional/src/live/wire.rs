//! Seat maps as they go out, in JSON and as server-sent events. The whole map is written by hand, since it
//! is written anew for each version of a hot show; a test compares it with what serde makes of [`SeatMap`].

use std::fmt::Write;

use bytes::Bytes;
use common::{Money, ShowId};
use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::Delta;
use crate::halls::layout::SeatType;
use crate::show::{Plan, SeatStatus};
use crate::shows::view::PriceView;

/// The live seat map.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeatMap<'a> {
    pub show_id: ShowId,
    /// Rises when the show changes hands; with `seq` it orders what was seen.
    pub epoch: u64,
    pub seq: u64,
    pub seats: Vec<SeatView<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SeatView<'a> {
    #[schema(example = "A1")]
    pub seat: &'a str,
    #[serde(rename = "type")]
    pub kind: SeatType,
    pub status: SeatStatus,
    pub prices: Vec<CategoryPrice<'a>>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CategoryPrice<'a> {
    #[schema(example = "adult")]
    pub category: &'a str,
    pub amount: Money,
}

/// The live seat map, one letter a seat.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompactSeatMap<'a> {
    pub show_id: ShowId,
    pub epoch: u64,
    pub seq: u64,
    /// Names the layout (`format=layout`) whose order the letters follow.
    pub layout: &'a str,
    /// `f` free, `h` held, `s` sold, `b` blocked.
    #[schema(example = "ffhhsb")]
    pub statuses: String,
}

/// What does not change about a show's seats.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeatLayout<'a> {
    pub show_id: ShowId,
    /// In the order of a compact map's letters.
    pub seats: Vec<PlacedSeat<'a>>,
    /// By type and category.
    pub prices: Vec<PriceView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PlacedSeat<'a> {
    #[schema(example = "A1")]
    pub seat: &'a str,
    #[schema(example = "A")]
    pub row: &'a str,
    #[serde(rename = "type")]
    pub kind: SeatType,
    /// In seats to the right.
    pub x: f32,
    /// In rows away from the screen.
    pub y: f32,
}

/// What a read answers with, by its `format`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum SeatMapAnswer<'a> {
    Full(SeatMap<'a>),
    Compact(CompactSeatMap<'a>),
    Layout(SeatLayout<'a>),
}

/// The seats that changed since the event before, as they are after entry `seq`.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeatChange<'a> {
    pub show_id: ShowId,
    pub epoch: u64,
    pub seq: u64,
    pub seats: Vec<ChangedSeat<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChangedSeat<'a> {
    #[schema(example = "A1")]
    pub seat: &'a str,
    pub status: SeatStatus,
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

fn word(status: SeatStatus) -> &'static str {
    match status {
        SeatStatus::Free => "free",
        SeatStatus::Held => "held",
        SeatStatus::Sold => "sold",
        SeatStatus::Blocked => "blocked",
    }
}

pub fn letter(status: SeatStatus) -> char {
    match status {
        SeatStatus::Free => 'f',
        SeatStatus::Held => 'h',
        SeatStatus::Sold => 's',
        SeatStatus::Blocked => 'b',
    }
}

fn category_prices(plan: &Plan, kind: SeatType) -> Vec<CategoryPrice<'_>> {
    let lines = plan.facts.prices.iter().filter(|p| p.seat_type == kind);
    lines.map(|p| CategoryPrice { category: &p.category, amount: plan.money(p.amount) }).collect()
}

type Place = (ShowId, u64, u64);

/// A [`SeatMap`].
pub fn full((show, epoch, seq): Place, plan: &Plan, seats: &[SeatStatus]) -> Vec<u8> {
    let kinds = SeatType::ALL.map(|kind| {
        let begin = format!(",\"type\":{},\"status\":\"", json(&kind));
        (kind, begin, format!("\",\"prices\":{}}}", json(&category_prices(plan, kind))))
    });
    let mut out = String::with_capacity(128 + seats.len() * 120);
    let _ = write!(out, "{{\"show_id\":{},\"epoch\":{epoch},\"seq\":{seq},\"seats\":[", json(&show));
    for (index, (place, status)) in plan.places().zip(seats).enumerate() {
        out.push_str(if index == 0 { "{\"seat\":" } else { ",{\"seat\":" });
        push_text(&mut out, place.name);
        if let Some((_, begin, end)) = kinds.iter().find(|(kind, ..)| *kind == place.kind) {
            out.push_str(begin);
            out.push_str(word(*status));
            out.push_str(end);
        }
    }
    out.push_str("]}");
    out.into_bytes()
}

/// A JSON string.
fn push_text(out: &mut String, text: &str) {
    if text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&json(&text));
    }
}

/// A [`CompactSeatMap`].
pub fn compact((show_id, epoch, seq): Place, layout: &str, seats: &[SeatStatus]) -> Vec<u8> {
    let statuses = seats.iter().map(|status| letter(*status)).collect();
    json(&CompactSeatMap { show_id, epoch, seq, layout, statuses }).into_bytes()
}

/// A [`SeatLayout`] and its name.
pub fn layout(plan: &Plan) -> (String, Vec<u8>) {
    let facts = &plan.facts;
    let seats = plan.rows().iter().flat_map(|row| row.seats.clone().map(move |seat| (row, seat)));
    let seats = seats.map(|(row, seat)| {
        let (place, spot) = (plan.place(seat), plan.at(seat));
        PlacedSeat { seat: place.name, row: &row.name, kind: place.kind, x: spot.x, y: spot.y }
    });
    let prices = facts.prices.iter().map(|p| PriceView {
        seat_type: p.seat_type,
        category: p.category.clone(),
        amount: plan.money(p.amount),
    });
    let layout = SeatLayout { show_id: facts.show, seats: seats.collect(), prices: prices.collect() };
    let body = json(&layout).into_bytes();
    (HEXLOWER.encode(&Sha256::digest(&body)[..8]), body)
}

/// A server-sent event; `data` is JSON, which has no line breaks.
pub fn event(name: &str, epoch: u64, seq: u64, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + 64);
    out.extend_from_slice(format!("event: {name}\nid: {epoch}.{seq}\ndata: ").as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
    out.into()
}

pub fn change_event(show_id: ShowId, epoch: u64, plan: &Plan, delta: &Delta) -> Bytes {
    let seats = delta
        .seats
        .iter()
        .map(|(seat, status)| ChangedSeat { seat: plan.place(*seat).name, status: *status })
        .collect();
    let change = SeatChange { show_id, epoch, seq: delta.seq, seats };
    event("change", epoch, delta.seq, json(&change).as_bytes())
}
