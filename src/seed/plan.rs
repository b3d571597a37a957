//! The week's programme: which film runs in which hall when. Pure.
//!
//! Invariants: in one hall no show begins before the one before it has ended and the hall has been cleaned;
//! a day's programme depends on the hall, the date and the films alone, so that planning again tomorrow
//! repeats today's.

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// Between two shows in one hall; a little more than the service asks for.
const TURNAROUND_MIN: i64 = 25;
/// Shows begin on multiples of this.
const GRID_MIN: i64 = 5;
/// A show that would begin so much after its slot is left out.
const MAX_DELAY_MIN: i64 = 75;

/// When shows of a day begin at best, in minutes after the business day's midnight.
const WEEKDAY: [i64; 3] = [15 * 60, 17 * 60 + 45, 20 * 60 + 30];
const WEEKEND: [i64; 4] = [11 * 60, 14 * 60, 17 * 60, 20 * 60];
/// Friday and Saturday nights: some of these are over, a few even begin, past midnight.
const LATE: i64 = 23 * 60 + 15;

const EVENING_BEGINS_MIN: i64 = 17 * 60;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Film {
    pub id: String,
    pub runtime_min: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub movie_id: String,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    /// The evening price holds.
    pub evening: bool,
}

/// One hall's shows on one business day. `hall` is any number that tells the halls apart.
pub fn day(hall: usize, date: Date, zone: &TimeZone, films: &[Film]) -> Vec<Planned> {
    if films.is_empty() {
        return Vec::new();
    }
    let weekday = date.weekday();
    let mut slots = match weekday {
        Weekday::Saturday | Weekday::Sunday => WEEKEND.to_vec(),
        _ => WEEKDAY.to_vec(),
    };
    if matches!(weekday, Weekday::Friday | Weekday::Saturday) {
        slots.push(LATE);
    }
    let day_number =
        usize::try_from(date.duration_since(Date::constant(2020, 1, 1)).as_hours() / 24).unwrap_or(0);
    // Neighbouring halls begin at different times, as real ones do, for the foyer's sake.
    let shift_min = i64::try_from(hall % 4).unwrap_or(0) * 10;
    let mut planned: Vec<Planned> = Vec::new();
    let mut free_from_min = 0;
    for (slot, at_min) in slots.into_iter().enumerate() {
        // Steps of different size, so that a film wanders through halls and slots from day to day.
        let film = &films[(hall * 5 + day_number * 3 + slot * 7) % films.len()];
        let wish_min = at_min + shift_min;
        let start_min = round_up(wish_min.max(free_from_min));
        if start_min > wish_min + MAX_DELAY_MIN {
            continue;
        }
        let Some(starts_at) = moment(date, start_min, zone) else { continue };
        free_from_min = start_min + film.runtime_min + TURNAROUND_MIN;
        planned.push(Planned {
            movie_id: film.id.clone(),
            starts_at,
            ends_at: starts_at + SignedDuration::from_mins(film.runtime_min),
            evening: start_min >= EVENING_BEGINS_MIN,
        });
    }
    planned
}

/// The business days on the programme: today and the six after it, where the cinema stands.
pub fn week(now: Timestamp, zone: &TimeZone) -> Vec<Date> {
    let today = now.to_zoned(zone.clone()).date();
    (0..7).filter_map(|days| today.checked_add(days.days()).ok()).collect()
}

fn round_up(minutes: i64) -> i64 {
    minutes.div_euclid(GRID_MIN) * GRID_MIN + if minutes.rem_euclid(GRID_MIN) == 0 { 0 } else { GRID_MIN }
}

/// Minutes may go past 24 h: that is the night after. A time that a clock change skips moves on.
fn moment(date: Date, minutes: i64, zone: &TimeZone) -> Option<Timestamp> {
    let local = date.to_datetime(Time::midnight()).checked_add(minutes.minutes()).ok()?;
    Some(local.to_zoned(zone.clone()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::data;
    use jiff::civil::date;

    fn films() -> Vec<Film> {
        [97, 102, 111, 116, 126, 139, 152, 178, 187, 201]
            .iter()
            .enumerate()
            .map(|(i, runtime_min)| Film { id: format!("mov_{i}"), runtime_min: *runtime_min })
            .collect()
    }

    #[test]
    fn no_hall_shows_two_films_at_once_all_year_round() {
        let films = films();
        for cinema in data::demo().cinemas {
            let zone = TimeZone::get(&cinema.time_zone).unwrap();
            for hall in 0..6 {
                let mut free_from = Timestamp::MIN;
                let mut day_of = date(2026, 1, 1);
                for _ in 0..400 {
                    for show in day(hall, day_of, &zone, &films) {
                        assert!(show.starts_at >= free_from, "{} hall {hall} {day_of}", cinema.name);
                        free_from = show.ends_at + SignedDuration::from_mins(TURNAROUND_MIN - 5);
                    }
                    day_of = day_of.tomorrow().unwrap();
                }
            }
        }
    }

    #[test]
    fn a_week_is_full_varied_and_goes_past_midnight() {
        let (films, zone) = (films(), TimeZone::get("Europe/Paris").unwrap());
        let days = week("2026-11-20T10:00:00Z".parse().unwrap(), &zone);
        assert_eq!((days.len(), days[0], days[6]), (7, date(2026, 11, 20), date(2026, 11, 26)));
        let mut shown = std::collections::BTreeSet::new();
        let mut past_midnight = 0;
        for hall in 0..4 {
            for day_of in &days {
                let shows = day(hall, *day_of, &zone, &films);
                assert!((2..=5).contains(&shows.len()), "{} shows", shows.len());
                for show in shows {
                    let local = show.ends_at.to_zoned(zone.clone());
                    past_midnight += u32::from(local.date() > *day_of);
                    shown.insert(show.movie_id);
                }
            }
        }
        assert!(shown.len() >= 8, "only {} films", shown.len());
        assert!(past_midnight > 0);
    }

    #[test]
    fn tomorrow_plans_the_same_days_alike() {
        let (films, zone) = (films(), TimeZone::get("America/New_York").unwrap());
        assert_eq!(day(2, date(2026, 11, 21), &zone, &films), day(2, date(2026, 11, 21), &zone, &films));
        assert_ne!(day(2, date(2026, 11, 21), &zone, &films), day(3, date(2026, 11, 21), &zone, &films));
        // In Tokyo it is tomorrow already.
        let tokyo = TimeZone::get("Asia/Tokyo").unwrap();
        assert_eq!(week("2026-11-20T16:00:00Z".parse().unwrap(), &tokyo)[0], date(2026, 11, 21));
    }

    #[test]
    fn without_films_nothing_is_planned() {
        assert!(day(0, date(2026, 11, 21), &TimeZone::UTC, &[]).is_empty());
    }
}
