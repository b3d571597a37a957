//! Configuration: defaults, then a TOML file, then the environment (`MARQUEE_` and `__` between levels:
//! `MARQUEE_POSTGRES__URL`). Checked at boot; every wrong field is reported at once.

use std::fmt;
use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A value that never shows itself in logs or errors.
#[derive(Clone, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The value itself; the call's name marks the places to review.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(unset)" } else { "(secret)" })
    }
}

/// What is wrong with a configuration, one line each.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is not usable:\n{}", .0.iter().map(|e| format!("  - {e}")).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<String>);

pub trait Config: Default + Serialize + DeserializeOwned {
    /// One line for each field whose value cannot be used.
    fn problems(&self) -> Vec<String>;
}

pub fn load<C: Config>(file: Option<&Path>) -> Result<C, ConfigErrors> {
    let mut figment = Figment::from(Serialized::defaults(C::default()));
    if let Some(path) = file {
        if !path.is_file() {
            return Err(ConfigErrors(vec![format!("{}: no such file", path.display())]));
        }
        figment = figment.merge(Toml::file_exact(path));
    }
    let config: C = figment
        .merge(Env::prefixed("MARQUEE_").split("__"))
        .extract()
        // Figment's message names the field but can quote its value, which may be a secret.
        .map_err(|errors| ConfigErrors(errors.into_iter().map(|e| describe(&e)).collect()))?;
    let problems = config.problems();
    if problems.is_empty() { Ok(config) } else { Err(ConfigErrors(problems)) }
}

fn describe(error: &figment::Error) -> String {
    use figment::error::Kind;
    let field = error.path.join(".");
    match &error.kind {
        Kind::MissingField(name) => format!("`{name}` is missing"),
        Kind::UnknownField(name, _) => format!("`{name}` is not a known setting"),
        Kind::InvalidType(_, wanted) => format!("`{field}` has the wrong type: expected {wanted}"),
        Kind::InvalidValue(_, wanted) => format!("`{field}` has an unusable value: expected {wanted}"),
        Kind::Message(message) => format!("`{field}`: {message}"),
        _ => format!("`{field}` cannot be read"),
    }
}

/// Checks that are the same in every service.
pub mod check {
    pub fn required(problems: &mut Vec<String>, field: &str, value: &str) {
        if value.trim().is_empty() {
            problems.push(format!("`{field}` is required"));
        }
    }

    pub fn url(problems: &mut Vec<String>, field: &str, value: &str) {
        match value.parse::<http::Uri>() {
            Ok(uri) if uri.scheme().is_some() && uri.host().is_some() => {}
            _ => problems.push(format!("`{field}` must be a URL such as http://host:port")),
        }
    }

    pub fn socket(problems: &mut Vec<String>, field: &str, value: &str) {
        if value.parse::<std::net::SocketAddr>().is_err() {
            problems.push(format!("`{field}` must be an address such as 127.0.0.1:8080"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        listen: String,
        limit: u32,
        password: Secret,
    }

    impl Config for Sample {
        fn problems(&self) -> Vec<String> {
            let mut problems = Vec::new();
            check::socket(&mut problems, "listen", &self.listen);
            check::required(&mut problems, "password", self.password.reveal());
            problems
        }
    }

    #[test]
    fn every_wrong_field_is_named_and_no_secret_shown() {
        let error = load::<Sample>(None).unwrap_err().to_string();
        assert!(error.contains("`listen`") && error.contains("`password`"), "{error}");
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "(secret)");
    }
}
