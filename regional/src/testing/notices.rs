//! `global`'s half of notices, as a stand-in; and the keys that open the addresses in them.

use common::personal::Month;
use common::proto::feed::{MonthKey, MonthKeys};
use common::proto::notices::notices_server::Notices;
use common::proto::notices::{Notice, TellReply, TellRequest};
use jiff::Timestamp;

use super::{FakeGlobal, FeedService, TestRegion};

#[tonic::async_trait]
impl Notices for FeedService {
    async fn tell(
        &self,
        request: tonic::Request<TellRequest>,
    ) -> Result<tonic::Response<TellReply>, tonic::Status> {
        let request = request.into_inner();
        assert_eq!(request.teller, "eu");
        self.0.notices.lock().unwrap().extend(request.notices);
        Ok(tonic::Response::new(TellReply {}))
    }
}

impl FakeGlobal {
    /// What was told, in order.
    pub fn notices(&self) -> Vec<Notice> {
        self.inner.notices.lock().unwrap().clone()
    }
}

impl TestRegion {
    /// The key of this month comes by the feed.
    pub fn hear_months(&self) {
        let month = u32::from(Month::of(Timestamp::now()).0);
        let keys = vec![MonthKey { month, key: vec![1; 32].into() }];
        self.months.set(&MonthKeys { keys }).unwrap();
    }
}
