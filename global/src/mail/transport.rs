//! Handing a mail over: to an SMTP server, or as a file into a folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Body, Mailbox, SinglePart};
use lettre::transport::smtp;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use uuid::Uuid;

use super::MailConfig;
use super::texts::Text;

/// Connecting, and each answer of the server's.
const TIMEOUT: Duration = Duration::from_secs(10);

type Smtp = AsyncSmtpTransport<Tokio1Executor>;

pub enum Transport {
    Folder(PathBuf),
    Smtp(Box<Smtp>),
}

/// Why a mail was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// Nobody will ever take it so.
    #[error("refused for good: {0}")]
    Refused(String),
    #[error("{0}")]
    Later(String),
}

pub fn smtp(url: &str) -> Result<Smtp, smtp::Error> {
    Ok(Smtp::from_url(url)?.timeout(Some(TIMEOUT)).build())
}

impl Transport {
    /// None: mail is not configured.
    pub fn new(config: &MailConfig) -> anyhow::Result<Option<Self>> {
        if !config.folder.is_empty() {
            let folder = PathBuf::from(&config.folder);
            std::fs::create_dir_all(&folder)
                .map_err(|e| anyhow::anyhow!("the mail folder {}: {e}", folder.display()))?;
            return Ok(Some(Self::Folder(folder)));
        }
        match config.smtp_url.reveal() {
            "" => Ok(None),
            url => {
                // The error's text could carry the URL and with it a password.
                let smtp = smtp(url).map_err(|_| anyhow::anyhow!("`mail.smtp_url` is not usable"))?;
                Ok(Some(Self::Smtp(Box::new(smtp))))
            }
        }
    }

    pub async fn send(&self, id: Uuid, message: Message) -> Result<(), Unsent> {
        match self {
            Self::Folder(folder) => {
                let (folder, bytes) = (folder.clone(), message.formatted());
                let write = move || write_once(&folder, id, &bytes);
                let written = tokio::task::spawn_blocking(write).await;
                written.map_err(|e| Unsent::Later(e.to_string()))?.map_err(|e| Unsent::Later(e.to_string()))
            }
            Self::Smtp(smtp) => match smtp.send(message).await {
                Ok(_) => Ok(()),
                Err(error) if about_this_mail(&error) => Err(Unsent::Refused(error.to_string())),
                Err(error) => Err(Unsent::Later(error.to_string())),
            },
        }
    }
}

/// RFC 5321, 4.2.3: the codes by which a server refuses a recipient or a message for good. Others that begin
/// with 5, such as a wrong password of ours, are about the connection and may be mended.
fn about_this_mail(error: &smtp::Error) -> bool {
    let code = error.status().map(|code| code.to_string());
    code.is_some_and(|code| ["550", "551", "552", "553", "554", "556"].contains(&code.as_str()))
}

/// Under the mail's id, so that a second attempt finds the first one's file; whole or not at all.
fn write_once(folder: &Path, id: Uuid, bytes: &[u8]) -> std::io::Result<()> {
    write_file_once(folder, id, "eml", bytes)
}

pub fn write_file_once(folder: &Path, id: Uuid, ending: &str, bytes: &[u8]) -> std::io::Result<()> {
    let file = folder.join(format!("{}.{ending}", id.simple()));
    if file.exists() {
        return Ok(());
    }
    let partial = folder.join(format!(".{}.partial", id.simple()));
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, &file)
}

/// The whole message, with the `Message-ID` that stands for the event.
pub fn message(id: Uuid, from: &Mailbox, to: &str, text: Text) -> Result<Message, Unsent> {
    let refused = |e: &dyn std::fmt::Display| Unsent::Refused(e.to_string());
    let to: Mailbox = to.parse().map_err(|e: lettre::address::AddressError| refused(&e))?;
    let lines = text.body.replace('\n', "\r\n");
    let body = if lines.is_ascii() {
        // As it stands: an encoding would break the link over two lines, which not every reader mends. It is
        // far from the 998 characters that a line may have.
        Body::dangerous_pre_encoded(lines.into_bytes(), ContentTransferEncoding::SevenBit)
    } else {
        // The names of films and cinemas.
        Body::new_with_encoding(lines, ContentTransferEncoding::QuotedPrintable)
            .map_err(|_| Unsent::Refused("its text cannot be encoded".into()))?
    };
    let part = SinglePart::builder().header(ContentType::TEXT_PLAIN).body(body);
    Message::builder()
        .message_id(Some(format!("<{}@{}>", id.simple(), from.email.domain())))
        .from(from.clone())
        .to(to)
        .subject(text.subject)
        // RFC 3834: no holiday notices, please.
        .header(AutoSubmitted)
        .singlepart(part)
        .map_err(|e| refused(&e))
}

#[derive(Clone)]
struct AutoSubmitted;

impl lettre::message::header::Header for AutoSubmitted {
    fn name() -> lettre::message::header::HeaderName {
        lettre::message::header::HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> lettre::message::header::HeaderValue {
        lettre::message::header::HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}
