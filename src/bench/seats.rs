//! Free seats of many shows, handed out one by one to whoever asks next.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::api::{Api, Failure};

/// So many shows are bought from at most.
const SHOWS: usize = 300;

pub struct Seats {
    shows: usize,
    all: Vec<(String, String)>,
    next: AtomicUsize,
}

impl Seats {
    /// Reads the seat maps of the coming shows, soonest first.
    pub async fn free(api: &Api) -> Result<Self, Failure> {
        let shows: Vec<String> = api
            .list("/v1/shows")
            .await?
            .iter()
            .filter(|show| show["status"].as_str().is_none_or(|s| s == "scheduled" || s == "on_sale"))
            .filter_map(|show| show["id"].as_str().map(str::to_owned))
            .take(SHOWS)
            .collect();
        let maps: Vec<(String, Vec<String>)> = stream::iter(shows)
            .map(|show| async move {
                let map = api.get(&format!("/v1/shows/{show}/seats")).await?;
                let free = map["seats"].as_array().into_iter().flatten();
                let free = free
                    .filter(|s| {
                        s["status"] == "free" && s["type"] != "accessible" && s["type"] != "companion"
                    })
                    .filter_map(|s| s["seat"].as_str().map(str::to_owned))
                    .collect();
                Ok::<_, Failure>((show, free))
            })
            .buffered(16)
            .try_collect()
            .await?;
        Ok(Self::of(maps))
    }

    /// In turn one seat of each show; within a show in the map's order, so that no purchase leaves a gap
    /// that a single-seat rule would refuse.
    fn of(mut maps: Vec<(String, Vec<String>)>) -> Self {
        maps.retain(|(_, seats)| !seats.is_empty());
        let longest = maps.iter().map(|(_, seats)| seats.len()).max().unwrap_or(0);
        let all = (0..longest)
            .flat_map(|i| {
                maps.iter().filter_map(move |(show, seats)| Some((show.clone(), seats.get(i)?.clone())))
            })
            .collect();
        Self { shows: maps.len(), all, next: AtomicUsize::new(0) }
    }

    pub fn shows(&self) -> usize {
        self.shows
    }

    /// The next seat, given to nobody else.
    pub fn take(&self) -> Option<(String, String)> {
        self.all.get(self.next.fetch_add(1, Ordering::Relaxed)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_take_turns_and_no_seat_is_given_twice() {
        let seats = Seats::of(vec![
            ("s1".into(), vec!["A1".into(), "A2".into()]),
            ("s2".into(), vec![]),
            ("s3".into(), vec!["B1".into()]),
        ]);
        assert_eq!(seats.shows(), 2);
        let order: Vec<String> =
            std::iter::from_fn(|| seats.take()).map(|(show, seat)| format!("{show}{seat}")).collect();
        assert_eq!(order, ["s1A1", "s3B1", "s1A2"]);
        assert_eq!(seats.take(), None);
    }
}
