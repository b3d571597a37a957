//! Migrations on databases that hold rows already.

use std::ops::DerefMut;

use crate::testing::{Options, TestPostgres};
use crate::{Schema, pool};

/// A region's database as it was before journals were kept by year, with `shows` (created in the second half
/// of each year given) of three entries each.
async fn before_years(server: &TestPostgres, name: &str, shows: &[i32]) -> String {
    let url = server.database(name).await;
    let pool = pool(&url, 1).unwrap();
    let mut client = pool.get().await.unwrap();
    let runner = Schema::Regional.runner().set_target(refinery::Target::Version(2));
    runner.run_async(client.deref_mut().deref_mut()).await.unwrap();
    for year in shows {
        let insert = "INSERT INTO show_journal
               SELECT (lpad(to_hex((extract(epoch FROM make_timestamptz($1, 7, 1, 0, 0, 0, 'UTC')) * 1000)::bigint),
                            12, '0') || '70008000000000000000')::uuid,
                      seq, 1, 1, 1, now(), 1::smallint, '\\x00', '\\x5b5d'
                 FROM generate_series(1, 3) AS seq";
        client.execute(insert, &[year]).await.unwrap();
    }
    url
}

async fn rows(url: &str) -> Vec<(String, i64)> {
    let client = pool(url, 1).unwrap().get().await.unwrap();
    let select = "SELECT tableoid::regclass::text, count(*) FROM show_journal GROUP BY 1 ORDER BY 1";
    let rows = client.query(select, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn scalar(url: &str, select: &str) -> i64 {
    pool(url, 1).unwrap().get().await.unwrap().query_one(select, &[]).await.unwrap().get(0)
}

fn row(table: &str, count: i64) -> (String, i64) {
    (table.to_owned(), count)
}

#[tokio::test]
async fn a_journal_of_one_year_becomes_its_partition_without_a_copy() {
    let server = TestPostgres::start_with(Options { fsync: false });
    let url = before_years(&server, "one", &[2026]).await;
    let file = "SELECT pg_relation_filenode(to_regclass($$TABLE$$))::bigint";
    let before = scalar(&url, &file.replace("TABLE", "show_journal")).await;
    Schema::Regional.migrate(&url).await.unwrap();
    assert_eq!(rows(&url).await, [row("show_journal_y2026", 3)]);
    assert_eq!(scalar(&url, &file.replace("TABLE", "show_journal_y2026")).await, before);
}

#[tokio::test]
async fn journals_of_several_years_are_told_apart_and_wrong_clocks_lose_nothing() {
    let server = TestPostgres::start_with(Options { fsync: false });
    let url = before_years(&server, "several", &[1999, 2024, 2026, 2600]).await;
    Schema::Regional.migrate(&url).await.unwrap();
    let expected = [row("show_journal_other", 6), row("show_journal_y2024", 3), row("show_journal_y2026", 3)];
    assert_eq!(rows(&url).await, expected);
    // A year made later takes its rows out of the default partition.
    let client = pool(&url, 1).unwrap().get().await.unwrap();
    for made in [true, false] {
        let row = client.query_one("SELECT make_journal_year(2600)", &[]).await.unwrap();
        assert_eq!(row.get::<_, bool>(0), made, "a repeat finds it there");
    }
    assert_eq!(rows(&url).await[0], row("show_journal_other", 3));
}

#[tokio::test]
async fn a_new_database_has_the_years_ahead() {
    let server = TestPostgres::start_with(Options { fsync: false });
    let url = before_years(&server, "new", &[]).await;
    Schema::Regional.migrate(&url).await.unwrap();
    let this = scalar(&url, "SELECT extract(year FROM now() AT TIME ZONE 'UTC')::bigint").await;
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'show_journal'::regclass";
    assert_eq!(scalar(&url, partitions).await, 4, "three years and the default");
    let named = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname = 'show_journal_y";
    for year in this..this + 3 {
        assert_eq!(scalar(&url, &format!("{named}{year}'")).await, 1, "{year}");
    }
    // Bounds are the first millisecond of a year and the last before it.
    let of = |id: &str| format!("SELECT journal_year_of('{id}')::bigint");
    let floor = |year: i64| {
        format!(
            "SELECT ('x' || left(replace(journal_year_floor({year})::text, '-', ''), 12))::bit(48)::bigint"
        )
    };
    assert_eq!(scalar(&url, &floor(2027)).await, 1_798_761_600_000);
    assert_eq!(scalar(&url, &of("01a2ce8b-d400-0000-0000-000000000000")).await, 2027);
    assert_eq!(scalar(&url, &of("01a2ce8b-d3ff-7fff-bfff-ffffffffffff")).await, 2026);
}
