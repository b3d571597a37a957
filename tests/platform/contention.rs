//! Fifty customers want the same twenty seats at once, through all gateways.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Barrier;

use crate::client::{Answer, Client, fresh_key, list, text};
use crate::stage::{self, adults};
use crate::world::{World, step, until};

const CUSTOMERS: usize = 50;

pub async fn walk(world: Arc<World>) {
    let show = stage::new_show(&world, "eu", 2, 10).await.id;
    let seats: Vec<String> = stage::seat_map(&world.gateway("eu"), &show).await.into_keys().collect();
    assert_eq!(seats.len(), 20);
    let regions: Vec<String> = world.run().gateways.into_keys().collect();
    let mut customers = Vec::new();
    for i in 0..CUSTOMERS {
        customers.push(world.customer(&regions[i % regions.len()]).await.client);
    }

    step(&format!(
        "{CUSTOMERS} customers try each of 20 seats, in an order of their own (seed {})",
        world.seed
    ));
    let line = Arc::new(Barrier::new(CUSTOMERS));
    let attempts: Vec<_> = customers
        .iter()
        .enumerate()
        .map(|(i, customer)| {
            let (customer, show, line) = (customer.clone(), show.clone(), line.clone());
            let order = shuffled(&seats, world.seed.wrapping_add(i as u64));
            tokio::spawn(async move {
                line.wait().await;
                let mut won = Vec::new();
                for seat in order {
                    let answer = try_seat(&customer, &show, &seat).await;
                    match answer.code() {
                        201 => won.push((seat, answer.json())),
                        _ => assert_eq!(answer.problem(409, "seats-unavailable")["seats"][0], seat),
                    }
                }
                won
            })
        })
        .collect();
    let mut winners: BTreeMap<String, (Client, Value)> = BTreeMap::new();
    for (attempt, customer) in attempts.into_iter().zip(&customers) {
        for (seat, reservation) in attempt.await.expect("an attempt's own checks hold") {
            let before = winners.insert(seat.clone(), (customer.clone(), reservation));
            assert!(before.is_none(), "{seat} was promised twice");
        }
    }
    assert_eq!(winners.keys().cloned().collect::<Vec<_>>(), seats, "every seat found its customer");
    let counts = stage::seat_counts(&customers[0], &show).await;
    assert_eq!(counts, BTreeMap::from([("held".to_owned(), 20)]));

    step("all winners pay at once: twenty seats are sold, each once");
    let purchases: Vec<_> = winners
        .into_iter()
        .map(|(seat, (customer, reservation))| {
            tokio::spawn(async move {
                stage::pay(&customer, &reservation, "tok_ok").await.ok(201);
                let id = text(&reservation, "id");
                let paid = until("a paid reservation", Duration::from_secs(20), async || {
                    let now = stage::reservation_now(&customer, &id).await;
                    (now["status"] == "paid").then_some(now)
                })
                .await;
                let tickets = list(&paid, "tickets");
                assert_eq!(tickets.len(), 1, "{paid}");
                assert_eq!(tickets[0]["seat"], seat);
                text(&tickets[0], "id")
            })
        })
        .collect();
    let mut tickets = std::collections::BTreeSet::new();
    for purchase in purchases {
        assert!(tickets.insert(purchase.await.expect("a purchase's own checks hold")), "a ticket twice");
    }
    assert_eq!(tickets.len(), 20);
    let counts = stage::seat_counts(&customers[0], &show).await;
    assert_eq!(counts, BTreeMap::from([("sold".to_owned(), 20)]));
}

/// One attempt at one seat. A 503 says that nothing is known to have happened: the same key asks again.
async fn try_seat(customer: &Client, show: &str, seat: &str) -> Answer {
    let call = customer.post(&format!("/v1/shows/{show}/reservations"), adults(&[seat])).key(&fresh_key());
    until(&format!("an answer about {seat}"), Duration::from_secs(30), async || {
        let answer = call.clone().await;
        (answer.code() != 503).then_some(answer)
    })
    .await
}

/// Fisher and Yates, on a small generator of its own, so that a seed gives the same order for ever.
fn shuffled(seats: &[String], seed: u64) -> Vec<String> {
    let mut state = seed;
    let mut next = || {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut order = seats.to_vec();
    for i in (1..order.len()).rev() {
        let j = usize::try_from(next() % (i as u64 + 1)).expect("small");
        order.swap(i, j);
    }
    order
}
