//! The payment provider as Marquee sees it, and the client of the built-in test provider. A real provider is
//! another implementation of [`Provider`].

use std::time::Duration;

use common::config::Secret;
use common::{Money, PaymentId, RefundId};
use jiff::Timestamp;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

/// What the provider's books say of a payment.
#[derive(Clone, Debug, Deserialize)]
pub struct Charge {
    pub id: String,
    pub status: ChargeStatus,
    #[serde(default)]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChargeStatus {
    Succeeded,
    Declined,
    Pending,
    Canceled,
}

/// A charge as the provider's books list it.
#[derive(Clone, Debug, Deserialize)]
pub struct Booked {
    pub id: String,
    pub status: ChargeStatus,
    /// In minor units; and what was given back of it.
    pub amount: i64,
    pub refunded: i64,
    pub changed_at: Timestamp,
}

/// A page of what changed at the provider; one charge may stand there several times, always as it is now.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Changes {
    pub charges: Vec<Booked>,
    /// Where the next page begins; none: this is the last.
    pub next: Option<String>,
}

/// "Did it happen?" is in the type.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// It may have happened.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
    /// It surely did not.
    #[error("the provider refused: {0}")]
    Refused(String),
}

#[tonic::async_trait]
pub trait Provider: Send + Sync {
    /// Charges under the payment's id; the same id again answers what became of it.
    async fn charge(&self, id: PaymentId, amount: Money, token: &str) -> Result<Charge, ProviderError>;
    /// What is known under this id; none: nothing.
    async fn find(&self, id: PaymentId) -> Result<Option<Charge>, ProviderError>;
    /// Makes sure that no money moves under this id any more, unless it has: an unknown id is created
    /// canceled, which defeats a late call.
    async fn cancel(&self, id: PaymentId, amount: Money) -> Result<Charge, ProviderError>;
    /// Gives money back under the refund's id; `Err(Refused)` when the provider will not.
    async fn refund(&self, id: RefundId, payment: PaymentId, amount: Money) -> Result<(), ProviderError>;
    /// The charges that changed at `since` or later, oldest change first; `after`: the `next` of the page before.
    async fn changed(&self, since: Timestamp, after: Option<String>) -> Result<Changes, ProviderError>;
}

/// The test provider over HTTP.
pub struct TestProvider {
    client: reqwest::Client,
    url: String,
    api_key: Secret,
}

#[derive(Serialize)]
struct NewCharge<'a> {
    id: PaymentId,
    amount: i64,
    currency: common::Currency,
    token: &'a str,
}

#[derive(Serialize)]
struct NewRefund {
    id: RefundId,
    charge: PaymentId,
    amount: i64,
}

#[derive(Deserialize)]
struct RefundAnswer {
    status: String,
    #[serde(default)]
    reason: Option<String>,
}

impl TestProvider {
    pub fn new(url: &str, api_key: Secret, timeout: Duration) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(timeout).connect_timeout(timeout).build()?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), api_key })
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ProviderError> {
        let sent = request.bearer_auth(self.api_key.reveal()).send().await;
        let answer = sent.map_err(|e| ProviderError::Unknown(e.without_url().to_string()))?;
        match answer.status() {
            status if status.is_server_error() => Err(ProviderError::Unknown(format!("answered {status}"))),
            status if status.is_client_error() && status != StatusCode::NOT_FOUND => {
                Err(ProviderError::Refused(format!("answered {status}")))
            }
            _ => Ok(answer),
        }
    }

    async fn charge_in(answer: reqwest::Response) -> Result<Charge, ProviderError> {
        answer.json().await.map_err(|e| ProviderError::Unknown(e.without_url().to_string()))
    }
}

#[tonic::async_trait]
impl Provider for TestProvider {
    async fn charge(&self, id: PaymentId, amount: Money, token: &str) -> Result<Charge, ProviderError> {
        let body = NewCharge { id, amount: amount.amount, currency: amount.currency, token };
        let request = self.client.post(format!("{}/v1/charges", self.url)).json(&body);
        Self::charge_in(self.call(request).await?).await
    }

    async fn find(&self, id: PaymentId) -> Result<Option<Charge>, ProviderError> {
        let answer = self.call(self.client.get(format!("{}/v1/charges/{id}", self.url))).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Self::charge_in(answer).await.map(Some)
    }

    async fn cancel(&self, id: PaymentId, amount: Money) -> Result<Charge, ProviderError> {
        let body = serde_json::json!({ "amount": amount.amount, "currency": amount.currency });
        let request = self.client.post(format!("{}/v1/charges/{id}/cancel", self.url)).json(&body);
        Self::charge_in(self.call(request).await?).await
    }

    async fn refund(&self, id: RefundId, payment: PaymentId, amount: Money) -> Result<(), ProviderError> {
        let body = NewRefund { id, charge: payment, amount: amount.amount };
        let answer = self.call(self.client.post(format!("{}/v1/refunds", self.url)).json(&body)).await?;
        let refund: RefundAnswer =
            answer.json().await.map_err(|e| ProviderError::Unknown(e.without_url().to_string()))?;
        match refund.status.as_str() {
            "succeeded" => Ok(()),
            "failed" => Err(ProviderError::Refused(refund.reason.unwrap_or_else(|| "refused".into()))),
            other => Err(ProviderError::Unknown(format!("status {other}"))),
        }
    }

    async fn changed(&self, since: Timestamp, after: Option<String>) -> Result<Changes, ProviderError> {
        let mut request = self.client.get(format!("{}/v1/changes", self.url));
        request = request.query(&[("since_ms", since.as_millisecond().to_string())]);
        if let Some(after) = after {
            request = request.query(&[("after", after)]);
        }
        let answer = self.call(request).await?;
        answer.json().await.map_err(|e| ProviderError::Unknown(e.without_url().to_string()))
    }
}
